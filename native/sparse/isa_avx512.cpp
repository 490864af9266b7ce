// AVX-512 F; compiled with -mavx512f -mfma, used only where cpuid says so.
#include "kernels.hpp"

#if defined(__AVX512F__)
#define LANES 16
#define VECTOR_LIMIT 16  // of 32 registers
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
