// conv2d's candidates on CUDA beyond the matrix product, each from a file of its own.
#ifndef LAMINA_KERNELS_CUDA_CONV2D_CANDIDATES_H_
#define LAMINA_KERNELS_CUDA_CONV2D_CANDIDATES_H_

#include "kernels/operators/candidate.h"
#include "lamina/conv2d.h"

namespace lamina::cuda {

Candidate<Conv2d> DepthwiseConv2d();
Candidate<Conv2d> TmaDepthwiseConv2d();

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CONV2D_CANDIDATES_H_
