// conv2d's candidates on the CPU, each in a file of its own, kernels/cpu/conv2d_<name>.cc.
#ifndef LAMINA_KERNELS_CPU_CONV2D_CANDIDATES_H_
#define LAMINA_KERNELS_CPU_CONV2D_CANDIDATES_H_

#include "kernels/cpu/round.h"
#include "kernels/operators/candidate.h"
#include "kernels/operators/text.h"
#include "lamina/conv2d.h"

namespace lamina::cpu {

Candidate<Conv2d> DepthwiseConv2d();        // groups = ic
Candidate<Conv2d> DepthwisePlanesConv2d();  // groups = ic in nchw, 3x3 and 5x5: along the width of each plane
Candidate<Conv2d> PointwiseConv2d();        // 1x1 in nhwc: a matrix product over all pixels
Candidate<Conv2d> PlanesGemmConv2d();       // every problem in nchw: weights times pixels of the planes
Candidate<Conv2d> Winograd2x2Conv2d();      // 3x3 and 5x5 of stride 1: minimal filtering of 2x2 outputs
Candidate<Conv2d> Winograd4x4Conv2d();      // likewise of 4x4 outputs
Candidate<Conv2d> ImplicitGemmConv2d();     // every problem in nhwc
Candidate<Conv2d> TransposedGemmConv2d();   // every problem in nchw: implicit GEMM between two transposes

// Why the CPU path takes none of its problems yet, or "": it computes in fp32.
inline std::string RefuseType(const Conv2dDesc& d) {
  return d.dtype == DType::kF32 ? "" : "only dtype=f32 is computed on the CPU";
}

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_CONV2D_CANDIDATES_H_
