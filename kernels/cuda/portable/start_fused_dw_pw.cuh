// StartFusedDwPw of one kind of products, for the files that instantiate it.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_START_FUSED_DW_PW_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_START_FUSED_DW_PW_CUH_

#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/fused_dw_pw.h"
#include "kernels/cuda/portable/fused_dw_pw.cuh"

namespace lamina::cuda {

template <Math kMath>
Error StartFusedDwPw(const FusedDwPwArgs& args, void* stream) {
  const auto blocks = static_cast<unsigned>(DivUp(args.project.rows, kFusedRows));
  return Launch(FusedDwPw<kMath>, dim3{blocks, 1, 1}, kFusedThreads,
                static_cast<int>(FusedSharedBytes(args.depthwise.channels, kMath)), stream, args);
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_START_FUSED_DW_PW_CUH_
