// separable_conv2d on CUDA.
//   unfused      step by step, through nhwc images in the operator's dtype in device memory; every order and shape
//   fused_dw_pw  depthwise and project in one kernel (core/fused_dw_pw.h)
// each with the products that f32 has: fused multiply-adds, 3 x TF32 and TF32; and with Hopper's.
#include <algorithm>
#include <utility>

#include "kernels/cuda/depthwise.h"
#include "kernels/cuda/fused_dw_pw.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_operator.h"
#include "kernels/cuda/sm90_depthwise.h"
#include "kernels/cuda/sm90_fused_dw_pw.h"
#include "kernels/cuda/workspace.h"
#include "kernels/operators/backends.h"

namespace lamina::cuda {
namespace {

using Desc = SeparableConv2dDesc;
using Tensors = SeparableConv2dTensors;
using Prepared = Result<std::shared_ptr<const Kernel<SeparableConv2d>>>;

struct Weights {
  std::shared_ptr<const GemmWeights> expand, project;  // null where the order has no such step
  std::shared_ptr<const DepthwiseWeights> depthwise;
  size_t bytes() const {
    return depthwise->bytes() + (expand ? expand->bytes() : 0) + (project ? project->bytes() : 0);
  }
};

// `parts`: of the products' weights (gemm.h).
Result<Weights> Pack(const Desc& d, Math math, int parts, const SeparableConv2dWeights& w) {
  Weights packed;
  const auto pointwise = [&](const void* weights, const void* bias, int64_t n, int64_t channels) {
    return GemmWeights::Pack(ToString(d), math,
                             {.w = weights,
                              .bias = bias,
                              .n = static_cast<int>(n),
                              .channels = static_cast<int>(channels),
                              .n_stride = channels},
                             parts);
  };
  const int64_t in = d.depthwise_in(), out = d.depthwise_out();
  if (d.has_expand()) {
    auto expand = pointwise(w.expand_w, d.expand_bias ? w.expand_bias : nullptr, in, d.ic);
    if (!expand.ok()) return expand.status();
    packed.expand = *expand;
  }
  auto depthwise = DepthwiseWeights::Pack(ToString(d), d.dtype, w.depthwise_w,
                                          d.depthwise_bias ? w.depthwise_bias : nullptr, out, d.kh * d.kw);
  if (!depthwise.ok()) return depthwise.status();
  packed.depthwise = *depthwise;
  if (d.has_project()) {
    auto project = pointwise(w.project_w, d.project_bias ? w.project_bias : nullptr, d.oc, out);
    if (!project.ok()) return project.status();
    packed.project = *project;
  }
  return packed;
}

// The steps of a descriptor, and where what lies between them begins in the workspace.
struct Steps {
  explicit Steps(const Desc& d) {
    const int64_t in = d.depthwise_in(), out = d.depthwise_out(), ih = d.ih, iw = d.iw, oh = d.oh(), ow = d.ow();
    const RowStrides x = StridesOf(d.layout, d.ic, ih * iw, d.x_stride),
                     y = StridesOf(d.layout, d.oc, oh * ow, d.y_stride);
    const RowStrides e = d.has_expand() ? Between(d, ih * iw, in) : x;
    const RowStrides o = d.has_project() ? Between(d, oh * ow, out) : y;
    if (d.has_expand()) {
      expand = RowsProduct(d.n, ih * iw, d.ic, in, x, e);
      expand.epilogue.activation = d.expand_activation;
      bytes += Bytes(d, e);
    }
    depthwise = DepthwiseArgsOf(d, in, out);
    DescribeInput(depthwise, e, iw);
    depthwise.epilogue.activation = d.depthwise_activation;
    depthwise.epilogue.y_strides = o;
    depthwise_out = bytes;
    if (d.has_project()) {
      project = RowsProduct(d.n, oh * ow, out, d.oc, o, y);
      project.epilogue.activation = d.project_activation;
      bytes += Bytes(d, o);
    }
    Epilogue& last = d.has_project() ? project.epilogue : depthwise.epilogue;
    last.residual_kind = d.residual;
    last.residual_strides = StridesOf(d.layout, d.oc, oh * ow, d.residual_stride);
  }
  void Describe(const Weights& w) {
    if (w.expand) w.expand->Describe(expand);
    w.depthwise->Describe(depthwise);
    if (w.project) w.project->Describe(project);
  }

  GemmArgs expand, project;
  DepthwiseArgs depthwise;
  int64_t depthwise_out = 0, bytes = 0;

