// NEON, which every 64-bit Arm has.
#include "kernels.hpp"

#if defined(__aarch64__) || defined(_M_ARM64)
#define LANES 4
#define VECTOR_LIMIT 16  // of 32 registers
#define ROWS_LOG 0
#define GROUP 32
#define ISA_NAME "neon"
#define VREG(v) "+w"(v)
#include "kernels.inl"

namespace nucprune {
const Kernels *const kernels_neon = &kTable;
}
#else
namespace nucprune {
const Kernels *const kernels_neon = nullptr;
}
#endif
