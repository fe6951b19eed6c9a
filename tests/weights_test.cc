// Batch norms folded into weights, layouts converted, and what both refuse.
#include "lamina/weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

namespace lamina {
namespace {

TEST(FoldBatchNorm, GivesTheSameOutputs) {
  // Two filters of three weights on one input: bn(w x + b) and w' x + b' to a few roundings.
  const std::vector<float> w = {1, -2, 0.5f, 3, 4, -1}, bias = {0.25f, -1}, x = {2, -3, 5};
  const std::vector<float> gamma = {1.5f, -0.5f}, beta = {0.1f, 2}, mean = {0.75f, -2}, variance = {4, 0.25f};
  const BatchNorm norm = {gamma.data(), beta.data(), mean.data(), variance.data(), 1e-3};
  std::vector<float> folded_w(6), folded_bias(2);
  ASSERT_TRUE(FoldBatchNorm(2, 3, w.data(), bias.data(), norm, folded_w.data(), folded_bias.data()).ok());
  for (int o = 0; o < 2; ++o) {
    double z = bias[o], folded = folded_bias[o];
    for (int i = 0; i < 3; ++i) {
      z += double{w[o * 3 + i]} * x[i];
      folded += double{folded_w[o * 3 + i]} * x[i];
    }
    const double want = gamma[o] * (z - mean[o]) / std::sqrt(variance[o] + 1e-3) + beta[o];
    EXPECT_NEAR(folded, want, 1e-5);
  }
}

TEST(FoldBatchNorm, DefaultsAndInPlaceAndTheOtherLayout) {
  std::vector<float> w = {1, 2, 3, 4, 5, 6}, bias = {0, 0};
  const std::vector<float> mean = {1, 2}, variance = {4, 16};
  const BatchNorm norm = {.mean = mean.data(), .variance = variance.data(), .epsilon = 0};
  std::vector<float> io = {1, 4, 2, 5, 3, 6}, io_bias(2);  // [3, 2]
  ASSERT_TRUE(FoldBatchNorm(2, 3, io.data(), nullptr, norm, io.data(), io_bias.data(), MatrixLayout::kIo).ok());
  ASSERT_TRUE(FoldBatchNorm(2, 3, w.data(), bias.data(), norm, w.data(), bias.data()).ok());
  EXPECT_EQ(w, (std::vector<float>{0.5f, 1, 1.5f, 1, 1.25f, 1.5f}));
  EXPECT_EQ(bias, (std::vector<float>{-0.5f, -0.5f}));
  EXPECT_EQ(io, (std::vector<float>{0.5f, 1, 1, 1.25f, 1.5f, 1.5f}));
  EXPECT_EQ(io_bias, bias);
}

TEST(FoldBatchNorm, RefusesWithTheReason) {
  float w[4] = {}, bias[2] = {};
  const float one[2] = {1, 1}, negative[2] = {1, -1};
  const BatchNorm good = {.mean = one, .variance = one};
  const auto refusal = [&](int64_t oc, int64_t count, const float* weights, const BatchNorm& norm, float* folded,
                           MatrixLayout layout = MatrixLayout::kOi) {
    const Status s = FoldBatchNorm(oc, count, weights, nullptr, norm, folded, bias, layout);
    EXPECT_EQ(s.code(), s.ok() ? StatusCode::kOk : StatusCode::kInvalidArgument);
    return s.message();
  };
  EXPECT_EQ(refusal(2, 2, w, good, w), "");
  EXPECT_EQ(refusal(0, 2, w, good, w),
            "fold_batch_norm: oc and count must be at least 1 and their product a size, got oc=0 count=2");
  EXPECT_EQ(refusal(int64_t{1} << 40, int64_t{1} << 40, w, good, w),
            "fold_batch_norm: oc and count must be at least 1 and their product a size, "
            "got oc=1099511627776 count=1099511627776");
  EXPECT_EQ(refusal(2, 2, nullptr, good, w), "fold_batch_norm: w, folded_w and folded_bias must not be null");
  EXPECT_EQ(refusal(2, 2, w, good, nullptr), "fold_batch_norm: w, folded_w and folded_bias must not be null");
  EXPECT_EQ(refusal(2, 2, w, {.mean = one}, w), "fold_batch_norm: mean and variance must not be null");
  EXPECT_EQ(refusal(2, 2, w, {.mean = one, .variance = one, .epsilon = -1}, w),
            "fold_batch_norm: epsilon must be a number not below 0, got epsilon=-1.000000");
  EXPECT_EQ(refusal(2, 2, w, {.mean = one, .variance = one, .epsilon = NAN}, w).substr(0, 66),
            "fold_batch_norm: epsilon must be a number not below 0, got epsilon");
  EXPECT_EQ(refusal(2, 2, w, {.mean = one, .variance = negative}, w),
            "fold_batch_norm: variance + epsilon must be above 0, got variance[1]=-1 epsilon=0.000010");
  EXPECT_EQ(refusal(2, 2, w, good, w, static_cast<MatrixLayout>(7)),
            "fold_batch_norm: layout must be a member of MatrixLayout, got layout=7");
}

template <class T>
std::vector<T> Counting(int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), T{1});
  return values;
}

