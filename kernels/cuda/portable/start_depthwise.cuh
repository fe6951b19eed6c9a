// StartDepthwise of one dtype, for the files that instantiate it.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_START_DEPTHWISE_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_START_DEPTHWISE_CUH_

#include "kernels/cuda/depthwise.h"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/portable/depthwise.cuh"

namespace lamina::cuda {

template <class T>
Error StartDepthwise(const DepthwiseArgs& args, DepthwiseVariant variant, void* stream) {
  const auto start = [&](void (*kernel)(DepthwiseArgs), int64_t items, int64_t groups) {
    const dim3 grid{static_cast<unsigned>(DivUp(items, kDepthwiseThreads)), static_cast<unsigned>(groups), 1};
    return Launch(kernel, grid, kDepthwiseThreads, 0, stream, args);
  };
  const auto walk = [&](void (*kernel)(DepthwiseArgs)) { return start(kernel, args.walks.count, args.walks.groups); };
  switch (variant) {
    case DepthwiseVariant::kWalk3x3Stride1: return walk(DepthwiseWalk<T, 3, 1>);
    case DepthwiseVariant::kWalk3x3Stride2: return walk(DepthwiseWalk<T, 3, 2>);
    case DepthwiseVariant::kWalk5x5Stride1: return walk(DepthwiseWalk<T, 5, 1>);
    case DepthwiseVariant::kWalk5x5Stride2: return walk(DepthwiseWalk<T, 5, 2>);
    case DepthwiseVariant::kRow7x7Stride1: return walk(DepthwiseRow<T, 7, 1>);
    case DepthwiseVariant::kQuads: break;
  }
  return start(DepthwiseQuad<T>, int64_t{args.images} * args.pixels.divisor * QuadsOf(args), 1);
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_START_DEPTHWISE_CUH_
