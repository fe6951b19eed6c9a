// Rules that several operators share: activations, enums, image tensors and their strides.
#ifndef LAMINA_KERNELS_OPERATORS_RULES_H_
#define LAMINA_KERNELS_OPERATORS_RULES_H_

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>

#include "kernels/operators/text.h"
#include "lamina/types.h"

namespace lamina {

// exp, tanh or erf calls of one application.
inline int64_t TranscendentalsOf(const Activation& a) {
  switch (a.kind) {
    case ActivationKind::kSigmoid:
    case ActivationKind::kSilu:
    case ActivationKind::kGeluErf:
    case ActivationKind::kGeluTanh:
    case ActivationKind::kTanh:
    case ActivationKind::kElu: return 1;
    default: return 0;
  }
}

template <class Desc>
Status ValidateActivation(const Desc& d, const char* field, const Activation& a) {
  if (a.kind < ActivationKind::kNone || a.kind > ActivationKind::kElu) {
    return Refuse(d, std::string(field) + " must be a member of ActivationKind",
                  {{"kind", static_cast<int64_t>(a.kind)}});
  }
  if (!std::isfinite(a.alpha) || !std::isfinite(a.beta)) {
    return Refuse(d, std::string(field) + "'s parameters must be finite");
  }
  if (a.kind == ActivationKind::kClamp && a.alpha > a.beta) {
    return Refuse(d, std::string(field) + " clamp(a,b) needs a <= b, got " + text::Format(a));
  }
  return {};
}

inline bool IsMember(Residual v) { return v >= Residual::kNone && v <= Residual::kAfterActivation; }
inline bool IsMember(Layout v) { return v >= Layout::kNhwc && v <= Layout::kNchw; }
inline bool IsMember(WeightLayout v) { return v >= WeightLayout::kOhwi && v <= WeightLayout::kOihw; }
inline bool IsMember(MatrixLayout v) { return v >= MatrixLayout::kOi && v <= MatrixLayout::kIo; }
inline bool IsMember(DType v) { return v >= DType::kF32 && v <= DType::kF16; }
inline bool IsMember(SeparableOrder v) { return v >= SeparableOrder::kDwPw && v <= SeparableOrder::kPwDwPw; }
inline bool IsMember(Fusion v) { return v >= Fusion::kAuto && v <= Fusion::kNever; }
inline bool IsMember(Causal v) { return v >= Causal::kNone && v <= Causal::kBottomRight; }
inline bool IsMember(AttentionLayout v) { return v >= AttentionLayout::kBshd && v <= AttentionLayout::kBhsd; }

template <class Desc, class... Enums>
Status ValidateEnums(const Desc& d, Enums... values) {
  if ((... && IsMember(values))) return {};
  std::string got;
  Fields<Desc>::Visit([&](const char* name, auto member, FieldKind) {
    if constexpr (std::is_enum_v<std::remove_cvref_t<decltype(d.*member)>>) {
      if (!IsMember(d.*member)) got += std::string(" ") + name + "=" + text::Format(d.*member);
    }
  });
  return Refuse(d, "every enumerated field must hold one of its members, got" + got);
}

// Positions of a kernel on a padded axis: 0 where it does not fit.
inline int64_t OutputSize(int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t before, int64_t after) {
  const int64_t span = in + before + after - (dilation * (kernel - 1) + 1);
  return span < 0 || stride < 1 ? 0 : span / stride + 1;  // of a descriptor that Validate would refuse, too
}

// Kernel extents, padded sizes and products of two sizes are formed from sizes below this.
inline constexpr int64_t kMostOfASize = int64_t{1} << 31;

// The rules of an operator that moves a kernel over an image: sizes, strides, dilations, pads.
template <class Desc>
Status ValidateWindow(const Desc& d) {
  if (d.n < 0) return Refuse(d, "n must not be negative", {{"n", d.n}});
  if (d.ih < 1 || d.iw < 1 || d.ic < 1 || d.oc < 1) {
    return Refuse(d, "ih, iw, ic and oc must be at least 1", {{"ih", d.ih}, {"iw", d.iw}, {"ic", d.ic}, {"oc", d.oc}});
  }
  if (d.kh < 1 || d.kw < 1) return Refuse(d, "the kernel must be at least 1x1", {{"kh", d.kh}, {"kw", d.kw}});
  if (d.stride_h < 1 || d.stride_w < 1) {
    return Refuse(d, "strides must be at least 1", {{"stride_h", d.stride_h}, {"stride_w", d.stride_w}});
  }
  if (d.dilation_h < 1 || d.dilation_w < 1) {
    return Refuse(d, "dilations must be at least 1 (1 is dense)",
                  {{"dilation_h", d.dilation_h}, {"dilation_w", d.dilation_w}});
  }
  if (std::min({d.pad_top, d.pad_left, d.pad_bottom, d.pad_right}) < 0) {
    return Refuse(
        d, "pads must not be negative",
        {{"pad_top", d.pad_top}, {"pad_left", d.pad_left}, {"pad_bottom", d.pad_bottom}, {"pad_right", d.pad_right}});
  }
  const int64_t greatest = std::max({d.ih, d.iw, d.ic, d.oc, d.kh, d.kw, d.stride_h, d.stride_w, d.dilation_h,
                                     d.dilation_w, d.pad_top, d.pad_left, d.pad_bottom, d.pad_right});
  if (greatest >= kMostOfASize) {
    return Refuse(d, "every size but n must be less than 2^31", {{"greatest", greatest}});
  }
  if (d.oh() < 1 || d.ow() < 1) {
    return Refuse(d, "the kernel must fit into the padded input",
                  {{"kernel_h", d.dilation_h * (d.kh - 1) + 1},
                   {"padded_h", d.ih + d.pad_top + d.pad_bottom},
                   {"kernel_w", d.dilation_w * (d.kw - 1) + 1},
                   {"padded_w", d.iw + d.pad_left + d.pad_right}});
  }
  return {};
}

// Sizes and strides of an image operator's x [n, ih, iw, ic] and y [n, oh, ow, oc] (or their nchw forms).
template <class Desc>
Status ValidateImage(const Desc& d, int64_t n, int64_t ic, int64_t ih, int64_t iw, int64_t oc, int64_t oh, int64_t ow,
                     Layout layout, int64_t x_stride, int64_t y_stride, int64_t residual_stride) {
  const bool nhwc = layout == Layout::kNhwc;
  const int64_t x_least = nhwc ? ic : CheckedProduct({ic, ih, iw}), y_least = nhwc ? oc : CheckedProduct({oc, oh, ow});
  const auto overflows = [&](const char* what) {
    return Refuse(d, std::string(what) + " overflows",
                  {{"n", n}, {"ih", ih}, {"iw", iw}, {"ic", ic}, {"oh", oh}, {"ow", ow}, {"oc", oc}});
  };
  if (x_least < 0 || y_least < 0) return overflows("the size of x or y");
  const char* rule = nhwc ? "a pixel stride must be 0 or at least the tensor's channels"
                          : "an image stride must be 0 or at least channels * height * width";
  if ((x_stride != 0 && x_stride < x_least) || (y_stride != 0 && y_stride < y_least) ||
      (residual_stride != 0 && residual_stride < y_least)) {
    return Refuse(d, rule, {{"x_stride", x_stride}, {"y_stride", y_stride}, {"residual_stride", residual_stride}});
  }
  const auto stride = [](int64_t asked, int64_t dense) { return asked ? asked : dense; };
  const int64_t x_count =
      nhwc ? CheckedProduct({n, ih, iw, stride(x_stride, x_least)}) : CheckedProduct({n, stride(x_stride, x_least)});
  const int64_t y_count = nhwc ? CheckedProduct({n, oh, ow, stride(std::max(y_stride, residual_stride), y_least)})
                               : CheckedProduct({n, stride(std::max(y_stride, residual_stride), y_least)});
  if (x_count < 0 || y_count < 0) return overflows("the size of x or y");
  // Counts of multiply-accumulates must fit too, or no cost could be given.
  if (CheckedProduct({n, oh, ow, oc, d.kh, d.kw, ic}) < 0) return overflows("the count of multiply-accumulates");
  return {};
}

}  // namespace lamina

#endif  // LAMINA_KERNELS_OPERATORS_RULES_H_
