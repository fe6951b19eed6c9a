// StartWgmmaGemm of one kind of products, for the files that instantiate it.
#ifndef LAMINA_KERNELS_CUDA_SM90_START_GEMM_CUH_
#define LAMINA_KERNELS_CUDA_SM90_START_GEMM_CUH_

#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/sm90/gemm.cuh"

namespace lamina::cuda {

template <Math kMath>
Error StartWgmmaGemm(const WgmmaGemmArgs& args, int tile_n, int blocks, void* stream) {
  const auto start = [&]<int kN>() {
    using Shape = WgmmaShape<kN>;
    return Launch(WgmmaGemmKernel<kMath, kN>, dim3{static_cast<unsigned>(blocks), 1, 1}, Shape::kThreads,
                  static_cast<int>(sizeof(typename Shape::Shared)), stream, args);
  };
  switch (tile_n) {
    case 64: return start.template operator()<64>();
    case 128: return start.template operator()<128>();
    default: return start.template operator()<256>();
  }
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_START_GEMM_CUH_
