// Which instruction set to use.
#pragma once

#include <string>

#include "kernels.hpp"

namespace nucprune {

// The kernels of that name where the CPU has them, else null with one sentence in `error`. An
// empty name: the environment variable NUCPRUNE_ISA, else the best the CPU has.
const Kernels *choose_kernels(const std::string &name, std::string &error);

}  // namespace nucprune
