#include "harness/conv2d.h"

#include <cmath>

#include "reference/conv2d.h"

namespace lamina::harness {
namespace {

// Floats that a channel slice spans: the last row has no gap behind it.
int64_t SliceSize(int64_t rows, int64_t row, int64_t stride) { return rows == 0 ? 0 : (rows - 1) * stride + row; }

constexpr int64_t kWinogradReach = 3;  // of the largest tile, 4x4: an output and its furthest neighbour in it

struct Rows {
  int64_t rows, row, stride;
};
Rows RowsOf(const Conv2dDesc& d, int64_t c, int64_t h, int64_t w, int64_t stride) {
  const bool nhwc = d.layout == Layout::kNhwc;
  const int64_t row = nhwc ? c : c * h * w;
  return {nhwc ? d.n * h * w : d.n, row, stride ? stride : row};
}

}  // namespace

Case<Conv2d>::Case(const Conv2dDesc& d, TensorStore& store) : desc_(d), fill_(store.fill()) {
  const Rows x = RowsOf(d, d.ic, d.ih, d.iw, d.x_stride), y = RowsOf(d, d.oc, d.oh(), d.ow(), d.y_stride);
  const Rows r = RowsOf(d, d.oc, d.oh(), d.ow(), d.residual_stride);
  weights.w = store.Input(d.dtype, d.oc * d.kh * d.kw * (d.ic / d.groups));
  if (d.bias) weights.bias = store.Input(d.dtype, d.oc);
  tensors.x = store.Input(d.dtype, SliceSize(x.rows, x.row, x.stride));
  if (d.residual != Residual::kNone) tensors.residual = store.Input(d.dtype, SliceSize(r.rows, r.row, r.stride));
  tensors.y = store.Output(d.dtype, SliceSize(y.rows, y.row, y.stride));
}

bool Case<Conv2d>::Exact(const Conv2dDesc& d) {
  return ExactActivation(d.activation) && d.kh * d.kw * (d.ic / d.groups) < (int64_t{1} << 19);
}

std::vector<Expected> Case<Conv2d>::Reference(Accuracy accuracy) const {
  const Conv2dDesc& d = desc_;
  const Rows y = RowsOf(d, d.oc, d.oh(), d.ow(), d.y_stride);
  Expected e{"y", tensors.y, y.rows, y.row, y.stride, {}, {}};
  e.want.resize(static_cast<size_t>(y.rows * y.row));
  e.tolerance.assign(e.want.size(), 0.0);
  std::vector<double> magnitude(e.want.size());
  reference::Conv2d(d, weights, tensors, e.want.data(), magnitude.data());
  const bool mixes = accuracy == Accuracy::kDefault && d.groups == 1;
  if (mixes) reference::Conv2dMagnitudeWithin(d, weights, tensors, kWinogradReach, magnitude.data());
  if (fill_ == Fill::kNormal || mixes) {
    const int64_t terms = d.kh * d.kw * (d.ic / d.groups) + 2;  // bias and residual
    for (size_t i = 0; i < e.want.size(); ++i) {
      const double reduced = accuracy == Accuracy::kReduced ? Tf32Tolerance(magnitude[i]) : 0;
      e.tolerance[i] = ActivatedTolerance(d.activation, e.want[i], DotTolerance(terms, magnitude[i]) + reduced);
    }
  }
  RoundTo(d.dtype, e);
  return {e};
}

}  // namespace lamina::harness
