// The matrix product of core/gemm.h as other files use it: weights packed once, then one launch a call.
#ifndef LAMINA_KERNELS_CUDA_GEMM_H_
#define LAMINA_KERNELS_CUDA_GEMM_H_

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/core/gemm.h"
#include "kernels/cuda/runtime.h"

namespace lamina::cuda {

// Weights w[n][kh][kw][channel] of each group, where they lie on the host, in elements.
struct HostWeights {
  const void* w = nullptr;
  const void* bias = nullptr;  // [groups * n] or null
  int groups = 1, n = 0, kh = 1, kw = 1, channels = 0;
  int64_t group_stride = 0, n_stride = 0, h_stride = 0, w_stride = 0, channel_stride = 1;
};

// On the device, as GemmArgs wants them.
class GemmWeights {
 public:
  // `desc` begins the sentence of a refusal. `parts`: 2 puts the rests that TF32 leaves off (Tf32Rest) behind the
  // weights.
  static Result<std::shared_ptr<const GemmWeights>> Pack(const std::string& desc, Math math, const HostWeights& host,
                                                         int parts = 1);
  // Fills in where the weights lie: w, bias and their padding. Whoever made args knows the sizes.
  void Describe(GemmArgs& args) const;
  Math math() const { return math_; }
  int n() const { return args_.n; }  // of a group
  int channels() const { return args_.channels; }
  size_t bytes() const { return w_->bytes() + bias_->bytes(); }

 private:
  GemmWeights() = default;
  Math math_ = Math::kF32;
  GemmArgs args_;
  std::shared_ptr<const DeviceMemory> w_, bias_;
};

// "" or why no kernel takes these sizes.
std::string RefusesGemm(int64_t rows, int64_t n, int64_t k, int64_t groups);

// Of complete sizes; pointers and strides may be missing.
double PredictGemm(const Device& device, Math math, const GemmArgs& args);

// Device memory that lets LaunchGemm share out k over blocks; 0 where tiles alone keep the device busy.
size_t PartialBytes(const Device& device, Math math, const GemmArgs& args);

// Enqueues the product. `args` is complete but for `quads` and `splits`, which follow from sizes, strides and pointers.
// `partials`: PartialBytes, at a multiple of 16, or null.
Error LaunchGemm(const Device& device, Math math, GemmArgs args, void* stream, void* partials = nullptr);

// Of gemm_*.cu: tiles of 128 or 64, x in chunks or element by element.
struct GemmVariant {
  int tile = 128;
  bool chunks = true;
};
template <Math kMath>
Error StartGemm(const GemmArgs& args, GemmVariant variant, void* stream);

// Of gemm_reduce.cu: y from the sums of args.splits parts of k, f32 [splits, rows, PartialPitch].
constexpr int64_t PartialPitch(const GemmArgs& a) { return RoundUp(int64_t{a.groups} * a.n, 4); }
Error StartReduce(Math math, const GemmArgs& args, const float* partials, void* stream);

// Of gemv.cu, for up to kGemvRows rows of 1x1 windows and one group. f32 stands for its TF32 forms too.
inline constexpr int kGemvRows = 16;
template <Math kMath>
Error StartGemv(const GemmArgs& args, bool chunks, void* stream);

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_GEMM_H_
