#include "nucprune.h"

int32_t nucprune_abi_version(void) { return NUCPRUNE_ABI; }
