#include "lamina/conv2d.h"

#include "bindings/c/handle.h"

namespace lamina::c {

template <>
struct Border<Conv2dDesc> {
  using Op = Conv2d;
  static void Weights(const Conv2dDesc& d, Conv2dWeights& w, Slots& s) {
    const int64_t ic = d.ic / d.groups;
    s.Weight("w", w.w, d.dtype,
             d.weight_layout == WeightLayout::kOhwi ? Dense({d.oc, d.kh, d.kw, ic}) : Dense({d.oc, ic, d.kh, d.kw}));
    if (d.bias) s.Weight("bias", w.bias, d.dtype, Dense({d.oc}));
  }
  static void Tensors(const Conv2dDesc& d, const Conv2d*, Conv2dTensors& t, Slots& s) {
    s.Input("x", t.x, d.dtype, Image(d.layout, d.n, d.ih, d.iw, d.ic, d.x_stride));
    s.Output("y", t.y, d.dtype, Image(d.layout, d.n, d.oh(), d.ow(), d.oc, d.y_stride));
    if (d.residual != Residual::kNone) {
      s.Input("residual", t.residual, d.dtype, Image(d.layout, d.n, d.oh(), d.ow(), d.oc, d.residual_stride));
    }
  }
};

template struct Entry<Conv2dDesc>;

}  // namespace lamina::c
