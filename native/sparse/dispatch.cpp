#include "dispatch.hpp"

#include <cstdlib>

#if defined(__x86_64__) || defined(_M_X64)
#define NUCPRUNE_X86 1
#if defined(_WIN32)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace nucprune {
namespace {

#ifdef NUCPRUNE_X86
struct Registers {
    uint32_t a, b, c, d;
};

Registers cpuid(uint32_t leaf) {
    Registers r{0, 0, 0, 0};
#if defined(_WIN32)
    int values[4];
    __cpuidex(values, static_cast<int>(leaf), 0);
    r = {uint32_t(values[0]), uint32_t(values[1]), uint32_t(values[2]), uint32_t(values[3])};
#else
    if (leaf <= static_cast<uint32_t>(__get_cpuid_max(0, nullptr)))
        __cpuid_count(leaf, 0, r.a, r.b, r.c, r.d);
#endif
    return r;
}

// Which registers the operating system saves; asked only where cpuid says OSXSAVE.
uint64_t saved_state() {
#if defined(_WIN32)
    return _xgetbv(0);
#else
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (uint64_t{high} << 32);
#endif
}

bool cpu_has(const Kernels *kernels) {
    if (kernels == kernels_baseline) return true;
    const uint32_t one = cpuid(1).c;
    const bool fma = one >> 12 & 1, osxsave = one >> 27 & 1, avx = one >> 28 & 1;
    if (!fma || !osxsave || !avx) return false;
    const uint64_t state = saved_state();
    const uint32_t seven = cpuid(7).b;
    if (kernels == kernels_avx2) return (state & 0x06) == 0x06 && (seven >> 5 & 1);
    if (kernels == kernels_avx512) return (state & 0xe6) == 0xe6 && (seven >> 16 & 1);
    return false;
}
#else
bool cpu_has(const Kernels *) { return true; }
#endif

}  // namespace

const Kernels *choose_kernels(const std::string &wanted, std::string &error) {
    struct Named {
        const char *name;
        const Kernels *kernels;
    };
    const Named all[] = {{"avx512", kernels_avx512},
                         {"avx2", kernels_avx2},
                         {"neon", kernels_neon},
                         {"baseline", kernels_baseline}};
    std::string name = wanted;
    const char *forced = std::getenv("NUCPRUNE_ISA");
    const bool by_variable = name.empty() && forced && *forced;
    if (by_variable) name = forced;
    const std::string asker = by_variable ? "NUCPRUNE_ISA=" : "The instruction set ";
    for (const Named &each : all) {
        const bool usable = each.kernels && cpu_has(each.kernels);
        if (name.empty() && usable) return each.kernels;
        if (name != each.name) continue;
        if (usable) return each.kernels;
        error = asker + name + (each.kernels ? " was asked for, but this CPU lacks it; choose "
                                             : " was asked for, but this build lacks it; choose ") +
                "another or leave the variable unset.";
        return nullptr;
    }
    error = asker + name + " is not known; choose avx512, avx2, neon or baseline.";
    return nullptr;
}

}  // namespace nucprune
