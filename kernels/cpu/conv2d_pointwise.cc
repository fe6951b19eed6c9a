// 1x1 convolution in nhwc with stride 1 and no padding: y[pixels, oc] = act(bias + x[pixels, ic] * w), one matrix
// product a group over all pixels of all images. With a stride it is implicit_gemm's: its rows of A lie in two strides.
#include <memory>
#include <string>
#include <utility>

#include "kernels/cpu/conv2d_candidates.h"
#include "kernels/cpu/conv2d_filter.h"
#include "kernels/cpu/matmul.h"

namespace lamina::cpu {
namespace {

class Pointwise final : public Kernel<Conv2d> {
 public:
  Pointwise(const Conv2dDesc& desc, const Context& context, std::shared_ptr<const PackedFilter> filter)
      : desc_(desc), context_(context), filter_(std::move(filter)) {}

  Status Run(const Conv2dTensors& tensors, std::byte*) const override {
    const Conv2dDesc& d = desc_;
    MatMulArgs args;
    args.m = d.n * d.ih * d.iw;
    args.a_stride = StrideOr(d.x_stride, d.ic);
    args.c_stride = StrideOr(d.y_stride, d.oc);
    args.residual_stride = StrideOr(d.residual_stride, d.oc);
    args.residual_kind = d.residual;
    args.activation = d.activation;
    for (int64_t g = 0; g < d.groups; ++g) {
      args.a = static_cast<const float*>(tensors.x) + g * (d.ic / d.groups);
      args.c = static_cast<float*>(tensors.y) + g * (d.oc / d.groups);
      if (d.residual != Residual::kNone) {
        args.residual = static_cast<const float*>(tensors.residual) + g * (d.oc / d.groups);
      }
      MatMul(*context_.pool, filter_->matrix(g), args);
    }
    return {};
  }

  size_t packed_bytes() const override { return filter_->bytes(); }
  Result<std::shared_ptr<const Kernel<Conv2d>>> Reshape(const Conv2dDesc& desc) const override {
    return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<Pointwise>(desc, context_, filter_));
  }

 private:
  Conv2dDesc desc_;
  Context context_;
  std::shared_ptr<const PackedFilter> filter_;
};

Judgement Judge(const Conv2dDesc& d, const Context& context) {
  if (std::string refusal = RefuseType(d); !refusal.empty()) return Refused(refusal);
  if (d.layout != Layout::kNhwc) return Refused("reads pixels in nhwc, got layout=nchw");
  if (d.kh != 1 || d.kw != 1) return Refused("the kernel must be 1x1, " + text::Got({{"kh", d.kh}, {"kw", d.kw}}));
  if (d.stride_h != 1 || d.stride_w != 1)
    return Refused("the strides must be 1, " + text::Got({{"stride_h", d.stride_h}, {"stride_w", d.stride_w}}));
  if (d.pad_top + d.pad_left + d.pad_bottom + d.pad_right != 0) return Refused("the pads must be 0");
  if (FilterShape(d, context.isa).unit_groups > 1) {
    return Refused("several groups fit a vector, got groups=" + std::to_string(d.groups));
  }
  return Accepted(static_cast<double>(d.groups) * PredictMatMul(*context.machine, context.isa,
                                                                static_cast<int>(context.pool->num_threads()),
                                                                d.n * d.ih * d.iw, d.oc / d.groups, d.ic / d.groups));
}

}  // namespace

Candidate<Conv2d> PointwiseConv2d() { return {"pointwise", Judge, PrepareOnFilter<Pointwise>}; }

}  // namespace lamina::cpu
