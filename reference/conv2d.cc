#include "reference/conv2d.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "reference/activation.h"
#include "reference/element.h"

namespace lamina::reference {

namespace {

// Where elements lie.
struct Indices {
  explicit Indices(const Conv2dDesc& desc)
      : d(desc),
        oh(d.oh()),
        ow(d.ow()),
        ic_group(d.ic / d.groups),
        nhwc(d.layout == Layout::kNhwc),
        x_stride(d.x_stride ? d.x_stride
                 : nhwc     ? d.ic
                            : d.ic * d.ih * d.iw),
        residual_stride(d.residual_stride ? d.residual_stride : y_dense()) {}
  int64_t x(int64_t n, int64_t h, int64_t w, int64_t c) const {
    return nhwc ? ((n * d.ih + h) * d.iw + w) * x_stride + c : n * x_stride + (c * d.ih + h) * d.iw + w;
  }
  int64_t w(int64_t o, int64_t h, int64_t w, int64_t c) const {
    return d.weight_layout == WeightLayout::kOhwi ? ((o * d.kh + h) * d.kw + w) * ic_group + c
                                                  : ((o * ic_group + c) * d.kh + h) * d.kw + w;
  }
  int64_t y_dense() const { return nhwc ? d.oc : d.oc * oh * ow; }
  int64_t y(int64_t n, int64_t h, int64_t w, int64_t o, int64_t stride) const {
    return nhwc ? ((n * oh + h) * ow + w) * stride + o : n * stride + (o * oh + h) * ow + w;
  }
  const Conv2dDesc& d;
  int64_t oh, ow, ic_group;
  bool nhwc;
  int64_t x_stride, residual_stride;
};

}  // namespace

void Conv2d(const Conv2dDesc& d, const Conv2dWeights& weights, const Conv2dTensors& tensors, double* value,
            double* magnitude) {
  const Indices at(d);
  const int64_t oc_group = d.oc / d.groups;
  for (int64_t n = 0; n < d.n; ++n) {
    for (int64_t y = 0; y < at.oh; ++y) {
      for (int64_t x = 0; x < at.ow; ++x) {
        for (int64_t o = 0; o < d.oc; ++o) {
          const int64_t first = o / oc_group * at.ic_group;  // of the group's input channels
          double sum = d.bias ? Load(weights.bias, d.dtype, o) : 0.0, abs_sum = std::fabs(sum);
          for (int64_t i = 0; i < d.kh; ++i) {
            const int64_t h = y * d.stride_h - d.pad_top + i * d.dilation_h;
            if (h < 0 || h >= d.ih) continue;
            for (int64_t j = 0; j < d.kw; ++j) {
              const int64_t w = x * d.stride_w - d.pad_left + j * d.dilation_w;
              if (w < 0 || w >= d.iw) continue;
              for (int64_t c = 0; c < at.ic_group; ++c) {
                const double term =
                    Load(tensors.x, d.dtype, at.x(n, h, w, first + c)) * Load(weights.w, d.dtype, at.w(o, i, j, c));
                sum += term;
                abs_sum += std::fabs(term);
              }
            }
          }
          double residual = 0.0;
          if (d.residual != Residual::kNone) {
            residual = Load(tensors.residual, d.dtype, at.y(n, y, x, o, at.residual_stride));
          }
          abs_sum += std::fabs(residual);
          if (d.residual == Residual::kBeforeActivation) sum += residual;
          sum = Activate(d.activation, sum);
          if (d.residual == Residual::kAfterActivation) sum += residual;
          const int64_t element = at.y(n, y, x, o, at.y_dense());
          value[element] = sum;
          if (magnitude != nullptr) magnitude[element] = abs_sum;
        }
      }
    }
  }
}

void Conv2dMagnitudeWithin(const Conv2dDesc& d, const Conv2dWeights& weights, const Conv2dTensors& tensors,
                           int64_t reach, double* magnitude) {
  const Indices at(d);
  std::vector<double> taps(static_cast<size_t>(d.oc * d.ic)), most(static_cast<size_t>(d.ic));
  for (int64_t o = 0; o < d.oc; ++o) {
    for (int64_t c = 0; c < d.ic; ++c) {
      for (int64_t i = 0; i < d.kh * d.kw; ++i) {
        taps[static_cast<size_t>(o * d.ic + c)] += std::fabs(Load(weights.w, d.dtype, at.w(o, i / d.kw, i % d.kw, c)));
      }
    }
  }
  for (int64_t n = 0; n < d.n; ++n) {
    for (int64_t y = 0; y < at.oh; ++y) {
      for (int64_t x = 0; x < at.ow; ++x) {
        std::fill(most.begin(), most.end(), 0.0);
        const int64_t top = y * d.stride_h - d.pad_top, left = x * d.stride_w - d.pad_left;
        const int64_t bottom = top + (d.kh - 1) * d.dilation_h, right = left + (d.kw - 1) * d.dilation_w;
        for (int64_t h = std::max<int64_t>(0, top - reach); h <= std::min(d.ih - 1, bottom + reach); ++h) {
          for (int64_t w = std::max<int64_t>(0, left - reach); w <= std::min(d.iw - 1, right + reach); ++w) {
            for (int64_t c = 0; c < d.ic; ++c) {
              double& m = most[static_cast<size_t>(c)];
              m = std::max(m, std::fabs(Load(tensors.x, d.dtype, at.x(n, h, w, c))));
            }
          }
        }
        for (int64_t o = 0; o < d.oc; ++o) {
          double sum = d.bias ? std::fabs(Load(weights.bias, d.dtype, o)) : 0.0;
          for (int64_t c = 0; c < d.ic; ++c) {
            sum += most[static_cast<size_t>(c)] * taps[static_cast<size_t>(o * d.ic + c)];
          }
          if (d.residual != Residual::kNone) {
            sum += std::fabs(Load(tensors.residual, d.dtype, at.y(n, y, x, o, at.residual_stride)));
          }
          magnitude[at.y(n, y, x, o, at.y_dense())] = sum;
        }
      }
    }
  }
}

}  // namespace lamina::reference