 private:
  // Pixels of whole 16-byte chunks.
  static RowStrides Between(const Desc& d, int64_t pixels, int64_t channels) {
    return StridesOf(Layout::kNhwc, channels, pixels, RoundUp(channels, 16 / static_cast<int64_t>(SizeOf(d.dtype))));
  }
  static int64_t Bytes(const Desc& d, const RowStrides& image) {
    return RoundUp(d.n * image.image * static_cast<int64_t>(SizeOf(d.dtype)), 256);
  }
};

// "" or why neither way serves. Steps may be made of what is not refused.
std::string Refuses(const Desc& d) {
  if (std::string why = RefusesDepthwise(d, d.depthwise_out()); !why.empty()) return why;
  if (d.has_expand()) {
    if (std::string why = RefusesGemm(d.n * d.ih * d.iw, d.depthwise_in(), d.ic, 1); !why.empty()) return why;
  }
  return d.has_project() ? RefusesGemm(d.n * d.oh() * d.ow(), d.oc, d.depthwise_out(), 1) : "";
}

// Product: the kernel of the pointwise steps (gemm_operator.h, sm90_gemm.h).
template <class Product>
class Unfused final : public Kernel<SeparableConv2d> {
 public:
  static constexpr int Parts(Math math) { return Product::Parts(math); }
  static Prepared Make(const Desc& d, Math math, const Device* device, void* stream, const Weights& weights,
                       const DeviceWorkspace& known = nullptr) {
    auto made = std::make_shared<Unfused>(d, math, device, stream, weights);
    Status status;
    const auto make = [&](const GemmArgs& args, std::shared_ptr<const Product>& product) {
      auto result = Product::Make(ToString(d), device, math, args);
      if (result.ok()) {
        product = *result;
      } else {
        status = result.status();
      }
    };
    if (weights.expand) make(made->steps_.expand, made->expand_);
    if (weights.project && status.ok()) make(made->steps_.project, made->project_);
    if (!status.ok()) return status;
    auto own = WorkspaceOf(ToString(d), made->scratch_bytes(), known);
    if (!own.ok()) return own.status();
    made->own_ = *own;
    return std::shared_ptr<const Kernel<SeparableConv2d>>(made);
  }
  Unfused(const Desc& d, Math math, const Device* device, void* stream, const Weights& weights)
      : desc_(d),
        math_(math),
        device_(device),
        stream_(stream),
        weights_(weights),
        steps_(d),
        depthwise_(device, d.dtype, steps_.depthwise) {
    steps_.Describe(weights_);
  }

  Status Run(const Tensors& t, std::byte* scratch) const override {
    if (Status s = ValidatePointers(desc_, {{"x", t.x}, {"y", t.y}, {"residual", t.residual}, {"scratch", scratch}});
        !s.ok()) {
      return s;
    }
    std::byte* const memory = MemoryOf(scratch, own_);
    GemmArgs expand = steps_.expand, project = steps_.project;
    DepthwiseArgs depthwise = steps_.depthwise;
    expand.x = t.x;
    expand.epilogue.y = memory;
    depthwise.x = expand_ ? memory : t.x;
    depthwise.epilogue.y = project_ ? memory + steps_.depthwise_out : t.y;
    project.x = depthwise.epilogue.y;
    project.epilogue.y = t.y;
    depthwise.epilogue.residual = project.epilogue.residual = t.residual;
    Error error;
    if (expand_) error = expand_->Launch(expand, memory + steps_.bytes, stream_);
    if (error.ok()) error = depthwise_.Launch(depthwise, stream_);
    if (error.ok() && project_) error = project_->Launch(project, memory + steps_.bytes, stream_);
    return error.ok() ? Status() : DeviceStatus(ToString(desc_), "starting a kernel", error);
  }
  // What lies between the steps, then what either product needs: they run one after the other.
  size_t scratch_bytes() const override {
    const size_t expand = expand_ ? expand_->scratch_bytes() : 0, project = project_ ? project_->scratch_bytes() : 0;
    return static_cast<size_t>(steps_.bytes) + std::max(expand, project);
  }
  size_t packed_bytes() const override { return weights_.bytes(); }
  Prepared Reshape(const Desc& d) const override { return Make(d, math_, device_, stream_, weights_, own_); }

  static Judgement Judge(const Desc& d, Math math, const Device& device) {
    if (d.fusion == Fusion::kAlways) return Refused("fusion=always: this goes step by step");
    const Steps steps(d);
    double ns = FastestDepthwise::Predict(device, d.dtype, steps.depthwise);
    std::string why;
    const auto pointwise = [&](const GemmArgs& a) {
      if (why.empty()) why = Product::Refuses(device, math, a);
      ns += Product::Predict(device, math, a);
    };
    if (d.has_expand()) pointwise(steps.expand);
    if (d.has_project()) pointwise(steps.project);
    return why.empty() ? Accepted(ns) : Refused(std::move(why));
  }

 private:
  Desc desc_;
  Math math_;
  const Device* device_;
  void* stream_;
  Weights weights_;
  Steps steps_;
  FastestDepthwise depthwise_;
  std::shared_ptr<const Product> expand_, project_;  // null where the order has no such step
  DeviceWorkspace own_;                              // of callers that bring no scratch
};

// Fused: the kernel of both steps (fused_dw_pw.h, sm90_fused_dw_pw.h).
template <class Fused>
class FusedDwPw final : public Kernel<SeparableConv2d> {
 public:
  static constexpr int Parts(Math) { return 1; }
  static Prepared Make(const Desc& d, Math math, const Device* device, void* stream, const Weights& weights) {
    Steps steps(d);
    steps.Describe(weights);
    const FusedDwPwArgs args{steps.depthwise, steps.project};
    auto fused = Fused::Make(ToString(d), device, math, args);
    if (!fused.ok()) return fused.status();
    return std::shared_ptr<const Kernel<SeparableConv2d>>(
        std::make_shared<FusedDwPw>(d, math, device, stream, weights, args, *fused));
  }
  FusedDwPw(const Desc& d, Math math, const Device* device, void* stream, const Weights& weights,
            const FusedDwPwArgs& args, std::shared_ptr<const Fused> fused)
      : desc_(d),
        math_(math),
        device_(device),
        stream_(stream),
        weights_(weights),
        args_(args),
        fused_(std::move(fused)) {}

