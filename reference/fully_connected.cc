#include "reference/fully_connected.h"

#include <cmath>

#include "reference/activation.h"
#include "reference/element.h"

namespace lamina::reference {

void FullyConnected(const FullyConnectedDesc& d, const FullyConnectedWeights& weights,
                    const FullyConnectedTensors& tensors, double* value, double* magnitude) {
  const int64_t x_stride = d.x_stride ? d.x_stride : d.ic, r_stride = d.residual_stride ? d.residual_stride : d.oc;
  const bool oi = d.weight_layout == MatrixLayout::kOi;
  for (int64_t r = 0; r < d.m; ++r) {
    for (int64_t o = 0; o < d.oc; ++o) {
      double sum = d.bias ? Load(weights.bias, d.dtype, o) : 0.0, abs_sum = std::fabs(sum);
      for (int64_t i = 0; i < d.ic; ++i) {
        const double term =
            Load(tensors.x, d.dtype, r * x_stride + i) * Load(weights.w, d.dtype, oi ? o * d.ic + i : i * d.oc + o);
        sum += term;
        abs_sum += std::fabs(term);
      }
      const double residual = d.residual == Residual::kNone ? 0.0 : Load(tensors.residual, d.dtype, r * r_stride + o);
      if (d.residual == Residual::kBeforeActivation) sum += residual;
      sum = Activate(d.activation, sum);
      if (d.residual == Residual::kAfterActivation) sum += residual;
      value[r * d.oc + o] = sum;
      if (magnitude != nullptr) magnitude[r * d.oc + o] = abs_sum + std::fabs(residual);
    }
  }
}

}  // namespace lamina::reference
