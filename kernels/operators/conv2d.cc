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
  if (Status s = ValidateWindow(d); !s.ok()) return s;
  if (groups < 1 || ic % groups != 0 || oc % groups != 0) {
    return Refuse(d, "groups must divide ic and oc", {{"groups", groups}, {"ic", ic}, {"oc", oc}});
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
    return OfferedBy(backend, cpu::Conv2dCandidates, oracle::Conv2dCandidates, cuda::Conv2dCandidates);
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
