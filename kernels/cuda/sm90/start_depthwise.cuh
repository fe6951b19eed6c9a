// StartTmaDepthwise of one dtype, for the files that instantiate it.
#ifndef LAMINA_KERNELS_CUDA_SM90_START_DEPTHWISE_CUH_
#define LAMINA_KERNELS_CUDA_SM90_START_DEPTHWISE_CUH_

#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/sm90/depthwise.cuh"

namespace lamina::cuda {

template <class T>
Error StartTmaDepthwise(const TmaDepthwiseArgs& args, int blocks, void* stream) {
  const auto start = [&]<int kK, int kStride>() {
    using Shared = typename StripWalker<T, kK, kStride>::Shared;
    return Launch(TmaDepthwiseKernel<T, kK, kStride>, dim3{static_cast<unsigned>(blocks), 1, 1}, kDepthwiseThreads,
                  static_cast<int>(sizeof(Shared)), stream, args);
  };
  const bool one = args.depthwise.stride_h == 1;
  if (args.depthwise.kh == 3) return one ? start.template operator()<3, 1>() : start.template operator()<3, 2>();
  if (args.depthwise.kh == 5) return one ? start.template operator()<5, 1>() : start.template operator()<5, 2>();
  return start.template operator()<7, 1>();
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_START_DEPTHWISE_CUH_
