// separable_conv2d in nchw as the two conv2d that it stands for, image by image: depthwise_planes, then
// planes_gemm, neither of which transposes anything. The image between them is whole and lies in scratch.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cpu/conv2d_candidates.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/separable_conv2d_steps.h"

namespace lamina::cpu {
namespace {

// The steps for one image.
Conv2dDesc DepthwiseOf(const SeparableConv2dDesc& d) {
  Conv2dDesc c{.ih = d.ih, .iw = d.iw, .ic = d.ic, .oc = d.depthwise_out(), .kh = d.kh, .kw = d.kw};
  c.stride_h = d.stride_h, c.stride_w = d.stride_w, c.dilation_h = d.dilation_h, c.dilation_w = d.dilation_w;
  c.pad_top = d.pad_top, c.pad_left = d.pad_left, c.pad_bottom = d.pad_bottom, c.pad_right = d.pad_right;
  c.groups = d.ic, c.bias = d.depthwise_bias, c.activation = d.depthwise_activation;
  c.layout = d.layout, c.dtype = d.dtype;
  return c;
}

Conv2dDesc PointwiseOf(const SeparableConv2dDesc& d) {
  Conv2dDesc c{.ih = d.oh(), .iw = d.ow(), .ic = d.depthwise_out(), .oc = d.oc};
  c.bias = d.project_bias, c.activation = d.project_activation, c.residual = d.residual;
  c.layout = d.layout, c.dtype = d.dtype;
  return c;
}

class Planes final : public Kernel<SeparableConv2d> {
 public:
  using Step = std::shared_ptr<const Kernel<Conv2d>>;

  Planes(const SeparableConv2dDesc& desc, Step depthwise, Step pointwise)
      : desc_(desc),
        depthwise_(std::move(depthwise)),
        pointwise_(std::move(pointwise)),
        between_bytes_(LineBytes(desc.depthwise_out() * desc.oh() * desc.ow())) {}

  Status Run(const SeparableConv2dTensors& t, std::byte* scratch) const override {
    const SeparableConv2dDesc& d = desc_;
    const int64_t pixels = d.oh() * d.ow();
    std::byte* const rest = scratch + between_bytes_;
    for (int64_t n = 0; n < d.n; ++n) {
      const float* const x = static_cast<const float*>(t.x) + n * StrideOr(d.x_stride, d.ic * d.ih * d.iw);
      if (Status s = depthwise_->Run({.x = x, .y = scratch}, rest); !s.ok()) return s;
      Conv2dTensors last{.x = scratch, .y = static_cast<float*>(t.y) + n * StrideOr(d.y_stride, d.oc * pixels)};
      if (d.residual != Residual::kNone) {
        last.residual = static_cast<const float*>(t.residual) + n * StrideOr(d.residual_stride, d.oc * pixels);
      }
      if (Status s = pointwise_->Run(last, rest); !s.ok()) return s;
    }
    return {};
  }

  size_t scratch_bytes() const override {
    return between_bytes_ + std::max(depthwise_->scratch_bytes(), pointwise_->scratch_bytes());
  }
  size_t packed_bytes() const override { return depthwise_->packed_bytes() + pointwise_->packed_bytes(); }
  Result<std::shared_ptr<const Kernel<SeparableConv2d>>> Reshape(const SeparableConv2dDesc& desc) const override {
    auto depthwise = depthwise_->Reshape(DepthwiseOf(desc));
    if (!depthwise.ok()) return depthwise.status();
    auto pointwise = pointwise_->Reshape(PointwiseOf(desc));
    if (!pointwise.ok()) return pointwise.status();
    return std::shared_ptr<const Kernel<SeparableConv2d>>(
        std::make_shared<Planes>(desc, std::move(*depthwise), std::move(*pointwise)));
  }

 private:
  SeparableConv2dDesc desc_;
  Step depthwise_, pointwise_;
  size_t between_bytes_;
};

Judgement Judge(const SeparableConv2dDesc& d, const Context& context) {
  if (std::string extent = RefuseExtent(DepthwiseShapeOf(d)); !extent.empty()) return Refused(std::move(extent));
  if (d.layout != Layout::kNchw) return Refused("reads planes in nchw, got layout=nhwc");
  if (d.order != SeparableOrder::kDwPw) return Refused("the order must be dw_pw");
  if (d.fusion == Fusion::kAlways) return Refused("fusion=always: this goes step by step");
  const Judgement depthwise = DepthwisePlanesConv2d().judge(DepthwiseOf(d), context);
  if (!depthwise.refusal.empty()) return depthwise;
  const Judgement pointwise = PlanesGemmConv2d().judge(PointwiseOf(d), context);
  if (!pointwise.refusal.empty()) return pointwise;
  // As between the steps of `unfused`.
  const int64_t between = d.depthwise_out() * d.oh() * d.ow();
  const double moved = 0.2 * 2 * 4 * static_cast<double>(between) /
                       context.machine->Gbps(4 * between, static_cast<int>(context.pool->num_threads()));
  return Accepted(static_cast<double>(d.n) * (depthwise.predicted_ns + pointwise.predicted_ns + moved));
}

Result<std::shared_ptr<const Kernel<SeparableConv2d>>> Prepare(const SeparableConv2dDesc& d,
                                                               const SeparableConv2dWeights& w,
                                                               const Context& context) {
  auto depthwise =
      DepthwisePlanesConv2d().prepare(DepthwiseOf(d), {.w = w.depthwise_w, .bias = w.depthwise_bias}, context);
  if (!depthwise.ok()) return depthwise.status();
  auto pointwise = PlanesGemmConv2d().prepare(PointwiseOf(d), {.w = w.project_w, .bias = w.project_bias}, context);
  if (!pointwise.ok()) return pointwise.status();
  return std::shared_ptr<const Kernel<SeparableConv2d>>(
      std::make_shared<Planes>(d, std::move(*depthwise), std::move(*pointwise)));
}

}  // namespace

Candidate<SeparableConv2d> PlanesSeparableConv2d() { return {"planes", &Judge, &Prepare}; }

}  // namespace lamina::cpu
