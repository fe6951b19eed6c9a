// What is true of conv2d on any backend: its rules, its text, its cost.
#include "lamina/conv2d.h"

#include <algorithm>

#include "kernels/operators/backends.h"
#include "kernels/operators/prepare.h"
#include "kernels/operators/rules.h"

namespace lamina {

template <>
struct Fields<Conv2dDesc> {
  static constexpr const char* kName = "conv2d";
  template <class V>
  static void Visit(V&& v) {
    using D = Conv2dDesc;
    using enum FieldKind;
    v("n", &D::n, kRunTime);
    v("ih", &D::ih, kRunTime);
    v("iw", &D::iw, kRunTime);
    v("ic", &D::ic, kFixed);
    v("oc", &D::oc, kFixed);
    v("kh", &D::kh, kFixed);
    v("kw", &D::kw, kFixed);
    v("stride_h", &D::stride_h, kFixed);
    v("stride_w", &D::stride_w, kFixed);
    v("dilation_h", &D::dilation_h, kFixed);
    v("dilation_w", &D::dilation_w, kFixed);
    v("pad_top", &D::pad_top, kRunTime);  // SAME padding depends on the image's size
    v("pad_left", &D::pad_left, kRunTime);
    v("pad_bottom", &D::pad_bottom, kRunTime);
    v("pad_right", &D::pad_right, kRunTime);
    v("groups", &D::groups, kFixed);
    v("bias", &D::bias, kFixed);
    v("activation", &D::activation, kFixed);
    v("residual", &D::residual, kFixed);
    v("layout", &D::layout, kFixed);
    v("weight_layout", &D::weight_layout, kFixed);
    v("dtype", &D::dtype, kFixed);
    v("x_stride", &D::x_stride, kRunTime);
    v("y_stride", &D::y_stride, kRunTime);
    v("residual_stride", &D::residual_stride, kRunTime);
  }
};

int64_t Conv2dDesc::oh() const { return OutputSize(ih, kh, stride_h, dilation_h, pad_top, pad_bottom); }
int64_t Conv2dDesc::ow() const { return OutputSize(iw, kw, stride_w, dilation_w, pad_left, pad_right); }

Status Conv2dDesc::Validate() const {
  const Conv2dDesc& d = *this;
  if (n < 0) return Refuse(d, "n must not be negative", {{"n", n}});
  if (ih < 1 || iw < 1 || ic < 1 || oc < 1) {
    return Refuse(d, "ih, iw, ic and oc must be at least 1", {{"ih", ih}, {"iw", iw}, {"ic", ic}, {"oc", oc}});
  }
  if (kh < 1 || kw < 1) return Refuse(d, "the kernel must be at least 1x1", {{"kh", kh}, {"kw", kw}});
  if (stride_h < 1 || stride_w < 1) {
    return Refuse(d, "strides must be at least 1", {{"stride_h", stride_h}, {"stride_w", stride_w}});
  }
  if (dilation_h < 1 || dilation_w < 1) {
    return Refuse(d, "dilations must be at least 1 (1 is dense)",
                  {{"dilation_h", dilation_h}, {"dilation_w", dilation_w}});
  }
  if (pad_top < 0 || pad_left < 0 || pad_bottom < 0 || pad_right < 0) {
    return Refuse(d, "pads must not be negative",
                  {{"pad_top", pad_top}, {"pad_left", pad_left}, {"pad_bottom", pad_bottom}, {"pad_right", pad_right}});
  }
  if (groups < 1 || ic % groups != 0 || oc % groups != 0) {
    return Refuse(d, "groups must divide ic and oc", {{"groups", groups}, {"ic", ic}, {"oc", oc}});
  }
  // Kernel extents and padded sizes are formed below: keep each factor far from overflow first.
  constexpr int64_t kMost = int64_t{1} << 31;
  const int64_t greatest = std::max(
      {ih, iw, ic, oc, kh, kw, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left, pad_bottom, pad_right});
  if (greatest >= kMost) return Refuse(d, "every size but n must be less than 2^31", {{"greatest", greatest}});
  if (oh() < 1 || ow() < 1) {
    return Refuse(d, "the kernel must fit into the padded input",
                  {{"kernel_h", dilation_h * (kh - 1) + 1},
                   {"padded_h", ih + pad_top + pad_bottom},
                   {"kernel_w", dilation_w * (kw - 1) + 1},
                   {"padded_w", iw + pad_left + pad_right}});
  }
  if (Status s = ValidateActivation(d, "activation", activation); !s.ok()) return s;
  if (Status s = ValidateEnums(d, residual, layout, weight_layout, dtype); !s.ok()) return s;
  if (CheckedProduct({oc, kh, kw, ic}) < 0) {
    return Refuse(d, "the weights' size overflows", {{"oc", oc}, {"kh", kh}, {"kw", kw}, {"ic", ic}});
  }
  return ValidateImage(d, n, ic, ih, iw, oc, oh(), ow(), layout, x_stride, y_stride, residual_stride);
}

void SetPadding(Conv2dDesc& d, Padding padding) {
  const auto total = [](int64_t in, int64_t kernel, int64_t stride, int64_t dilation) {
    const int64_t out = (in + stride - 1) / stride;
    return std::max<int64_t>(0, (out - 1) * stride + dilation * (kernel - 1) + 1 - in);
  };
  const bool none = padding == Padding::kValid || d.stride_h < 1 || d.stride_w < 1;
  const int64_t h = none ? 0 : total(d.ih, d.kh, d.stride_h, d.dilation_h);
  const int64_t w = none ? 0 : total(d.iw, d.kw, d.stride_w, d.dilation_w);
  const bool lower = padding == Padding::kSameLower;
  d.pad_top = lower ? h - h / 2 : h / 2;
  d.pad_bottom = h - d.pad_top;
  d.pad_left = lower ? w - w / 2 : w / 2;
  d.pad_right = w - d.pad_left;
}

std::string ToString(const Conv2dDesc& d) { return text::Print(d); }
Result<Conv2dDesc> ParseConv2d(std::string_view t) { return text::Read<Conv2dDesc>(t); }

Cost CostOf(const Conv2dDesc& d) {
  if (!d.Validate().ok()) return {};
  const int64_t outputs = d.n * d.oh() * d.ow() * d.oc, inputs = d.n * d.ih * d.iw * d.ic;
  Cost c;
  c.macs = outputs * d.kh * d.kw * (d.ic / d.groups);
  c.transcendentals = outputs * TranscendentalsOf(d.activation);
  c.params = d.oc * d.kh * d.kw * (d.ic / d.groups) + (d.bias ? d.oc : 0);
  c.weight_bytes = c.params * static_cast<int64_t>(SizeOf(d.dtype));
  c.activation_bytes =
      (inputs + outputs * (d.residual == Residual::kNone ? 1 : 2)) * static_cast<int64_t>(SizeOf(d.dtype));
  return c;
}

template <>
struct Traits<Conv2d> {
  static CandidateList<Conv2d> Offered(Backend backend) {
    return backend == Backend::kReference ? oracle::Conv2dCandidates() : cpu::Conv2dCandidates();
  }
  static Status CheckWeights(const Conv2dDesc& d, const Conv2dWeights& w) {
    if (w.w == nullptr) return Refuse(d, "weights.w must not be null");
    if (d.bias && w.bias == nullptr) return Refuse(d, "weights.bias must not be null when bias=1");
    return {};
  }
  static Status CheckTensors(const Conv2dDesc& d, const Conv2dTensors& t) {
    if (t.x == nullptr) return Refuse(d, "x must not be null");
    if (t.y == nullptr) return Refuse(d, "y must not be null");
    if (d.residual != Residual::kNone && t.residual == nullptr) {
      return Refuse(d, "residual must not be null when the descriptor has one");
    }
    return {};
  }
  static bool IsEmpty(const Conv2dDesc& d) { return d.n == 0; }
};

template class Operator<Conv2dDesc, Conv2dWeights, Conv2dTensors>;

}  // namespace lamina
