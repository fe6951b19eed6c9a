// exp and its relatives in vectors, on every SIMD target, against double over the range that each one states.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/math_test.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/exp2-inl.h"
#include "kernels/cpu/math-inl.h"

#ifndef LAMINA_TESTS_MATH_TEST_CC_
#define LAMINA_TESTS_MATH_TEST_CC_
namespace lamina::cpu {
struct MathFunctions {
  float (*exp)(float);
  float (*exp_normal)(float);
  float (*expm1)(float);
  float (*exp2)(float);
};
}  // namespace lamina::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

float ScalarExp(float x) { return hn::GetLane(Exp(hn::Set(D(), x))); }
float ScalarExpNormal(float x) { return hn::GetLane(ExpNormal(hn::Set(D(), x))); }
float ScalarExpm1(float x) { return hn::GetLane(Expm1(hn::Set(D(), x))); }
float ScalarExp2(float x) { return hn::GetLane(Exp2(D(), hn::Set(D(), x))); }
const MathFunctions* ChooseMath() {
  static constexpr MathFunctions kFunctions = {&ScalarExp, &ScalarExpNormal, &ScalarExpm1, &ScalarExp2};
  return &kFunctions;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {

HWY_EXPORT(ChooseMath);

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

double Ulps(float got, double want) {
  const auto f = static_cast<float>(std::fabs(want));
  return std::fabs(got - want) / (static_cast<double>(std::nextafter(f, kInf)) - f);
}

TEST(Math, ExpIsWithinItsBounds) {
  for (Isa isa : SupportedIsas()) {
    const MathFunctions& math = *LAMINA_DISPATCH(ChooseMath, isa)();
    double exp = 0, exp_normal = 0, expm1 = 0, expm1_small = 0;
    for (float x = -103.9f; x < 88.72f; x += 0x1.8p-10f) exp = std::max(exp, Ulps(math.exp(x), std::exp(double{x})));
    for (float x = -87; x <= 88; x += 0x1.8p-10f) {
      exp_normal = std::max(exp_normal, Ulps(math.exp_normal(x), std::exp(double{x})));
      expm1 = std::max(expm1, Ulps(math.expm1(x), std::expm1(double{x})));
    }
    for (float x = 1e-38f; x < 1; x *= 1.001f) {
      expm1_small = std::max(expm1_small, Ulps(math.expm1(x), std::expm1(double{x})));
      expm1_small = std::max(expm1_small, Ulps(math.expm1(-x), std::expm1(double{-x})));
    }
    EXPECT_LE(exp, 1.5) << ToString(isa);
    EXPECT_LE(exp_normal, 1.5) << ToString(isa);
    EXPECT_LE(expm1, 3) << ToString(isa);
    EXPECT_LE(expm1_small, 3) << ToString(isa);
  }
}

TEST(Math, ExpAtItsLimits) {
  for (Isa isa : SupportedIsas()) {
    const MathFunctions& math = *LAMINA_DISPATCH(ChooseMath, isa)();
    EXPECT_EQ(math.exp(0), 1.0f);
    EXPECT_EQ(math.exp(-0.0f), 1.0f);
    EXPECT_EQ(math.exp_normal(0), 1.0f);
    EXPECT_EQ(math.expm1(0), 0.0f);
    EXPECT_EQ(math.exp(-kInf), 0.0f);
    EXPECT_EQ(math.exp(-3e38f), 0.0f);
    EXPECT_EQ(math.exp(-104), 0.0f);
    EXPECT_GT(math.exp(-103), 0.0f);  // denormal
    EXPECT_EQ(math.exp(89), kInf);
    EXPECT_EQ(math.exp(3e38f), kInf);
    EXPECT_EQ(math.exp(kInf), kInf);
    EXPECT_TRUE(std::isnan(math.exp(kNan)));
    EXPECT_TRUE(std::isnan(math.exp_normal(kNan)));
    EXPECT_TRUE(std::isnan(math.expm1(kNan)));
    EXPECT_EQ(math.expm1(-kInf), -1.0f);
  }
}

TEST(Math, Exp2OfASoftmax) {
  for (Isa isa : SupportedIsas()) {
    const MathFunctions& math = *LAMINA_DISPATCH(ChooseMath, isa)();
    double exp2 = 0;
    for (float x = -125.5f; x <= 0; x += 0x1.8p-12f) exp2 = std::max(exp2, Ulps(math.exp2(x), std::exp2(double{x})));
    EXPECT_LE(exp2, 2.1) << ToString(isa);
    EXPECT_EQ(math.exp2(0), 1.0f);
    EXPECT_EQ(math.exp2(-0x1p-30f), 1.0f);
    EXPECT_EQ(math.exp2(std::nextafter(-125.5f, -kInf)), 0.0f);  // no denormals
    EXPECT_EQ(math.exp2(-kInf), 0.0f);
    EXPECT_TRUE(std::isnan(math.exp2(kNan)));
  }
}

TEST(Math, NanWithAnyPayloadStaysNan) {  // its low bits must not be taken for an exponent
  for (Isa isa : SupportedIsas()) {
    const MathFunctions& math = *LAMINA_DISPATCH(ChooseMath, isa)();
    for (uint32_t bits : {0x7fc00001u, 0x7fc0de5au, 0x7fffffffu, 0xffc00081u}) {
      const auto nan = std::bit_cast<float>(bits);
      for (auto function : {math.exp, math.exp_normal, math.expm1, math.exp2}) EXPECT_TRUE(std::isnan(function(nan)));
    }
  }
}

}  // namespace
}  // namespace lamina::cpu
#endif
