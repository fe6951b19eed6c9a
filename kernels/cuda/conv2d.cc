// conv2d on CUDA: the matrix product whose rows are windows of the image, and what is no matrix product.
#include <iterator>
#include <vector>

#include "kernels/cuda/conv2d_candidates.h"
#include "kernels/cuda/gemm_operator.h"
#include "kernels/cuda/image.h"
#include "kernels/operators/backends.h"

namespace lamina::cuda {

template <>
struct GemmTraits<Conv2d> {
  static GemmSizes Sizes(const Conv2dDesc& d) {
    return {d.n * d.oh() * d.ow(), d.oc / d.groups, d.kh * d.kw * (d.ic / d.groups), d.groups};
  }

  static GemmArgs Shape(const Conv2dDesc& d) {
    const int64_t pixels = d.oh() * d.ow();
    GemmArgs a;
    DescribeInput(a, StridesOf(d.layout, d.ic, d.ih * d.iw, d.x_stride), d.iw);
    a.ih = static_cast<int>(d.ih);
    a.iw = static_cast<int>(d.iw);
    a.kh = static_cast<int>(d.kh);
    a.kw = static_cast<int>(d.kw);
    a.channels = static_cast<int>(d.ic / d.groups);
    a.k = a.kh * a.kw * a.channels;
    a.n = static_cast<int>(d.oc / d.groups);
    a.groups = static_cast<int>(d.groups);
    a.stride_h = static_cast<int>(d.stride_h);
    a.stride_w = static_cast<int>(d.stride_w);
    a.dilation_h = static_cast<int>(d.dilation_h);
    a.dilation_w = static_cast<int>(d.dilation_w);
    a.pad_top = static_cast<int>(d.pad_top);
    a.pad_left = static_cast<int>(d.pad_left);
    a.rows = static_cast<int>(d.n * pixels);
    a.pixels = Divider::Of(static_cast<uint32_t>(pixels));
    a.ow = Divider::Of(static_cast<uint32_t>(d.ow()));
    a.epilogue.activation = d.activation;
    a.epilogue.residual_kind = d.residual;
    a.epilogue.y_strides = StridesOf(d.layout, d.oc, pixels, d.y_stride);
    a.epilogue.residual_strides = StridesOf(d.layout, d.oc, pixels, d.residual_stride);
    return a;
  }

  static HostWeights Host(const Conv2dDesc& d, const Conv2dWeights& w) {
    const int64_t channels = d.ic / d.groups, taps = d.kh * d.kw;
    const bool ohwi = d.weight_layout == WeightLayout::kOhwi;
    return {.w = w.w,
            .bias = d.bias ? w.bias : nullptr,
            .groups = static_cast<int>(d.groups),
            .n = static_cast<int>(d.oc / d.groups),
            .kh = static_cast<int>(d.kh),
            .kw = static_cast<int>(d.kw),
            .channels = static_cast<int>(channels),
            .group_stride = d.oc / d.groups * taps * channels,
            .n_stride = taps * channels,
            .h_stride = d.kw * (ohwi ? channels : 1),
            .w_stride = ohwi ? channels : 1,
            .channel_stride = ohwi ? 1 : taps};
  }
};

CandidateList<Conv2d> Conv2dCandidates() {
  static const auto all = [] {
    std::vector<Candidate<Conv2d>> candidates(std::begin(kGemmCandidates<Conv2d>), std::end(kGemmCandidates<Conv2d>));
    candidates.push_back(TmaDepthwiseConv2d());
    candidates.push_back(DepthwiseConv2d());
    return candidates;
  }();
  return all;
}

}  // namespace lamina::cuda
