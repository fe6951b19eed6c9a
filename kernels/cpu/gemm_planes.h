// The micro-kernels of gemm.h for a B that is not packed: the columns of each step of k lie anywhere. They are pixels
// of image planes, so the bias is the rows'.
#ifndef LAMINA_KERNELS_CPU_GEMM_PLANES_H_
#define LAMINA_KERNELS_CPU_GEMM_PLANES_H_

#include "kernels/cpu/gemm.h"
#include "lamina/context.h"

namespace lamina::cpu {

// `tiles` alone, of GemmTiles with a `b_step`, one tap, at t.a; out.bias is [tiles][height], and nothing is accumulated
// or fetched ahead. Whole vectors of B are read, also beyond out.columns.
const GemmKernel& GetPlanesKernel(Isa isa);
// The one for CPUs with two FMAs a cycle of the widest vectors.
const GemmKernel& GetWidePlanesKernel(Isa isa);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_GEMM_PLANES_H_