// Every element is where its indices say, and the way back gives the original.
template <class T>
void CheckImage(int64_t n, int64_t c, int64_t h, int64_t w, DType dtype) {
  const std::vector<T> nhwc = Counting<T>(n * c * h * w);
  std::vector<T> nchw(nhwc.size()), back(nhwc.size());
  ASSERT_TRUE(ConvertImage(n, c, h, w, dtype, Layout::kNhwc, nhwc.data(), nchw.data()).ok());
  for (int64_t b = 0; b < n; ++b) {
    for (int64_t p = 0; p < h * w; ++p) {
      for (int64_t i = 0; i < c; ++i) ASSERT_EQ(nchw[(b * c + i) * h * w + p], nhwc[(b * h * w + p) * c + i]);
    }
  }
  ASSERT_TRUE(ConvertImage(n, c, h, w, dtype, Layout::kNchw, nchw.data(), back.data()).ok());
  EXPECT_EQ(back, nhwc);
}

TEST(ConvertImage, MovesEveryElement) {
  for (int64_t c : {1, 3, 4, 15, 16, 33}) {
    for (int64_t w : {1, 3, 5, 16, 17}) {
      CheckImage<float>(2, c, 3, w, DType::kF32);
      CheckImage<uint16_t>(2, c, 3, w, DType::kBf16);
    }
  }
  CheckImage<float>(0, 3, 4, 5, DType::kF32);
}

TEST(ConvertWeights, MovesEveryElementAndBack) {
  const std::vector<float> ohwi = Counting<float>(5 * 2 * 3 * 7);
  std::vector<float> oihw(ohwi.size()), back(ohwi.size());
  ASSERT_TRUE(ConvertWeights(5, 7, 2, 3, DType::kF32, WeightLayout::kOhwi, ohwi.data(), oihw.data()).ok());
  for (int o = 0; o < 5; ++o) {
    for (int q = 0; q < 6; ++q) {
      for (int i = 0; i < 7; ++i) ASSERT_EQ(oihw[(o * 7 + i) * 6 + q], ohwi[(o * 6 + q) * 7 + i]);
    }
  }
  ASSERT_TRUE(ConvertWeights(5, 7, 2, 3, DType::kF32, WeightLayout::kOihw, oihw.data(), back.data()).ok());
  EXPECT_EQ(back, ohwi);
}

TEST(Convert, RefusesWithTheReason) {
  float x[4] = {}, y[4] = {};
  const auto image = [&](int64_t n, int64_t c, const void* src, void* dst, DType dtype = DType::kF32, int layout = 0) {
    return ConvertImage(n, c, 1, 1, dtype, static_cast<Layout>(layout), src, dst).message();
  };
  EXPECT_EQ(image(1, 4, x, y), "");
  EXPECT_EQ(image(-1, 4, x, y),
            "convert_image: sizes must not be negative and their product be a size, got n=-1 c=4 h=1 w=1");
  EXPECT_EQ(image(int64_t{1} << 40, int64_t{1} << 40, x, y),
            "convert_image: sizes must not be negative and their product be a size, "
            "got n=1099511627776 c=1099511627776 h=1 w=1");
  EXPECT_EQ(image(1, 4, nullptr, y), "convert_image: src must not be null");
  EXPECT_EQ(image(1, 4, x, nullptr), "convert_image: dst must not be null");
  EXPECT_EQ(image(1, 4, x, y, static_cast<DType>(9)),
            "convert_image: dtype and from must hold members of their enums, got dtype=9 from=0");
  EXPECT_EQ(image(1, 4, x, y, DType::kF32, 2),
            "convert_image: dtype and from must hold members of their enums, got dtype=0 from=2");
  const auto weights = [&](int64_t oc, const void* src, void* dst, int layout) {
    return ConvertWeights(oc, 2, 2, 1, DType::kF32, static_cast<WeightLayout>(layout), src, dst).message();
  };
  EXPECT_EQ(weights(1, x, y, 0), "");
  EXPECT_EQ(weights(-2, x, y, 0),
            "convert_weights: sizes must not be negative and their product be a size, got oc=-2 ic=2 kh=2 kw=1");
  EXPECT_EQ(weights(1, nullptr, y, 0), "convert_weights: src must not be null");
  EXPECT_EQ(weights(1, x, y, 5),
            "convert_weights: dtype and from must hold members of their enums, got dtype=0 from=5");
}

}  // namespace
}  // namespace lamina
