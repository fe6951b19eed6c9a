#include "harness/conv2d.h"

#include "tests/fuzz/fuzz.h"

namespace lamina::fuzz {

template <>
struct Draw<Conv2d> {
  static Result<Conv2dDesc> Parse(std::string_view text) { return ParseConv2d(text); }

  static void RunTimeSizes(Conv2dDesc& d, Rng& r) {
    d.n = r.Chance(5) ? 0 : r.Pick({1, 1, 1, 2, 3});
    d.ih = r.Size(40);
    d.iw = r.Size(40);
    const bool nhwc = d.layout == Layout::kNhwc;
    d.x_stride = r.Stride(nhwc ? d.ic : d.ic * d.ih * d.iw);
    d.y_stride = r.Stride(nhwc ? d.oc : d.oc * std::max<int64_t>(0, d.oh()) * std::max<int64_t>(0, d.ow()));
    d.residual_stride = d.residual == Residual::kNone ? 0 : d.y_stride;
  }

  static Conv2dDesc Any(Rng& r) {
    Conv2dDesc d;
    const int64_t kind = r.Below(10);
    if (kind < 2) {  // depthwise, with or without a multiplier
      d.ic = d.groups = r.Size(100);
      d.oc = d.ic * r.Pick({1, 1, 1, 2, 3});
    } else if (kind < 4) {
      d.groups = r.Between(2, 5);
      d.ic = d.groups * r.Size(24);
      d.oc = d.groups * r.Size(24);
    } else {
      d.ic = kind == 4 ? 3 : r.Size(130);
      d.oc = r.Size(130);
    }
    d.kh = r.Pick({1, 1, 2, 3, 3, 3, 4, 5, 7});
    d.kw = r.Chance(75) ? d.kh : r.Between(1, 9);
    if (r.Chance(80)) {  // else what Winograd's transforms take
      d.stride_h = r.Pick({1, 1, 1, 2, 2, 3, 5});
      d.stride_w = r.Chance(75) ? d.stride_h : r.Between(1, 4);
      d.dilation_h = r.Pick({1, 1, 1, 2, 3});
      d.dilation_w = r.Chance(75) ? d.dilation_h : r.Between(1, 4);
    }
    d.layout = r.Pick({Layout::kNhwc, Layout::kNhwc, Layout::kNchw});
    d.weight_layout = r.Pick({WeightLayout::kOhwi, WeightLayout::kOihw});
    d.bias = r.Chance(70);
    d.activation = r.AnyActivation();
    d.residual = r.AnyResidual();
    if (r.Chance(50)) {  // any pads, even larger than the kernel
      d.pad_top = r.Below(5), d.pad_left = r.Below(5), d.pad_bottom = r.Below(5), d.pad_right = r.Below(5);
    }
    RunTimeSizes(d, r);
    if (r.Chance(30)) SetPadding(d, r.Pick({Padding::kValid, Padding::kSameUpper, Padding::kSameLower}));
    return d;
  }
};

LAMINA_FUZZ(Conv2d)

}  // namespace lamina::fuzz
