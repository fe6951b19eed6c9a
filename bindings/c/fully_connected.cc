#include "lamina/fully_connected.h"

#include "bindings/c/handle.h"

namespace lamina::c {

template <>
struct Border<FullyConnectedDesc> {
  using Op = FullyConnected;
  static void Weights(const FullyConnectedDesc& d, FullyConnectedWeights& w, Slots& s) {
    s.Weight("w", w.w, d.dtype, d.weight_layout == MatrixLayout::kOi ? Dense({d.oc, d.ic}) : Dense({d.ic, d.oc}));
    if (d.bias) s.Weight("bias", w.bias, d.dtype, Dense({d.oc}));
  }
  static void Tensors(const FullyConnectedDesc& d, const FullyConnected*, FullyConnectedTensors& t, Slots& s) {
    s.Input("x", t.x, d.dtype, Rows({d.m, d.ic}, d.x_stride));
    s.Output("y", t.y, d.dtype, Rows({d.m, d.oc}, d.y_stride));
    if (d.residual != Residual::kNone) s.Input("residual", t.residual, d.dtype, Rows({d.m, d.oc}, d.residual_stride));
  }
};

template struct Entry<FullyConnectedDesc>;

}  // namespace lamina::c
