// Depthwise, then pointwise convolution in one kernel on compute capability 9.0 (sm90/fused_dw_pw.cuh) as an operator
// uses it.
#ifndef LAMINA_KERNELS_CUDA_SM90_FUSED_DW_PW_H_
#define LAMINA_KERNELS_CUDA_SM90_FUSED_DW_PW_H_

#include <memory>
#include <string>

#include "kernels/cuda/core/fused_schedule.h"
#include "kernels/cuda/core/tensor_map.h"
#include "kernels/cuda/kept_map.h"
#include "kernels/cuda/runtime.h"

namespace lamina::cuda {

struct FusedWgmmaArgs {
  TensorMap x, w;
  FusedDwPwArgs steps;
  FusedTiling tiling;
  Divider columns;  // tiles of the outputs of a pixel
};

// A kernel of the family, and how it divides a problem.
struct FusedWgmmaPlan {
  int k = 3, stride = 1, tile_n = 128;
  FusedTiling tiling;
  PatchSize patch;
};

class WgmmaFusedDwPw {
 public:
  // `args` has the sizes and strides, pointers may be null: "" or why this kernel does not take them.
  static std::string Refuses(const Device& device, Math math, const FusedDwPwArgs& args);
  static double Predict(const Device& device, Math math, const FusedDwPwArgs& args);
  // `args` has the weights; `desc` begins the sentence of a refusal.
  static Result<std::shared_ptr<const WgmmaFusedDwPw>> Make(const std::string& desc, const Device* device, Math math,
                                                            const FusedDwPwArgs& args);
  // Enqueues both steps; `args` has the pointers too. An x off TMA's alignment takes the portable kernel.
  Error Launch(const FusedDwPwArgs& args, void* stream) const;

 private:
  WgmmaFusedDwPw() = default;

  const Device* device_ = nullptr;
  Math math_ = Math::kBf16;
  FusedWgmmaPlan plan_;
  TensorMap w_;
  mutable KeptMap x_;
};

// Of fused_dw_pw_wgmma_*.cu.
template <Math kMath>
Error StartFusedWgmma(const FusedWgmmaArgs& args, const FusedWgmmaPlan& plan, int blocks, void* stream);

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_FUSED_DW_PW_H_