  Status Run(const Tensors& t, std::byte*) const override {
    if (Status s = ValidatePointers(desc_, {{"x", t.x}, {"y", t.y}, {"residual", t.residual}}); !s.ok()) return s;
    FusedDwPwArgs args = args_;
    args.depthwise.x = t.x;
    args.project.epilogue.y = t.y;
    args.project.epilogue.residual = t.residual;
    const Error error = fused_->Launch(args, stream_);
    return error.ok() ? Status() : DeviceStatus(ToString(desc_), "starting the kernel", error);
  }
  size_t packed_bytes() const override { return weights_.bytes(); }
  Prepared Reshape(const Desc& d) const override { return Make(d, math_, device_, stream_, weights_); }

  static Judgement Judge(const Desc& d, Math math, const Device& device) {
    if (d.order != SeparableOrder::kDwPw) return Refused("only order=dw_pw is fused");
    if (d.fusion == Fusion::kNever) return Refused("fusion=never: this is one kernel");
    const Steps steps(d);
    const FusedDwPwArgs args{steps.depthwise, steps.project};
    if (std::string why = Fused::Refuses(device, math, args); !why.empty()) return Refused(std::move(why));
    return Accepted(Fused::Predict(device, math, args));
  }

 private:
  Desc desc_;
  Math math_;
  const Device* device_;
  void* stream_;
  Weights weights_;
  FusedDwPwArgs args_;
  std::shared_ptr<const Fused> fused_;
};

template <class Way, Math kMath>
Judgement JudgeWay(const Desc& d, const Context& context) {
  const Result<const Device*> device = DeviceFor(context.stream);
  if (!device.ok()) return Refused(device.status().message());
  if (kMath != Math::kF32 && d.dtype != DType::kF32) return Refused("computes in f32, got another dtype");
  if (std::string why = Refuses(d); !why.empty()) return Refused(std::move(why));
  return Way::Judge(d, MathOf(kMath, d.dtype), **device);
}

template <class Way, Math kMath>
Prepared PrepareWay(const Desc& d, const SeparableConv2dWeights& w, const Context& context) {
  const Result<const Device*> device = DeviceFor(context.stream);
  if (!device.ok()) return device.status();
  const Math math = MathOf(kMath, d.dtype);
  auto weights = Pack(d, math, Way::Parts(math), w);
  if (!weights.ok()) return weights.status();
  return Way::Make(d, math, *device, context.stream, *weights);
}

template <class Way, Math kMath>
constexpr Candidate<SeparableConv2d> WayWith(std::string_view name, Accuracy accuracy = Accuracy::kStrict) {
  return {name, JudgeWay<Way, kMath>, PrepareWay<Way, kMath>, accuracy};
}

constexpr Candidate<SeparableConv2d> kCandidates[] = {
    WayWith<FusedDwPw<WgmmaFusedDwPw>, Math::kF32>("fused_dw_pw_wgmma"),
    WayWith<FusedDwPw<WgmmaFusedDwPw>, Math::kTf32>("fused_dw_pw_wgmma_tf32", Accuracy::kReduced),
    WayWith<FusedDwPw<PortableFusedDwPw>, Math::kF32>("fused_dw_pw"),
    WayWith<FusedDwPw<PortableFusedDwPw>, Math::kTf32x3>("fused_dw_pw_tf32x3", Accuracy::kReduced),
    WayWith<FusedDwPw<PortableFusedDwPw>, Math::kTf32>("fused_dw_pw_tf32", Accuracy::kReduced),
    WayWith<Unfused<WgmmaProduct>, Math::kF32>("unfused_wgmma"),
    WayWith<Unfused<WgmmaProduct>, Math::kTf32x3>("unfused_wgmma_tf32x3", Accuracy::kReduced),
    WayWith<Unfused<WgmmaProduct>, Math::kTf32>("unfused_wgmma_tf32", Accuracy::kReduced),
    WayWith<Unfused<PortableProduct>, Math::kF32>("unfused"),
    WayWith<Unfused<PortableProduct>, Math::kTf32x3>("unfused_tf32x3", Accuracy::kReduced),
    WayWith<Unfused<PortableProduct>, Math::kTf32>("unfused_tf32", Accuracy::kReduced)};

}  // namespace

CandidateList<SeparableConv2d> SeparableConv2dCandidates() { return kCandidates; }

}  // namespace lamina::cuda
