/* The native library of napari-nucprune, as a whole. */
#ifndef NUCPRUNE_H
#define NUCPRUNE_H

#include <stdint.h>

#ifndef NUCPRUNE_API
#if defined(_WIN32)
#define NUCPRUNE_API __declspec(dllexport)
#else
#define NUCPRUNE_API __attribute__((visibility("default")))
#endif
#endif

/* Counted up with every change of an exported function; src/napari_nucprune/native.py checks it. */
#define NUCPRUNE_ABI 5

#ifdef __cplusplus
extern "C" {
#endif

NUCPRUNE_API int32_t nucprune_abi_version(void);

#ifdef __cplusplus
}
#endif
#endif
