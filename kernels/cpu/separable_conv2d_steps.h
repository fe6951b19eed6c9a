// The steps of separable_conv2d, each over some rows of one image: what its candidates are put together from.
#ifndef LAMINA_KERNELS_CPU_SEPARABLE_CONV2D_STEPS_H_
#define LAMINA_KERNELS_CPU_SEPARABLE_CONV2D_STEPS_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/cpu/depthwise.h"
#include "kernels/cpu/image_view.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/transpose.h"
#include "kernels/operators/candidate.h"
#include "lamina/separable_conv2d.h"

namespace lamina::cpu {

// The weights of the steps that the order has.
struct PackedSeparable {
  PackedMatrix expand, project;
  std::shared_ptr<const PackedDepthwise> depthwise;
  size_t bytes() const { return expand.bytes() + project.bytes() + depthwise->bytes(); }
};
Result<std::shared_ptr<const PackedSeparable>> PackSeparable(const SeparableConv2dDesc& desc,
                                                             const SeparableConv2dWeights& weights, Isa isa);

DepthwiseShape DepthwiseShapeOf(const SeparableConv2dDesc& desc);

// Floats from pixel to pixel of an nhwc image in scratch: whole cache lines, and never a multiple of 512 bytes, which
// would crowd the pixels of one channel into a few sets of L1.
int64_t ScratchChannels(int64_t channels);

// Rows of an nhwc image in scratch, `rows` slots from row first_row on.
ImageView<float> ScratchImage(float* data, int64_t rows, int64_t w, int64_t channels, int64_t first_row = 0);
size_t ScratchImageFloats(int64_t rows, int64_t w, int64_t channels);

class SeparableSteps {
 public:
  SeparableSteps(const SeparableConv2dDesc& desc, const Context& context,
                 std::shared_ptr<const PackedSeparable> weights);

  const SeparableConv2dDesc& desc() const { return desc_; }
  const Context& context() const { return context_; }
  const DepthwiseStep& depthwise() const { return depthwise_; }
  const std::shared_ptr<const PackedSeparable>& weights() const { return weights_; }
  bool nhwc() const { return desc_.layout == Layout::kNhwc; }

  // The tensors' n-th images. In nhwc the images that follow are further rows of it.
  ImageView<const float> X(const SeparableConv2dTensors& t, int64_t n) const;
  ImageView<const float> ResidualOf(const SeparableConv2dTensors& t, int64_t n) const;
  ImageView<float> Y(const SeparableConv2dTensors& t, int64_t n) const;

  // Rows [begin, end) of e out of those of x. `pixels`: ExpandFloats(end - begin) floats, unused in nhwc.
  void Expand(const ImageView<const float>& x, int64_t begin, int64_t end, const ImageView<float>& e,
              float* pixels) const;
  size_t ExpandFloats(int64_t rows) const;
  // Rows [begin, end) of y out of those of d, with the residual's. `pixels`: ProjectFloats(end - begin) floats.
  void Project(const ImageView<const float>& d, int64_t begin, int64_t end, const ImageView<float>& y,
               const ImageView<const float>& residual, float* pixels) const;
  size_t ProjectFloats(int64_t rows) const;

 private:
  SeparableConv2dDesc desc_;
  Context context_;
  std::shared_ptr<const PackedSeparable> weights_;
  DepthwiseStep depthwise_;
  const TransposeKernel* transpose_;
};

// Predicted nanoseconds: of the depthwise step alone, for part of the problem's images; of nchw's transposes, of all.
double PredictDepthwiseStep(const SeparableConv2dDesc& desc, const DepthwiseShape& part, int64_t n,
                            const Context& context, int threads);
double PredictTransposes(const SeparableConv2dDesc& desc, const Context& context);

Candidate<SeparableConv2d> FusedRowsSeparableConv2d();
Candidate<SeparableConv2d> PlanesSeparableConv2d();
Candidate<SeparableConv2d> UnfusedSeparableConv2d();

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_SEPARABLE_CONV2D_STEPS_H_
