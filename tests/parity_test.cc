// The comparer must fail when it must: every test of the kernels rests on it.
#include "harness/parity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "harness/compare.h"

namespace lamina::harness {
namespace {

Comparison CompareOne(double want, float got, double tolerance) {
  return Compare({"y", &got, 1, 1, 1, {want}, {tolerance}});
}

TEST(Compare, TakesWhatIsWithinTheTolerance) {
  EXPECT_TRUE(CompareOne(1.0, 1.0f, 0.0).ok);
  EXPECT_TRUE(CompareOne(1.0, 1.5f, 0.5).ok);
  EXPECT_TRUE(CompareOne(-1.0, -1.5f, 0.5).ok);
}

TEST(Compare, RefusesWhatIsNot) {
  EXPECT_FALSE(CompareOne(1.0, 1.5f, 0.25).ok);
  EXPECT_FALSE(CompareOne(-10.0, -5000.0f, 1.0).ok);
  EXPECT_FALSE(CompareOne(1.0, std::nextafter(1.0f, 2.0f), 0.0).ok);
}

TEST(Compare, NeverTakesNanUnlessWanted) {
  EXPECT_FALSE(CompareOne(10.0, NAN, 1e30).ok);
  EXPECT_FALSE(CompareOne(0.0, NAN, INFINITY).ok);
  EXPECT_TRUE(CompareOne(NAN, NAN, 0.0).ok);
  EXPECT_FALSE(CompareOne(NAN, 1.0f, 1e30).ok);
}

TEST(Compare, NeverTakesATolerantNan) { EXPECT_FALSE(CompareOne(1.0, 1.5f, NAN).ok); }

TEST(Compare, InfinitiesMustBeEqual) {
  EXPECT_TRUE(CompareOne(INFINITY, INFINITY, 0.0).ok);
  EXPECT_FALSE(CompareOne(INFINITY, -INFINITY, INFINITY).ok);
  EXPECT_FALSE(CompareOne(INFINITY, 3e38f, INFINITY).ok);
  EXPECT_FALSE(CompareOne(1.0, INFINITY, 1e30).ok);
}

TEST(Compare, CountsMismatchesAndNamesTheFirst) {
  const float got[] = {1, 2,  99, 4,
                       5, 98, 98, 97};  // rows of 3, 4 apart: 99 is in row 0, 98 in row 1, [3] and [7] in gaps
  const Comparison c = Compare({"y", got, 2, 3, 4, {1, 2, 3, 5, 6, 7}, std::vector<double>(6, 0.5)});
  EXPECT_FALSE(c.ok);
  EXPECT_EQ(c.mismatches, 3);
  EXPECT_NE(c.message.find("y[row 0, 2]: got 99, want 3"), std::string::npos) << c.message;
}

TEST(Gaps, AWriteBetweenRowsIsSeen) {
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  float* y = store.Output(7);
  store.PoisonOutputs();
  const Expected e{"y", y, 2, 3, 4, {}, {}};
  EXPECT_EQ(CheckGaps(store, {&e, 1}), "");
  y[2] = 1;  // in a row
  EXPECT_EQ(CheckGaps(store, {&e, 1}), "");
  y[3] = 1;  // between rows
  EXPECT_NE(CheckGaps(store, {&e, 1}), "");
}

TEST(GuardedDeathTest, BothSidesAreGuarded) {
  const Guarded end(100, Guard::kEnd), begin(100, Guard::kBegin);
  EXPECT_DEATH(end.as<volatile char>()[100] = 1, "");
  EXPECT_DEATH(begin.as<volatile char>()[-1] = 1, "");
  Guarded input(100, Guard::kEnd);
  input.Protect();
  EXPECT_DEATH(input.as<volatile char>()[0] = 1, "");
}

TEST(Fill, ExactValuesAreNonzeroIntegersUpToFour) {
  TensorStore store(Fill::kExact, Guard::kEnd, 7);
  const float* x = store.Input(1000);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(x[i], std::floor(x[i]));
    EXPECT_NE(x[i], 0);
    EXPECT_LE(std::fabs(x[i]), 4);
  }
}

}  // namespace
}  // namespace lamina::harness
