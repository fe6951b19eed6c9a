#include "harness/form.h"

#include <iterator>
#include <string>

namespace lamina::harness {
namespace {

constexpr std::string_view kNames[] = {"as_written", "standard", "dw_pw", "pw_dw"};
constexpr int64_t kImageChannels = 4;

// The fields that conv2d and separable_conv2d share.
template <class To, class From>
To WithImageOf(const From& d) {
  To to;
  to.n = d.n, to.ih = d.ih, to.iw = d.iw, to.ic = d.ic, to.oc = d.oc, to.kh = d.kh, to.kw = d.kw;
  to.stride_h = d.stride_h, to.stride_w = d.stride_w, to.dilation_h = d.dilation_h, to.dilation_w = d.dilation_w;
  to.pad_top = d.pad_top, to.pad_left = d.pad_left, to.pad_bottom = d.pad_bottom, to.pad_right = d.pad_right;
  to.residual = d.residual, to.layout = d.layout, to.dtype = d.dtype;
  to.x_stride = d.x_stride, to.y_stride = d.y_stride, to.residual_stride = d.residual_stride;
  return to;
}

// What comes out of a block: its last step's activation, and the one that MobileNet has after every step.
Activation LastActivation(const Conv2dDesc& d) { return d.activation; }
Activation LastActivation(const SeparableConv2dDesc& d) {
  return d.has_project() ? d.project_activation : d.depthwise_activation;
}
Activation MiddleActivation(const Conv2dDesc& d) { return d.activation; }
Activation MiddleActivation(const SeparableConv2dDesc& d) { return d.depthwise_activation; }

template <class Desc>
Problem Transform(const Desc& d, Form form) {
  if (form == Form::kStandard) {
    Conv2dDesc conv = WithImageOf<Conv2dDesc>(d);
    conv.activation = LastActivation(d);
    return conv;
  }
  SeparableConv2dDesc sep = WithImageOf<SeparableConv2dDesc>(d);
  sep.order = form == Form::kDwPw ? SeparableOrder::kDwPw : SeparableOrder::kPwDw;
  sep.depthwise_activation = form == Form::kDwPw ? MiddleActivation(d) : LastActivation(d);
  if (form == Form::kDwPw) sep.project_activation = LastActivation(d);
  return sep;
}

}  // namespace

std::string_view ToString(Form form) { return kNames[static_cast<size_t>(form)]; }

Result<Form> ParseForm(std::string_view text) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (text == kNames[i]) return static_cast<Form>(i);
  }
  return InvalidArgument("form must be one of as_written standard dw_pw pw_dw, got \"" + std::string(text) + "\"");
}

bool IsBlock(const Problem& problem) {
  if (std::holds_alternative<SeparableConv2dDesc>(problem)) return true;
  const auto* conv = std::get_if<Conv2dDesc>(&problem);
  return conv != nullptr && conv->groups == 1 && conv->kh * conv->kw > 1 && conv->ic > kImageChannels;
}

std::optional<Problem> InForm(const Problem& problem, Form form) {
  if (!IsBlock(problem)) return std::nullopt;
  if (form == Form::kAsWritten) return problem;
  if (const auto* conv = std::get_if<Conv2dDesc>(&problem)) {
    return form == Form::kStandard ? problem : Transform(*conv, form);
  }
  const auto& sep = std::get<SeparableConv2dDesc>(problem);
  if ((form == Form::kDwPw && sep.order == SeparableOrder::kDwPw) ||
      (form == Form::kPwDw && sep.order == SeparableOrder::kPwDw)) {
    return problem;
  }
  return Transform(sep, form);
}

Network InForm(const Network& network, Form form) {
  Network changed = network;
  for (Layer& layer : changed.layers) {
    const auto problem = InForm(layer.problem, form);
    if (!problem) continue;
    if (layer.name == ToString(layer.problem)) layer.name = ToString(*problem);  // a problem without a name
    layer.problem = *problem;
  }
  return changed;
}

std::vector<Conv2dDesc> StepsOf(const Problem& problem) {
  const auto* sep = std::get_if<SeparableConv2dDesc>(&problem);
  if (sep == nullptr || sep->order == SeparableOrder::kPwDwPw) return {};
  const bool depthwise_first = sep->order == SeparableOrder::kDwPw;
  Conv2dDesc depthwise = WithImageOf<Conv2dDesc>(*sep);
  depthwise.ic = sep->depthwise_in();
  depthwise.oc = sep->depthwise_out();
  depthwise.groups = sep->depthwise_in();
  depthwise.bias = sep->depthwise_bias;
  depthwise.activation = sep->depthwise_activation;
  Conv2dDesc pointwise{.n = sep->n, .layout = sep->layout};
  pointwise.ih = depthwise_first ? sep->oh() : sep->ih;
  pointwise.iw = depthwise_first ? sep->ow() : sep->iw;
  pointwise.ic = depthwise_first ? sep->depthwise_out() : sep->ic;
  pointwise.oc = depthwise_first ? sep->oc : sep->depthwise_in();
  pointwise.bias = depthwise_first ? sep->project_bias : sep->expand_bias;
  pointwise.activation = depthwise_first ? sep->project_activation : sep->expand_activation;
  // A slice is the block's own business: the steps are timed on dense tensors.
  depthwise.x_stride = depthwise.y_stride = depthwise.residual_stride = 0;
  depthwise.residual = Residual::kNone;
  return depthwise_first ? std::vector{depthwise, pointwise} : std::vector{pointwise, depthwise};
}

TheoryRatio TheoryOf(const Problem& problem) {
  const auto* d = std::get_if<SeparableConv2dDesc>(&problem);
  if (d == nullptr || d->order == SeparableOrder::kPwDwPw) return {};
  const auto k2 = static_cast<double>(d->kh * d->kw), s2 = static_cast<double>(d->stride_h * d->stride_w);
  if (d->order == SeparableOrder::kDwPw) {
    const double ratio = 1 / static_cast<double>(d->oc) + 1 / k2;
    return {ratio, ratio};
  }
  const double per_channel = 1 / static_cast<double>(d->ic);
  return {1 / k2 + per_channel, s2 / k2 + per_channel};
}

}  // namespace lamina::harness
