#include "reference/conv2d.h"

#include <cmath>

#include "reference/activation.h"
#include "reference/element.h"

namespace lamina::reference {

void Conv2d(const Conv2dDesc& d, const Conv2dWeights& weights, const Conv2dTensors& tensors, double* value,
            double* magnitude) {
  const int64_t oh = d.oh(), ow = d.ow(), ic_group = d.ic / d.groups, oc_group = d.oc / d.groups;
  const bool nhwc = d.layout == Layout::kNhwc, ohwi = d.weight_layout == WeightLayout::kOhwi;
  const int64_t x_stride = d.x_stride ? d.x_stride : nhwc ? d.ic : d.ic * d.ih * d.iw;
  const int64_t r_stride = d.residual_stride ? d.residual_stride : nhwc ? d.oc : d.oc * oh * ow;
  const auto x_index = [&](int64_t n, int64_t h, int64_t w, int64_t c) {
    return nhwc ? ((n * d.ih + h) * d.iw + w) * x_stride + c : n * x_stride + (c * d.ih + h) * d.iw + w;
  };
  const auto w_index = [&](int64_t o, int64_t h, int64_t w, int64_t c) {
    return ohwi ? ((o * d.kh + h) * d.kw + w) * ic_group + c : ((o * ic_group + c) * d.kh + h) * d.kw + w;
  };
  // y and residual: dense (stride 0) or with the residual's own stride.
  const auto y_index = [&](int64_t n, int64_t h, int64_t w, int64_t o, int64_t stride) {
    return nhwc ? ((n * oh + h) * ow + w) * stride + o : n * stride + (o * oh + h) * ow + w;
  };
  const int64_t y_dense = nhwc ? d.oc : d.oc * oh * ow;

  for (int64_t n = 0; n < d.n; ++n) {
    for (int64_t y = 0; y < oh; ++y) {
      for (int64_t x = 0; x < ow; ++x) {
        for (int64_t o = 0; o < d.oc; ++o) {
          const int64_t first = o / oc_group * ic_group;  // of the group's input channels
          double sum = d.bias ? Load(weights.bias, d.dtype, o) : 0.0, abs_sum = std::fabs(sum);
          for (int64_t i = 0; i < d.kh; ++i) {
            const int64_t h = y * d.stride_h - d.pad_top + i * d.dilation_h;
            if (h < 0 || h >= d.ih) continue;
            for (int64_t j = 0; j < d.kw; ++j) {
              const int64_t w = x * d.stride_w - d.pad_left + j * d.dilation_w;
              if (w < 0 || w >= d.iw) continue;
              for (int64_t c = 0; c < ic_group; ++c) {
                const double term = Load(tensors.x, d.dtype, x_index(n, h, w, first + c)) *
                                    Load(weights.w, d.dtype, w_index(o, i, j, c));
                sum += term;
                abs_sum += std::fabs(term);
              }
            }
          }
          double residual = 0.0;
          if (d.residual != Residual::kNone) residual = Load(tensors.residual, d.dtype, y_index(n, y, x, o, r_stride));
          abs_sum += std::fabs(residual);
          if (d.residual == Residual::kBeforeActivation) sum += residual;
          sum = Activate(d.activation, sum);
          if (d.residual == Residual::kAfterActivation) sum += residual;
          const int64_t at = y_index(n, y, x, o, y_dense);
          value[at] = sum;
          if (magnitude != nullptr) magnitude[at] = abs_sum;
        }
      }
    }
  }
}

}  // namespace lamina::reference
