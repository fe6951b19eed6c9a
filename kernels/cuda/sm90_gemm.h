// The matrix product of core/gemm.h on compute capability 9.0 (sm90/gemm.cuh) as an operator uses it.
#ifndef LAMINA_KERNELS_CUDA_SM90_GEMM_H_
#define LAMINA_KERNELS_CUDA_SM90_GEMM_H_

#include <memory>
#include <string>

#include "kernels/cuda/core/tensor_map.h"
#include "kernels/cuda/core/wgmma_plan.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/kept_map.h"
#include "kernels/cuda/runtime.h"

namespace lamina::cuda {

struct WgmmaGemmArgs {
  TensorMap x, w;
  GemmArgs gemm;
  bool matrix = true;  // x is a TileMap of rows and channels, else an Im2colMap
  // gemm.splits > 1: gemm.epilogue.y is f32 [splits, rows, y_strides.pixel], bias is in the first.
  // gemm.epilogue.quads: rows of y (and residual) are evenly spaced, too, whatever image they are of.
};

class WgmmaProduct {
 public:
  static constexpr int Parts(Math math) { return WeightParts(math); }
  // `args` has the sizes and strides, pointers may be null: "" or why this kernel does not take them.
  static std::string Refuses(const Device& device, Math math, const GemmArgs& args);
  static double Predict(const Device& device, Math math, const GemmArgs& args);
  // `args` has the weights; `desc` begins the sentence of a refusal.
  static Result<std::shared_ptr<const WgmmaProduct>> Make(const std::string& desc, const Device* device, Math math,
                                                          const GemmArgs& args);
  // Enqueues the product; `args` has the pointers too, `scratch` is scratch_bytes() on the device. An x off TMA's
  // alignment takes the portable kernel.
  Error Launch(const GemmArgs& args, std::byte* scratch, void* stream) const;
  size_t scratch_bytes() const { return scratch_bytes_; }

 private:
  WgmmaProduct() = default;
  Error Start(const WgmmaGemmArgs& args, void* stream) const;

  const Device* device_ = nullptr;
  Math math_ = Math::kBf16;
  WgmmaTile tile_;
  int splits_ = 1;
  size_t scratch_bytes_ = 0;  // of the parts' sums
  TensorMap w_;
  mutable KeptMap x_;
};

// Of gemm_wgmma_*.cu.
template <Math kMath>
Error StartWgmmaGemm(const WgmmaGemmArgs& args, WgmmaTile tile, int blocks, void* stream);

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_GEMM_H_
