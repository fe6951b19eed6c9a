// Activations on every SIMD target against double, over the whole float range, in units of the last place.
#include "kernels/cpu/activation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "harness/guarded.h"
#include "reference/activation.h"

namespace lamina::cpu {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

// What one activation should give, and how far it may be off: ulps of the result, plus `quadratic` times x^2 of them.
struct Rule {
  Activation activation;
  double ulps;
  double quadratic = 0;
};
const Rule kRules[] = {
    {{ActivationKind::kNone}, 0},
    {{ActivationKind::kRelu}, 0},
    {{ActivationKind::kRelu6}, 0},
    {{ActivationKind::kClamp, -0.5f, 1.5f}, 0},
    {{ActivationKind::kLeakyRelu, 0.01f}, 0.5},
    {{ActivationKind::kHardswish}, 2.5},
    {{ActivationKind::kHardsigmoid, 0.2f, 0.5f}, 0},  // its rounding is relative to 1: see Tolerance
    {{ActivationKind::kSigmoid}, 4},
    {{ActivationKind::kSilu}, 5},
    {{ActivationKind::kGeluErf}, 6, 0.5},
    {{ActivationKind::kGeluTanh}, 6, 2},  // the exponent, 1.6 x + 0.07 x^3, is rounded before the exponential
    {{ActivationKind::kTanh}, 4},
    {{ActivationKind::kElu, 1.5f}, 4},
};

double UnitInTheLastPlace(double value) {
  const auto f = static_cast<float>(std::fabs(value));
  if (!(f < kInf)) return std::ldexp(1.0, 104);
  return static_cast<double>(std::nextafter(f, kInf)) - f;
}

// The reference's formulas in double, those that cancel in the left tail written so that they do not.
double Want(const Activation& a, double x) {
  switch (a.kind) {
    case ActivationKind::kGeluErf: return x * 0.5 * std::erfc(-x * std::sqrt(0.5));
    case ActivationKind::kGeluTanh:
      return x / (1 + std::exp(-2 * std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    default: return reference::Activate(a, x);
  }
}

double Tolerance(const Rule& rule, double x, double want) {
  double tolerance = (rule.ulps + rule.quadratic * x * x) * UnitInTheLastPlace(want);
  if (rule.activation.kind == ActivationKind::kHardsigmoid) tolerance += 2 * UnitInTheLastPlace(0.5);
  if (rule.activation.kind == ActivationKind::kHardswish) tolerance += std::fabs(x) * UnitInTheLastPlace(1.0);
  // x times a denormal factor: its relative accuracy is gone.
  tolerance += std::max(1.0, std::fabs(x)) * 0x1p-149;
  return tolerance;
}

// 2^20 floats spread evenly over all bit patterns, and every float that is a limit of something.
std::vector<float> Inputs() {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 4099)
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (float f = -110; f < 100; f += 0.00390625f) x.push_back(f);
  for (float f : {0.0f,   -0.0f,   kInf,     -kInf,  kNan,   1e5f,   -1e5f, 3.4e38f, -3.4e38f, 1e-45f, -1e-45f,
                  1e-38f, -104.0f, -103.98f, 88.72f, 88.73f, -87.5f, 9.01f, 10.0f,   -3.0f,    3.0f,   6.0f}) {
    x.push_back(f);
  }
  return x;
}

TEST(Activation, WholeRange) {
  const std::vector<float> x = Inputs();
  for (const Rule& rule : kRules) {
    std::vector<double> want(x.size());
    for (size_t i = 0; i < x.size(); ++i) want[i] = Want(rule.activation, x[i]);
    for (Isa isa : SupportedIsas()) {
      std::vector<float> y = x;
      GetActivate(isa)(rule.activation, y.data(), nullptr, y.size());
      int shown = 0;
      double worst = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const auto rounded = static_cast<float>(want[i]);
        double error = std::fabs(y[i] - want[i]), tolerance = Tolerance(rule, x[i], want[i]);
        if (!std::isfinite(rounded) || !std::isfinite(x[i])) {
          error = std::isnan(rounded) ? (std::isnan(y[i]) ? 0 : kInf) : (y[i] == rounded ? 0 : kInf);
          tolerance = 0;
        }
        worst = std::max(worst, error == 0 ? 0 : error / tolerance);
        if (!(error <= tolerance) && ++shown <= 5) {
          ADD_FAILURE() << ToString(isa) << " activation " << static_cast<int>(rule.activation.kind) << " of " << x[i]
                        << " gives " << y[i] << ", want " << want[i] << ", " << error / UnitInTheLastPlace(want[i])
                        << " ulp";
        }
      }
      RecordProperty(
          "worst_" + std::to_string(static_cast<int>(rule.activation.kind)) + "_" + std::string(ToString(isa)),
          std::to_string(worst));
    }
  }
}

TEST(Activation, ExactValues) {
  for (Isa isa : SupportedIsas()) {
    const auto value = [&](ActivationKind kind, float x) {
      GetActivate(isa)({kind, 1.0f, 0.0f}, &x, nullptr, 1);
      return x;
    };
    EXPECT_EQ(value(ActivationKind::kSigmoid, 0), 0.5f);
    EXPECT_EQ(value(ActivationKind::kSigmoid, 100), 1.0f);
    EXPECT_EQ(value(ActivationKind::kSigmoid, -kInf), 0.0f);
    EXPECT_EQ(value(ActivationKind::kTanh, 0), 0.0f);
    EXPECT_EQ(value(ActivationKind::kTanh, -kInf), -1.0f);
    EXPECT_EQ(value(ActivationKind::kTanh, 20), 1.0f);
    EXPECT_EQ(value(ActivationKind::kSilu, -1e5f), 0.0f);
    EXPECT_EQ(value(ActivationKind::kSilu, 3e38f), 3e38f);
    EXPECT_EQ(value(ActivationKind::kHardswish, 3e38f), 3e38f);
    EXPECT_EQ(value(ActivationKind::kGeluErf, -3e38f), 0.0f);
    EXPECT_EQ(value(ActivationKind::kGeluErf, 3e38f), 3e38f);
    EXPECT_EQ(value(ActivationKind::kGeluTanh, 1e30f), 1e30f);
    EXPECT_EQ(value(ActivationKind::kElu, -kInf), -1.0f);
    EXPECT_EQ(value(ActivationKind::kElu, kInf), kInf);
  }
}

TEST(Activation, AnyLengthAndAResidual) {
  for (Isa isa : SupportedIsas()) {
    for (const Rule& rule : kRules) {
      for (size_t n = 0; n <= 70; ++n) {
        const harness::Guarded x(n * sizeof(float), harness::Guard::kEnd), r(n * sizeof(float), harness::Guard::kEnd);
        std::vector<float> alone(n);
        for (size_t i = 0; i < n; ++i) {
          x.as<float>()[i] = alone[i] = 0.1f * static_cast<float>(i) - 3;
          r.as<float>()[i] = static_cast<float>(i);
        }
        for (float& v : alone) GetActivate(isa)(rule.activation, &v, nullptr, 1);
        GetActivate(isa)(rule.activation, x.as<float>(), r.as<float>(), n);
        for (size_t i = 0; i < n; ++i) ASSERT_EQ(x.as<float>()[i], alone[i] + static_cast<float>(i)) << "n " << n;
      }
    }
  }
}

}  // namespace
}  // namespace lamina::cpu
