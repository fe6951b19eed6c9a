// Activations in double.
#ifndef LAMINA_REFERENCE_ACTIVATION_H_
#define LAMINA_REFERENCE_ACTIVATION_H_

#include <cmath>

#include "lamina/types.h"

namespace lamina::reference {

inline double Clamp(double x, double lo, double hi) { return x < lo ? lo : x > hi ? hi : x; }  // NaN stays

inline double Activate(const Activation& a, double x) {
  const double alpha = a.alpha, beta = a.beta;
  switch (a.kind) {
    case ActivationKind::kNone: return x;
    case ActivationKind::kRelu: return Clamp(x, 0, INFINITY);
    case ActivationKind::kRelu6: return Clamp(x, 0, 6);
    case ActivationKind::kClamp: return Clamp(x, alpha, beta);
    case ActivationKind::kLeakyRelu: return x < 0 ? alpha * x : x;
    case ActivationKind::kHardswish: return x * Clamp(x + 3, 0, 6) / 6;
    case ActivationKind::kHardsigmoid: return Clamp(alpha * x + beta, 0, 1);
    case ActivationKind::kSigmoid: return 1 / (1 + std::exp(-x));
    case ActivationKind::kSilu: return x / (1 + std::exp(-x));
    case ActivationKind::kGeluErf: return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5)));
    case ActivationKind::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case ActivationKind::kTanh: return std::tanh(x);
    case ActivationKind::kElu: return x < 0 ? alpha * std::expm1(x) : x;
  }
  return x;
}

}  // namespace lamina::reference

#endif  // LAMINA_REFERENCE_ACTIVATION_H_
