#include "harness/compare.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "reference/element.h"

namespace lamina::harness {

Comparison Compare(const Expected& e) {
  Comparison result;
  for (int64_t r = 0; r < e.rows; ++r) {
    for (int64_t i = 0; i < e.row; ++i) {
      const int64_t at = r * e.row + i;
      const double want = e.want[at], tolerance = e.tolerance[at],
                   got = reference::Load(e.got, e.dtype, r * e.stride + i);
      double ratio = 0;
      bool ok = false;
      if (std::isnan(want)) {
        ok = std::isnan(got);
      } else if (std::isinf(want)) {
        ok = got == want;
      } else {
        const double error = std::fabs(got - want);
        ok = error <= tolerance;  // false for NaN
        ratio = error == 0 ? 0 : error / tolerance;
      }
      if (!ok) ratio = std::isfinite(ratio) && ratio > 1 ? ratio : INFINITY;
      result.worst = std::max(result.worst, ratio);
      if (ok) continue;
      if (result.ok) {
        char text[256];
        std::snprintf(text, sizeof(text), "%s[row %lld, %lld]: got %.9g, want %.9g, tolerance %.3g", e.name.c_str(),
                      static_cast<long long>(r), static_cast<long long>(i), got, want, tolerance);
        result.message = text;
      }
      result.ok = false;
      ++result.mismatches;
    }
  }
  if (!result.ok) {
    result.message += " (" + std::to_string(result.mismatches) + " of " + std::to_string(e.rows * e.row) + " elements)";
  }
  return result;
}

void RoundTo(DType dtype, Expected& e) {
  e.dtype = dtype;
  if (dtype == DType::kF32) return;
  for (size_t i = 0; i < e.want.size(); ++i) {
    double& want = e.want[i];
    if (e.tolerance[i] == 0) {
      uint16_t rounded;
      reference::Store(want, dtype, &rounded, 0);
      want = reference::Load(&rounded, dtype, 0);
    } else {
      e.tolerance[i] += RoundingTolerance(dtype, std::fabs(want) + e.tolerance[i]);
    }
  }
}

double RoundingTolerance(DType dtype, double magnitude) {
  if (dtype == DType::kF32) return 0;
  const double smallest = dtype == DType::kF16 ? 0x1p-25 : 0x1p-134;  // half the distance of subnormal neighbours
  return std::max(smallest, UnitRoundoff(dtype) * magnitude);
}

double DotTolerance(int64_t k, double magnitude) {
  return 4 * kUnitRoundoff * std::sqrt(static_cast<double>(std::max<int64_t>(k, 1))) * magnitude;
}

double ActivatedTolerance(const Activation& a, double value, double tolerance) {
  double slope = 1, own = 0;  // own: absolute rounding error of the activation's evaluation
  const double rounding = 4 * kUnitRoundoff;
  switch (a.kind) {
    case ActivationKind::kNone:
    case ActivationKind::kRelu:
    case ActivationKind::kRelu6:
    case ActivationKind::kClamp: break;
    case ActivationKind::kLeakyRelu:
      slope = std::max(1.0, std::fabs(double{a.alpha}));
      own = rounding * std::fabs(value);
      break;
    case ActivationKind::kHardswish:
      slope = 1.5;
      own = rounding * (std::fabs(value) + 1);
      break;
    case ActivationKind::kHardsigmoid:
      slope = std::max(1.0, std::fabs(double{a.alpha}));
      own = rounding * (1 + std::fabs(double{a.beta}));
      break;
    case ActivationKind::kElu: {
      const double alpha = std::fabs(double{a.alpha});
      slope = std::max(1.0, alpha);
      own = 2 * rounding * (std::fabs(value) + alpha);
      break;
    }
    default:
      slope = 1.2;
      own = 2 * rounding * (std::fabs(value) + 1);
      break;  // sigmoid, silu, gelu, tanh: |slope| <= 1.13
  }
  return slope * tolerance + own;
}

bool ExactActivation(const Activation& a) {
  switch (a.kind) {
    case ActivationKind::kNone:
    case ActivationKind::kRelu:
    case ActivationKind::kRelu6: return true;
    case ActivationKind::kClamp: return a.alpha == std::floor(a.alpha) && a.beta == std::floor(a.beta);
    default: return false;
  }
}

}  // namespace lamina::harness
