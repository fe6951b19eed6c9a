// StartFusedWgmma of one kind of products, for the files that instantiate it.
#ifndef LAMINA_KERNELS_CUDA_SM90_START_FUSED_DW_PW_CUH_
#define LAMINA_KERNELS_CUDA_SM90_START_FUSED_DW_PW_CUH_

#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/sm90/fused_dw_pw.cuh"

namespace lamina::cuda {

template <Math kMath>
Error StartFusedWgmma(const FusedWgmmaArgs& args, const FusedWgmmaPlan& plan, int blocks, void* stream) {
  return WithFusedShape(plan.k, plan.stride, plan.tile_n, [&]<class Shape>(Shape) {
    return Launch(FusedWgmmaKernel<kMath, Shape>, dim3{static_cast<unsigned>(blocks), 1, 1}, Shape::kThreads,
                  static_cast<int>(sizeof(typename Shape::Shared)), stream, args);
  });
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_START_FUSED_DW_PW_CUH_
