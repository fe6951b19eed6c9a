#include "reference/separable_conv2d.h"

#include <cmath>

#include "reference/activation.h"
#include "reference/element.h"

namespace lamina::reference {
namespace {

// An image batch in double, [n, h, w, c] or [n, c, h, w]; tolerance null when none is wanted.
struct Map {
  int64_t n, h, w, c;
  bool nhwc;
  double* value;
  double* tolerance;
  int64_t count() const { return n * h * w * c; }
  int64_t at(int64_t in, int64_t ih, int64_t iw, int64_t ic) const {
    return nhwc ? ((in * h + ih) * w + iw) * c + ic : ((in * c + ic) * h + ih) * w + iw;
  }
};

// What ends a step.
struct Ending {
  const void* bias = nullptr;
  Activation activation;
  Residual residual = Residual::kNone;
  const void* data = nullptr;  // the residual's, image or pixel `stride` apart
  int64_t stride = 0;
  DType dtype = DType::kF32;
  StepTolerance tolerance = nullptr;
  DType kept = DType::kF32;
};

// One sum of products on its way.
struct Sum {
  double value = 0, magnitude = 0, carried = 0;
  void Add(double x, double tolerance, double w) {
    value += x * w;
    magnitude += std::fabs(x * w);
    carried += tolerance * std::fabs(w);
  }
};

// Bias, residual and activation; stores element (n, h, w, c) of y.
void End(Sum sum, bool pointwise, int64_t products, const Ending& end, const Map& y, int64_t n, int64_t h, int64_t w,
         int64_t c) {
  if (end.bias != nullptr) {
    const double bias = Load(end.bias, end.dtype, c);
    sum.value += bias;
    sum.magnitude += std::fabs(bias);
  }
  double residual = 0;
  if (end.residual != Residual::kNone) {
    const int64_t at = y.nhwc ? ((n * y.h + h) * y.w + w) * end.stride + c : n * end.stride + (c * y.h + h) * y.w + w;
    residual = Load(end.data, end.dtype, at);
    sum.magnitude += std::fabs(residual);
  }
  if (end.residual == Residual::kBeforeActivation) sum.value += residual;
  double value = Activate(end.activation, sum.value);
  if (end.residual == Residual::kAfterActivation) value += residual;
  const int64_t at = y.at(n, h, w, c);
  y.value[at] = value;
  if (y.tolerance != nullptr) {
    y.tolerance[at] =
        end.tolerance({pointwise, products + 2, end.activation, end.kept}, value, sum.magnitude, sum.carried);
  }
}

double ToleranceAt(const Map& x, int64_t at) { return x.tolerance == nullptr ? 0.0 : x.tolerance[at]; }

// y[p, o] = sum_c x[p, c] * w[o, c]
void Pointwise(const Map& x, const void* weights, const Ending& end, const Map& y) {
  for (int64_t n = 0; n < y.n; ++n) {
    for (int64_t h = 0; h < y.h; ++h) {
      for (int64_t w = 0; w < y.w; ++w) {
        for (int64_t o = 0; o < y.c; ++o) {
          Sum sum;
          for (int64_t c = 0; c < x.c; ++c) {
            const int64_t at = x.at(n, h, w, c);
            sum.Add(x.value[at], ToleranceAt(x, at), Load(weights, end.dtype, o * x.c + c));
          }
          End(sum, true, x.c, end, y, n, h, w, o);
        }
      }
    }
  }
}

// y[o, h * dm + j] = sum_{kh,kw} x[tap(o, kh, kw), h] * w[h * dm + j, kh, kw]
void Depthwise(const SeparableConv2dDesc& d, const Map& x, const void* weights, const Ending& end, const Map& y) {
  for (int64_t n = 0; n < y.n; ++n) {
    for (int64_t oh = 0; oh < y.h; ++oh) {
      for (int64_t ow = 0; ow < y.w; ++ow) {
        for (int64_t o = 0; o < y.c; ++o) {
          Sum sum;
          for (int64_t i = 0; i < d.kh; ++i) {
            const int64_t h = oh * d.stride_h - d.pad_top + i * d.dilation_h;
            if (h < 0 || h >= x.h) continue;
            for (int64_t j = 0; j < d.kw; ++j) {
              const int64_t w = ow * d.stride_w - d.pad_left + j * d.dilation_w;
              if (w < 0 || w >= x.w) continue;
              const int64_t at = x.at(n, h, w, o / d.depth_multiplier);
              sum.Add(x.value[at], ToleranceAt(x, at), Load(weights, end.dtype, (o * d.kh + i) * d.kw + j));
            }
          }
          End(sum, false, d.kh * d.kw, end, y, n, oh, ow, o);
        }
      }
    }
  }
}

}  // namespace

size_t SeparableConv2dScratch(const SeparableConv2dDesc& d, bool tolerances) {
  int64_t doubles = d.n * d.ih * d.iw * d.ic;
  if (d.has_expand()) doubles += d.n * d.ih * d.iw * d.depthwise_in();
  if (d.has_project()) doubles += d.n * d.oh() * d.ow() * d.depthwise_out();
  return static_cast<size_t>(doubles * (tolerances ? 2 : 1));
}

void SeparableConv2d(const SeparableConv2dDesc& d, const SeparableConv2dWeights& weights,
                     const SeparableConv2dTensors& tensors, double* scratch, double* value, double* tolerance,
                     StepTolerance step) {
  const bool nhwc = d.layout == Layout::kNhwc;
  const int64_t oh = d.oh(), ow = d.ow();
  const auto between = [&](int64_t h, int64_t w, int64_t c) {
    Map map{d.n, h, w, c, nhwc, scratch, nullptr};
    scratch += map.count();
    if (tolerance != nullptr) {
      map.tolerance = scratch;
      scratch += map.count();
    }
    return map;
  };
  const Map y{d.n, oh, ow, d.oc, nhwc, value, tolerance};
  const auto ending = [&](const void* bias, const Activation& activation, bool last) {
    Ending end{.bias = bias, .activation = activation, .dtype = d.dtype, .tolerance = step, .kept = d.dtype};
    if (last) {
      end.kept = DType::kF32;
      end.residual = d.residual;
      end.data = tensors.residual;
      end.stride = d.residual_stride ? d.residual_stride : nhwc ? d.oc : d.oc * oh * ow;
    }
    return end;
  };

  Map x = between(d.ih, d.iw, d.ic);
  const int64_t x_stride = d.x_stride ? d.x_stride : nhwc ? d.ic : d.ic * d.ih * d.iw;
  const int64_t rows = nhwc ? d.n * d.ih * d.iw : d.n, row = nhwc ? d.ic : d.ic * d.ih * d.iw;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < row; ++i) {
      x.value[r * row + i] = Load(tensors.x, d.dtype, r * x_stride + i);
      if (x.tolerance != nullptr) x.tolerance[r * row + i] = 0;
    }
  }
  if (d.has_expand()) {
    const Map expanded = between(d.ih, d.iw, d.depthwise_in());
    const void* bias = d.expand_bias ? weights.expand_bias : nullptr;
    Pointwise(x, weights.expand_w, ending(bias, d.expand_activation, false), expanded);
    x = expanded;
  }
  const Map depthwise = d.has_project() ? between(oh, ow, d.depthwise_out()) : y;
  const void* bias = d.depthwise_bias ? weights.depthwise_bias : nullptr;
  Depthwise(d, x, weights.depthwise_w, ending(bias, d.depthwise_activation, !d.has_project()), depthwise);
  if (d.has_project()) {
    const void* project_bias = d.project_bias ? weights.project_bias : nullptr;
    Pointwise(depthwise, weights.project_w, ending(project_bias, d.project_activation, true), y);
  }
}

}  // namespace lamina::reference
