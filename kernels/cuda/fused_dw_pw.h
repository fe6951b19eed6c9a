// Depthwise, then pointwise convolution in one launch (core/fused_dw_pw.h), as other files use it.
#ifndef LAMINA_KERNELS_CUDA_FUSED_DW_PW_H_
#define LAMINA_KERNELS_CUDA_FUSED_DW_PW_H_

#include <string>

#include "kernels/cuda/core/fused_dw_pw.h"
#include "kernels/cuda/runtime.h"

namespace lamina::cuda {

// "" or why no block has room for so many channels between the steps.
std::string RefusesFusedDwPw(const Device& device, Math math, int64_t channels);

double PredictFusedDwPw(const Device& device, Math math, const FusedDwPwArgs& args);

// Enqueues both steps. `args` is complete but for `chunks` and the epilogue's `quads`, which follow.
Error LaunchFusedDwPw(Math math, FusedDwPwArgs args, void* stream);

// Of fused_dw_pw_*.cu.
template <Math kMath>
Error StartFusedDwPw(const FusedDwPwArgs& args, void* stream);

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_FUSED_DW_PW_H_
