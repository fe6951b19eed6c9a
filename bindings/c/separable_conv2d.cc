#include "lamina/separable_conv2d.h"

#include "bindings/c/handle.h"

namespace lamina::c {

template <>
struct Border<SeparableConv2dDesc> {
  using Op = SeparableConv2d;
  static void Weights(const SeparableConv2dDesc& d, SeparableConv2dWeights& w, Slots& s) {
    if (d.has_expand()) {
      s.Weight("expand_w", w.expand_w, d.dtype, Dense({d.depthwise_in(), d.ic}));
      if (d.expand_bias) s.Weight("expand_bias", w.expand_bias, d.dtype, Dense({d.depthwise_in()}));
    }
    s.Weight("depthwise_w", w.depthwise_w, d.dtype, Dense({d.depthwise_out(), d.kh, d.kw}));
    if (d.depthwise_bias) s.Weight("depthwise_bias", w.depthwise_bias, d.dtype, Dense({d.depthwise_out()}));
    if (d.has_project()) {
      s.Weight("project_w", w.project_w, d.dtype, Dense({d.oc, d.depthwise_out()}));
      if (d.project_bias) s.Weight("project_bias", w.project_bias, d.dtype, Dense({d.oc}));
    }
  }
  static void Tensors(const SeparableConv2dDesc& d, const SeparableConv2d*, SeparableConv2dTensors& t, Slots& s) {
    s.Input("x", t.x, d.dtype, Image(d.layout, d.n, d.ih, d.iw, d.ic, d.x_stride));
    s.Output("y", t.y, d.dtype, Image(d.layout, d.n, d.oh(), d.ow(), d.oc, d.y_stride));
    if (d.residual != Residual::kNone) {
      s.Input("residual", t.residual, d.dtype, Image(d.layout, d.n, d.oh(), d.ow(), d.oc, d.residual_stride));
    }
  }
};

template struct Entry<SeparableConv2dDesc>;

}  // namespace lamina::c
