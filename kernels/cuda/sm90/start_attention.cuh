// StartWgmmaAttention of one kind of elements, for the files that instantiate it.
#ifndef LAMINA_KERNELS_CUDA_SM90_START_ATTENTION_CUH_
#define LAMINA_KERNELS_CUDA_SM90_START_ATTENTION_CUH_

#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/sm90/attention.cuh"

namespace lamina::cuda {

template <Math kMath>
Error StartWgmmaAttention(const WgmmaAttentionArgs& args, int blocks, void* stream) {
  const auto start = [&]<int kD>() {
    using Shape = WgmmaAttentionShape<kD>;
    return Launch(FlashWgmmaKernel<kMath, kD>, dim3{static_cast<unsigned>(blocks), 1, 1}, Shape::kThreads,
                  static_cast<int>(sizeof(typename Shape::Shared)), stream, args);
  };
  switch (args.attention.head_dim) {
    case 64: return start.template operator()<64>();
    case 128: return start.template operator()<128>();
    default: return start.template operator()<256>();
  }
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_START_ATTENTION_CUH_
