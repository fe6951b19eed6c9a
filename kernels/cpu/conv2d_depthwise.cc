// conv2d with groups = ic: the depthwise step over whole images.
#include <memory>
#include <utility>

#include "kernels/cpu/conv2d_candidates.h"
#include "kernels/cpu/depthwise.h"

namespace lamina::cpu {
namespace {

DepthwiseShape ShapeOf(const Conv2dDesc& d) { return DepthwiseShapeOf(d, d.ic, d.oc, d.activation, d.residual); }

class DepthwiseConv2dKernel final : public Kernel<Conv2d> {
 public:
  DepthwiseConv2dKernel(const Conv2dDesc& desc, const Context& context, std::shared_ptr<const PackedDepthwise> weights)
      : desc_(desc), context_(context), step_(ShapeOf(desc), desc.layout, desc.layout, context, std::move(weights)) {}

  Status Run(const Conv2dTensors& t, std::byte* scratch) const override {
    const Conv2dDesc& d = desc_;
    step_.RunAll(
        *context_.pool, d.n,
        [&](int64_t n) {
          const int64_t oh = step_.shape().oh, ow = step_.shape().ow;
          return DepthwiseStep::Images{
              ImageOf(static_cast<const float*>(t.x), d.layout, n, d.ih, d.iw, d.ic, d.x_stride),
              ImageOf(static_cast<float*>(t.y), d.layout, n, oh, ow, d.oc, d.y_stride),
              ImageOf(static_cast<const float*>(t.residual), d.layout, n, oh, ow, d.oc, d.residual_stride)};
        },
        scratch);
    return {};
  }
  size_t scratch_bytes() const override { return step_.scratch_bytes() * context_.pool->num_threads(); }
  size_t packed_bytes() const override { return step_.packed_bytes(); }
  Result<std::shared_ptr<const Kernel<Conv2d>>> Reshape(const Conv2dDesc& desc) const override {
    return std::shared_ptr<const Kernel<Conv2d>>(
        std::make_shared<DepthwiseConv2dKernel>(desc, context_, step_.weights()));
  }

 private:
  Conv2dDesc desc_;
  Context context_;
  DepthwiseStep step_;
};

Judgement Judge(const Conv2dDesc& d, const Context& context) {
  if (std::string type = RefuseType(d); !type.empty()) return Refused(std::move(type));
  if (d.groups != d.ic) return Refused("only groups = ic is depthwise");
  if (std::string extent = RefuseExtent(ShapeOf(d)); !extent.empty()) return Refused(std::move(extent));
  return Accepted(PredictDepthwise(ShapeOf(d), d.layout, d.layout, d.n, *context.machine, context.isa,
                                   static_cast<int>(context.pool->num_threads())));
}

Result<std::shared_ptr<const Kernel<Conv2d>>> Prepare(const Conv2dDesc& d, const Conv2dWeights& w,
                                                      const Context& context) {
  // One channel in and kh * kw taps: both weight layouts are [oc, kh, kw].
  auto weights = PackedDepthwise::Pack(context.isa, d.oc, d.kh * d.kw, static_cast<const float*>(w.w),
                                       static_cast<const float*>(w.bias));
  if (!weights.ok()) return weights.status();
  return std::shared_ptr<const Kernel<Conv2d>>(
      std::make_shared<DepthwiseConv2dKernel>(d, context, std::move(*weights)));
}

}  // namespace

Candidate<Conv2d> DepthwiseConv2d() { return {"depthwise_direct", &Judge, &Prepare}; }

}  // namespace lamina::cpu
