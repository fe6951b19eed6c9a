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
