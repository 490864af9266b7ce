// Vectors of four floats as the compiler has them for any CPU of this architecture (SSE2 on
// x86-64); compiled with no flags of its own.
#include "kernels.hpp"

#define LANES 4
#define VECTOR_LIMIT 8  // of 16 registers: products need some where multiply-adds are not fused
#define ROWS_LOG 0
#define GROUP 32
#define ISA_NAME "baseline"
#if defined(__x86_64__) || defined(_M_X64)
#define VREG(v) "+x"(v)
#elif defined(__aarch64__)
#define VREG(v) "+w"(v)
#else
#define VREG(v) "+m"(v)
#endif
#include "kernels.inl"

namespace nucprune {
const Kernels *const kernels_baseline = &kTable;
}
