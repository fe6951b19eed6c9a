// Depthwise, then pointwise convolution in one launch (core/fused_dw_pw.h), as other files use it.
#ifndef LAMINA_KERNELS_CUDA_FUSED_DW_PW_H_
#define LAMINA_KERNELS_CUDA_FUSED_DW_PW_H_

#include <memory>
#include <string>

#include "kernels/cuda/core/fused_dw_pw.h"
#include "kernels/cuda/runtime.h"

namespace lamina::cuda {

// The portable kernel, as WgmmaFusedDwPw (sm90_fused_dw_pw.h) is Hopper's.
class PortableFusedDwPw {
 public:
  // "" or why no block has room for so many channels between the steps.
  static std::string Refuses(const Device& device, Math math, const FusedDwPwArgs& args);
  static double Predict(const Device& device, Math math, const FusedDwPwArgs& args);
  static Result<std::shared_ptr<const PortableFusedDwPw>> Make(const std::string&, const Device*, Math math,
                                                               const FusedDwPwArgs&) {
    return std::make_shared<const PortableFusedDwPw>(math);
  }
  explicit PortableFusedDwPw(Math math) : math_(math) {}
  // Enqueues both steps. `args` is complete but for `chunks` and the epilogue's `quads`, which follow.
  Error Launch(FusedDwPwArgs args, void* stream) const;

 private:
  Math math_;
};

// Of fused_dw_pw_*.cu.
template <Math kMath>
Error StartFusedDwPw(const FusedDwPwArgs& args, void* stream);

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_FUSED_DW_PW_H_
