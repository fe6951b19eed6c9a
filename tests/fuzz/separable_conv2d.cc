#include "harness/separable_conv2d.h"

#include "tests/fuzz/fuzz.h"

namespace lamina::fuzz {

template <>
struct Draw<SeparableConv2d> {
  static Result<SeparableConv2dDesc> Parse(std::string_view text) { return ParseSeparableConv2d(text); }

  static void RunTimeSizes(SeparableConv2dDesc& d, Rng& r) {
    d.n = r.Chance(5) ? 0 : r.Pick({1, 1, 1, 2, 3});
    d.ih = r.Size(32);
    d.iw = r.Size(32);
    const bool nhwc = d.layout == Layout::kNhwc;
    d.x_stride = r.Stride(nhwc ? d.ic : d.ic * d.ih * d.iw);
    d.y_stride = r.Stride(nhwc ? d.oc : d.oc * std::max<int64_t>(0, d.oh()) * std::max<int64_t>(0, d.ow()));
    d.residual_stride = d.residual == Residual::kNone ? 0 : d.y_stride;
  }

  static SeparableConv2dDesc Any(Rng& r) {
    SeparableConv2dDesc d;
    d.order = r.Pick({SeparableOrder::kDwPw, SeparableOrder::kPwDw, SeparableOrder::kPwDwPw});
    d.depth_multiplier = r.Pick({1, 1, 1, 2, 3});
    d.ic = r.Size(100);
    d.oc = r.Size(100) * (d.order == SeparableOrder::kPwDw ? d.depth_multiplier : 1);
    if (d.order == SeparableOrder::kPwDwPw) d.hidden = r.Size(130);
    d.kh = r.Pick({1, 2, 3, 3, 3, 3, 5, 7});
    d.kw = r.Chance(75) ? d.kh : r.Between(1, 9);
    d.stride_h = r.Pick({1, 1, 1, 2, 2, 3});
    d.stride_w = r.Chance(75) ? d.stride_h : r.Between(1, 4);
    d.dilation_h = r.Pick({1, 1, 1, 2, 3});
    d.dilation_w = r.Chance(75) ? d.dilation_h : r.Between(1, 4);
    d.fusion = r.Pick({Fusion::kAuto, Fusion::kAuto, Fusion::kNever, Fusion::kAlways});
    d.expand_bias = r.Chance(70), d.depthwise_bias = r.Chance(70), d.project_bias = r.Chance(70);
    d.expand_activation = r.AnyActivation();
    d.depthwise_activation = r.AnyActivation();
    d.project_activation = r.AnyActivation();
    d.residual = r.AnyResidual();
    d.layout = r.Pick({Layout::kNhwc, Layout::kNhwc, Layout::kNchw});
    if (r.Chance(60)) {
      d.pad_top = r.Below(4), d.pad_left = r.Below(4), d.pad_bottom = r.Below(4), d.pad_right = r.Below(4);
    }
    RunTimeSizes(d, r);
    return d;
  }
};

LAMINA_FUZZ(SeparableConv2d)

}  // namespace lamina::fuzz
