// What is true of separable_conv2d on any backend: its rules, its text, its cost.
#include "lamina/separable_conv2d.h"

#include <algorithm>

#include "kernels/operators/backends.h"
#include "kernels/operators/prepare.h"
#include "kernels/operators/rules.h"

namespace lamina {

template <>
struct Fields<SeparableConv2dDesc> {
  static constexpr const char* kName = "separable_conv2d";
  template <class V>
  static void Visit(V&& v) {
    using D = SeparableConv2dDesc;
    using enum FieldKind;
    v("n", &D::n, kRunTime);
    v("ih", &D::ih, kRunTime);
    v("iw", &D::iw, kRunTime);
    v("ic", &D::ic, kFixed);
    v("hidden", &D::hidden, kFixed);
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
    v("depth_multiplier", &D::depth_multiplier, kFixed);
    v("order", &D::order, kFixed);
    v("fusion", &D::fusion, kFixed);
    v("expand_bias", &D::expand_bias, kFixed);
    v("depthwise_bias", &D::depthwise_bias, kFixed);
    v("project_bias", &D::project_bias, kFixed);
    v("expand_activation", &D::expand_activation, kFixed);
    v("depthwise_activation", &D::depthwise_activation, kFixed);
    v("project_activation", &D::project_activation, kFixed);
    v("residual", &D::residual, kFixed);
    v("layout", &D::layout, kFixed);
    v("dtype", &D::dtype, kFixed);
    v("x_stride", &D::x_stride, kRunTime);
    v("y_stride", &D::y_stride, kRunTime);
    v("residual_stride", &D::residual_stride, kRunTime);
  }
};

int64_t SeparableConv2dDesc::oh() const { return OutputSize(ih, kh, stride_h, dilation_h, pad_top, pad_bottom); }
int64_t SeparableConv2dDesc::ow() const { return OutputSize(iw, kw, stride_w, dilation_w, pad_left, pad_right); }
int64_t SeparableConv2dDesc::depthwise_in() const {
  switch (order) {
    case SeparableOrder::kDwPw: return ic;
    case SeparableOrder::kPwDw: return oc / depth_multiplier;
    case SeparableOrder::kPwDwPw: return hidden;
  }
  return 0;
}
int64_t SeparableConv2dDesc::depthwise_out() const { return depthwise_in() * depth_multiplier; }

Status SeparableConv2dDesc::Validate() const {
  const SeparableConv2dDesc& d = *this;
  if (Status s = ValidateEnums(d, order, fusion, residual, layout, dtype); !s.ok()) return s;
  if (Status s = ValidateWindow(d); !s.ok()) return s;
  if (order == SeparableOrder::kPwDwPw && hidden < 1) {
    return Refuse(d, "hidden must be at least 1 when order=pw_dw_pw", {{"hidden", hidden}});
  }
  if (order != SeparableOrder::kPwDwPw && hidden != 0) {
    return Refuse(d, "hidden must be 0 unless order=pw_dw_pw", {{"hidden", hidden}});
  }
  if (depth_multiplier < 1) {
    return Refuse(d, "depth_multiplier must be at least 1", {{"depth_multiplier", depth_multiplier}});
  }
  if (order == SeparableOrder::kPwDw && oc % depth_multiplier != 0) {
    return Refuse(d, "depth_multiplier must divide oc when order=pw_dw",
                  {{"depth_multiplier", depth_multiplier}, {"oc", oc}});
  }
  if (const int64_t greatest = std::max(hidden, depth_multiplier); greatest >= kMostOfASize) {
    return Refuse(d, "every size but n must be less than 2^31", {{"greatest", greatest}});
  }
  if (has_expand()) {
    if (Status s = ValidateActivation(d, "expand_activation", expand_activation); !s.ok()) return s;
  }
  if (Status s = ValidateActivation(d, "depthwise_activation", depthwise_activation); !s.ok()) return s;
  if (has_project()) {
    if (Status s = ValidateActivation(d, "project_activation", project_activation); !s.ok()) return s;
  }
  const int64_t in = depthwise_in(), out = depthwise_out();
  if (CheckedProduct({in, ic}) < 0 || CheckedProduct({out, kh, kw}) < 0 || CheckedProduct({oc, out}) < 0) {
    return Refuse(d, "the weights' size overflows", {{"depthwise_in", in}, {"depthwise_out", out}, {"oc", oc}});
  }
  if (CheckedProduct({n, ih, iw, in, ic}) < 0 || CheckedProduct({n, oh(), ow(), out, kh, kw}) < 0 ||
      CheckedProduct({n, oh(), ow(), out, oc}) < 0) {
    return Refuse(d, "the count of multiply-accumulates overflows",
                  {{"n", n}, {"depthwise_in", in}, {"depthwise_out", out}, {"oc", oc}});
  }
  return ValidateImage(d, n, ic, ih, iw, oc, oh(), ow(), layout, x_stride, y_stride, residual_stride);
}

std::string ToString(const SeparableConv2dDesc& d) { return text::Print(d); }
Result<SeparableConv2dDesc> ParseSeparableConv2d(std::string_view t) { return text::Read<SeparableConv2dDesc>(t); }

Cost CostOf(const SeparableConv2dDesc& d) {
  const int64_t in = d.depthwise_in(), out = d.depthwise_out(), pixels = d.n * d.oh() * d.ow();
  const int64_t inputs = d.n * d.ih * d.iw * d.ic, outputs = pixels * d.oc, expanded = d.n * d.ih * d.iw * in;
  Cost c;
  if (d.has_expand()) {
    c.macs += expanded * d.ic;
    c.transcendentals += expanded * TranscendentalsOf(d.expand_activation);
    c.params += in * d.ic + (d.expand_bias ? in : 0);
  }
  c.macs += pixels * out * d.kh * d.kw;
  c.transcendentals += pixels * out * TranscendentalsOf(d.depthwise_activation);
  c.params += out * d.kh * d.kw + (d.depthwise_bias ? out : 0);
  if (d.has_project()) {
    c.macs += outputs * out;
    c.transcendentals += outputs * TranscendentalsOf(d.project_activation);
    c.params += d.oc * out + (d.project_bias ? d.oc : 0);
  }
  c.weight_bytes = c.params * static_cast<int64_t>(SizeOf(d.dtype));
  c.activation_bytes =
      (inputs + outputs * (d.residual == Residual::kNone ? 1 : 2)) * static_cast<int64_t>(SizeOf(d.dtype));
  return c;
}

template <>
struct Traits<SeparableConv2d> {
  static CandidateList<SeparableConv2d> Offered(Backend backend) {
    return OfferedBy(backend, cpu::SeparableConv2dCandidates, oracle::SeparableConv2dCandidates,
                     cuda::SeparableConv2dCandidates);
  }
  static Status CheckWeights(const SeparableConv2dDesc& d, const SeparableConv2dWeights& w) {
    const auto check = [&](const char* step, bool has_step, const void* weights, bool has_bias, const void* bias) {
      if (has_step && weights == nullptr) return Refuse(d, std::string("weights.") + step + "_w must not be null");
      if (has_step && has_bias && bias == nullptr) {
        return Refuse(d, std::string("weights.") + step + "_bias must not be null when " + step + "_bias=1");
      }
      return Status();
    };
    if (Status s = check("expand", d.has_expand(), w.expand_w, d.expand_bias, w.expand_bias); !s.ok()) return s;
    if (Status s = check("depthwise", true, w.depthwise_w, d.depthwise_bias, w.depthwise_bias); !s.ok()) return s;
    return check("project", d.has_project(), w.project_w, d.project_bias, w.project_bias);
  }
  static Status CheckTensors(const SeparableConv2dDesc& d, const SeparableConv2dTensors& t) {
    if (t.x == nullptr) return Refuse(d, "x must not be null");
    if (t.y == nullptr) return Refuse(d, "y must not be null");
    if (d.residual != Residual::kNone && t.residual == nullptr) {
      return Refuse(d, "residual must not be null when the descriptor has one");
    }
    return {};
  }
  static bool IsEmpty(const SeparableConv2dDesc& d) { return d.n == 0; }
};

template class Operator<SeparableConv2dDesc, SeparableConv2dWeights, SeparableConv2dTensors>;

}  // namespace lamina
