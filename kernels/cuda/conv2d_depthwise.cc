// conv2d with groups = ic on CUDA: the depthwise step over whole images.
#include <utility>

#include "kernels/cuda/conv2d_candidates.h"
#include "kernels/cuda/depthwise.h"
#include "kernels/cuda/sm90_depthwise.h"

namespace lamina::cuda {
namespace {

DepthwiseArgs ArgsOf(const Conv2dDesc& d) {
  DepthwiseArgs a = DepthwiseArgsOf(d, d.ic, d.oc);
  const int64_t pixels = d.oh() * d.ow();
  DescribeInput(a, StridesOf(d.layout, d.ic, d.ih * d.iw, d.x_stride), d.iw);
  a.epilogue.activation = d.activation;
  a.epilogue.residual_kind = d.residual;
  a.epilogue.y_strides = StridesOf(d.layout, d.oc, pixels, d.y_stride);
  a.epilogue.residual_strides = StridesOf(d.layout, d.oc, pixels, d.residual_stride);
  return a;
}

// Step: the kernel of the step, PortableDepthwise or TmaDepthwise.
template <class Step>
class DepthwiseConv2dKernel final : public Kernel<Conv2d> {
 public:
  DepthwiseConv2dKernel(const Conv2dDesc& desc, const Device* device, void* stream,
                        std::shared_ptr<const DepthwiseWeights> weights)
      : desc_(desc),
        device_(device),
        stream_(stream),
        weights_(std::move(weights)),
        args_(ArgsOf(desc)),
        step_(device, desc.dtype, args_) {
    weights_->Describe(args_);
  }

  Status Run(const Conv2dTensors& t, std::byte*) const override {
    if (Status s = ValidatePointers(desc_, {{"x", t.x}, {"y", t.y}, {"residual", t.residual}}); !s.ok()) return s;
    DepthwiseArgs args = args_;
    args.x = t.x;
    args.epilogue.y = t.y;
    args.epilogue.residual = t.residual;
    const Error error = step_.Launch(args, stream_);
    return error.ok() ? Status() : DeviceStatus(ToString(desc_), "starting the kernel", error);
  }
  size_t packed_bytes() const override { return weights_->bytes(); }
  Result<std::shared_ptr<const Kernel<Conv2d>>> Reshape(const Conv2dDesc& desc) const override {
    return std::shared_ptr<const Kernel<Conv2d>>(
        std::make_shared<DepthwiseConv2dKernel>(desc, device_, stream_, weights_));
  }

 private:
  Conv2dDesc desc_;
  const Device* device_;
  void* stream_;
  std::shared_ptr<const DepthwiseWeights> weights_;
  DepthwiseArgs args_;
  Step step_;
};

template <class Step>
Judgement Judge(const Conv2dDesc& d, const Context& context) {
  const Result<const Device*> device = DeviceFor(context.stream);
  if (!device.ok()) return Refused(device.status().message());
  if (d.groups != d.ic) return Refused("only groups = ic is depthwise");
  if (std::string why = RefusesDepthwise(d, d.oc); !why.empty()) return Refused(std::move(why));
  const DepthwiseArgs args = ArgsOf(d);
  if (std::string why = Step::Refuses(**device, d.dtype, args); !why.empty()) return Refused(std::move(why));
  return Accepted(Step::Predict(**device, d.dtype, args));
}

template <class Step>
Result<std::shared_ptr<const Kernel<Conv2d>>> Prepare(const Conv2dDesc& d, const Conv2dWeights& w,
                                                      const Context& context) {
  const Result<const Device*> device = DeviceFor(context.stream);
  if (!device.ok()) return device.status();
  // One channel in and kh * kw taps: both weight layouts are [oc, kh, kw].
  auto weights = DepthwiseWeights::Pack(ToString(d), d.dtype, w.w, d.bias ? w.bias : nullptr, d.oc, d.kh * d.kw);
  if (!weights.ok()) return weights.status();
  return std::shared_ptr<const Kernel<Conv2d>>(
      std::make_shared<DepthwiseConv2dKernel<Step>>(d, *device, context.stream, std::move(*weights)));
}

}  // namespace

Candidate<Conv2d> DepthwiseConv2d() { return {"depthwise", &Judge<PortableDepthwise>, &Prepare<PortableDepthwise>}; }
Candidate<Conv2d> TmaDepthwiseConv2d() { return {"depthwise_tma", &Judge<TmaDepthwise>, &Prepare<TmaDepthwise>}; }

}  // namespace lamina::cuda
