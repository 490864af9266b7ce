// AVX2 and FMA; compiled with -mavx2 -mfma, used only where cpuid says so.
#include "kernels.hpp"

#if defined(__AVX2__) && defined(__FMA__)
#define LANES 8
#define VECTOR_LIMIT 12  // of 16 registers
#define ROWS_LOG 0
#define GROUP 24
#define ISA_NAME "avx2"
#define VREG(v) "+x"(v)
#include "kernels.inl"

namespace nucprune {
const Kernels *const kernels_avx2 = &kTable;
}
#else
namespace nucprune {
const Kernels *const kernels_avx2 = nullptr;
}
#endif
