#include "harness/fully_connected.h"

#include "reference/fully_connected.h"

namespace lamina::harness {
namespace {

// Floats that m rows span: the last row has no gap behind it.
int64_t Span(int64_t m, int64_t row, int64_t stride) { return m == 0 ? 0 : (m - 1) * (stride ? stride : row) + row; }

}  // namespace

Case<FullyConnected>::Case(const FullyConnectedDesc& d, TensorStore& store) : desc_(d), fill_(store.fill()) {
  weights.w = store.Input(d.dtype, d.oc * d.ic);
  if (d.bias) weights.bias = store.Input(d.dtype, d.oc);
  tensors.x = store.Input(d.dtype, Span(d.m, d.ic, d.x_stride));
  if (d.residual != Residual::kNone) tensors.residual = store.Input(d.dtype, Span(d.m, d.oc, d.residual_stride));
  tensors.y = store.Output(d.dtype, Span(d.m, d.oc, d.y_stride));
}

bool Case<FullyConnected>::Exact(const FullyConnectedDesc& d) {
  return ExactActivation(d.activation) && d.ic < (int64_t{1} << 19);
}

std::vector<Expected> Case<FullyConnected>::Reference(Accuracy accuracy) const {
  const FullyConnectedDesc& d = desc_;
  Expected e{"y", tensors.y, d.m, d.oc, d.y_stride ? d.y_stride : d.oc, {}, {}};
  e.want.resize(static_cast<size_t>(d.m * d.oc));
  e.tolerance.assign(e.want.size(), 0.0);
  std::vector<double> magnitude(e.want.size());
  reference::FullyConnected(d, weights, tensors, e.want.data(), magnitude.data());
  if (fill_ == Fill::kNormal) {
    for (size_t i = 0; i < e.want.size(); ++i) {
      const int64_t terms = d.ic + 2;  // bias and residual
      const double reduced = accuracy == Accuracy::kReduced ? Tf32Tolerance(magnitude[i]) : 0;
      e.tolerance[i] = ActivatedTolerance(d.activation, e.want[i], DotTolerance(terms, magnitude[i]) + reduced);
    }
  }
  RoundTo(d.dtype, e);
  return {e};
}

}  // namespace lamina::harness
