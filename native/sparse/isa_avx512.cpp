// AVX-512 F; compiled with -mavx512f -mfma, used only where cpuid says so.
#include "kernels.hpp"

#if defined(__AVX512F__)
#define LANES 16
// 2 x 4 sums: their 4 x 6 taps of 16 channels fit into L1, those of more sums do not.
#define VECTOR_LIMIT 8
#define ROWS_LOG 1
#define GROUP 16
#define ISA_NAME "avx512"
#define VREG(v) "+v"(v)
#include "kernels.inl"

namespace nucprune {
const Kernels *const kernels_avx512 = &kTable;
}
#else
namespace nucprune {
const Kernels *const kernels_avx512 = nullptr;
}
#endif
