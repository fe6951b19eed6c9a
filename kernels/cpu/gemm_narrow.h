// The micro-kernels of gemm.h for outputs a vector or two wide, where its tiles leave the FMA units waiting: a taller
// one, and one that computes several groups of a convolution at once.
#ifndef LAMINA_KERNELS_CPU_GEMM_NARROW_H_
#define LAMINA_KERNELS_CPU_GEMM_NARROW_H_

#include "kernels/cpu/gemm.h"
#include "lamina/context.h"

namespace lamina::cpu {

// Tiles high enough to hide the latency of two FMAs a cycle, vectors = 2 on AVX-512, 1 elsewhere; GetGemmKernel's own
// where the CPU does one FMA a cycle.
const GemmKernel& GetTallKernel(Isa isa);

// vectors = 1; GemmTiles and GemmEdge must have a `gather`. Where a group has few output channels, a vector holds
// several groups', and each lane multiplies another channel of its pixel: a row's channels are loaded once and
// permuted.
const GemmKernel& GetGatherKernel(Isa isa);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_GEMM_NARROW_H_
