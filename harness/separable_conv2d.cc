#include "harness/separable_conv2d.h"

#include <algorithm>
#include <cmath>

#include "reference/separable_conv2d.h"

namespace lamina::harness {
namespace {

struct Rows {
  int64_t rows, row, stride;
  // Floats that they span: the last row has no gap behind it.
  int64_t span() const { return rows == 0 ? 0 : (rows - 1) * stride + row; }
};
Rows RowsOf(const SeparableConv2dDesc& d, int64_t c, int64_t h, int64_t w, int64_t stride) {
  const bool nhwc = d.layout == Layout::kNhwc;
  const int64_t row = nhwc ? c : c * h * w;
  return {nhwc ? d.n * h * w : d.n, row, stride ? stride : row};
}
Rows RowsOfY(const SeparableConv2dDesc& d, int64_t stride) { return RowsOf(d, d.oc, d.oh(), d.ow(), stride); }

// Results of a step are kept as numbers of `kept` for the next one.
template <bool kTf32>
double ToleranceOf(const reference::Step& step, double value, double magnitude, double carried) {
  const double reduced = kTf32 && step.pointwise ? Tf32Tolerance(magnitude) : 0;
  const double t = ActivatedTolerance(step.activation, value, DotTolerance(step.terms, magnitude) + carried + reduced);
  return t + RoundingTolerance(step.kept, std::fabs(value) + t);
}

// Integers up to this are numbers of the dtype; of TF32.
constexpr double MostInteger(DType dtype) { return 1 / UnitRoundoff(dtype); }
constexpr double kMostTf32Integer = 0x1p11;

// The largest |act(sum)| of sums up to `most`.
double MostAfter(const Activation& a, double most) {
  if (a.kind == ActivationKind::kRelu6) return std::min(most, 6.0);
  if (a.kind == ActivationKind::kClamp) return std::max(std::fabs(double{a.alpha}), std::fabs(double{a.beta}));
  return most;
}

// Whether integers up to 4 stay below 2^24 through all steps and, as inputs of a step, up to most_kept.
bool StaysExact(const SeparableConv2dDesc& d, double most_kept) {
  constexpr double kLargest = 4;  // of the exact fill
  double most = kLargest, sum = 0;
  bool kept = true;  // of a step's inputs
  const auto step = [&](int64_t terms, const Activation& activation) {
    const double this_sum = most * kLargest * static_cast<double>(terms) + 2 * kLargest;  // bias and residual
    sum = std::max(sum, this_sum);
    kept = kept && most <= most_kept;
    most = MostAfter(activation, this_sum);
    return ExactActivation(activation);
  };
  return (!d.has_expand() || step(d.ic, d.expand_activation)) && step(d.kh * d.kw, d.depthwise_activation) &&
         (!d.has_project() || step(d.depthwise_out(), d.project_activation)) && kept && sum < 0x1p24;
}

}  // namespace

Case<SeparableConv2d>::Case(const SeparableConv2dDesc& d, TensorStore& store) : desc_(d), fill_(store.fill()) {
  const int64_t in = d.depthwise_in(), out = d.depthwise_out();
  if (d.has_expand()) {
    weights.expand_w = store.Input(d.dtype, in * d.ic);
    if (d.expand_bias) weights.expand_bias = store.Input(d.dtype, in);
  }
  weights.depthwise_w = store.Input(d.dtype, out * d.kh * d.kw);
  if (d.depthwise_bias) weights.depthwise_bias = store.Input(d.dtype, out);
  if (d.has_project()) {
    weights.project_w = store.Input(d.dtype, d.oc * out);
    if (d.project_bias) weights.project_bias = store.Input(d.dtype, d.oc);
  }
  tensors.x = store.Input(d.dtype, RowsOf(d, d.ic, d.ih, d.iw, d.x_stride).span());
  if (d.residual != Residual::kNone) tensors.residual = store.Input(d.dtype, RowsOfY(d, d.residual_stride).span());
  tensors.y = store.Output(d.dtype, RowsOfY(d, d.y_stride).span());
}

bool Case<SeparableConv2d>::Exact(const SeparableConv2dDesc& d) { return StaysExact(d, MostInteger(d.dtype)); }

std::vector<Expected> Case<SeparableConv2d>::Reference(Accuracy accuracy) const {
  const SeparableConv2dDesc& d = desc_;
  const Rows y = RowsOfY(d, d.y_stride);
  Expected e{"y", tensors.y, y.rows, y.row, y.stride, {}, {}};
  e.want.resize(static_cast<size_t>(y.rows * y.row));
  e.tolerance.assign(e.want.size(), 0.0);
  const bool exact = fill_ == Fill::kExact && (accuracy != Accuracy::kReduced || StaysExact(d, kMostTf32Integer));
  std::vector<double> scratch(reference::SeparableConv2dScratch(d, !exact));
  reference::SeparableConv2d(d, weights, tensors, scratch.data(), e.want.data(), exact ? nullptr : e.tolerance.data(),
                             accuracy == Accuracy::kReduced ? ToleranceOf<true> : ToleranceOf<false>);
  RoundTo(d.dtype, e);
  return {e};
}

}  // namespace lamina::harness
