// What additive attention must do whatever the implementation: scores over the whole range, masks and NaN, and
// properties that tie two problems to each other.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "lamina/additive_attention.h"
#include "tests/additive_attention_problem.h"

namespace lamina {
namespace {

using Desc = AdditiveAttentionDesc;
using Problem = AdditiveAttentionProblem;
using harness::Fill;
using harness::Guard;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Projections that are exact (one-hot weights), so that what is left is the evaluation of the scores alone: a and b
// uniform in [-range_a, range_a] and [-range_b, range_b], or b near -a; a quarter of v times `tiny`.
// Returns the greatest error of ln(weight) in units of u * sum|v|.
double ScoreError(const Context& context, float range_a, float range_b, bool opposed, float tiny) {
  constexpr int64_t kUnits = 128, kKeys = 24, kQueries = 3;
  Problem p({.queries = kQueries, .keys = kKeys, .query_dim = kUnits, .key_dim = kUnits, .units = kUnits});
  std::fill(p.query_w.begin(), p.query_w.end(), 0.0f);
  for (int64_t u = 0; u < kUnits; ++u) p.query_w[static_cast<size_t>(u * kUnits + u)] = 1;
  p.key_w = p.query_w;
  harness::TensorStore random(Fill::kNormal, Guard::kEnd, 3);
  const auto uniform = [&](float range) {
    return static_cast<float>(range * (static_cast<double>(random.Random() >> 11) * 0x1p-52 - 1));
  };
  for (float& a : p.query) a = uniform(range_a);
  for (size_t n = 0; n < p.keys.size(); ++n) {
    p.keys[n] = uniform(range_b);
    if (opposed) p.keys[n] = std::clamp(-p.query[n % kUnits] + uniform(2), -range_b, range_b);
  }
  double sum_v = 0;
  for (size_t u = 0; u < kUnits; ++u) {
    if (u % 4 == 1) p.v[u] *= tiny;
    sum_v += std::fabs(double{p.v[u]});
  }
  p.Run(context);
  double worst = 0;
  for (int64_t i = 0; i < kQueries; ++i) {
    std::vector<double> score(kKeys), off(kKeys);
    for (int64_t j = 0; j < kKeys; ++j) {
      for (int64_t u = 0; u < kUnits; ++u) {
        score[j] += double{p.v[u]} * std::tanh(double{p.query[i * kUnits + u]} + double{p.keys[j * kUnits + u]});
      }
    }
    const double most = *std::max_element(score.begin(), score.end());
    double sum = 0;
    for (double s : score) sum += std::exp(s - most);
    for (int64_t j = 0; j < kKeys; ++j) {
      const double want = std::exp(score[j] - most) / sum;
      if (want < 0x1p-100) continue;
      const double error = std::fabs(std::log(double{p.weight(i, j)} / want));  // NaN fails below
      if (!(error <= worst)) worst = error;
    }
  }
  return worst / (sum_v * harness::kUnitRoundoff);
}

TEST(AdditiveAttentionRange, ScoresAreAsGoodAsGoodTanhsWhateverTheRange) {
  ForEachAdditiveAttention([](const Context& context) {
    double worst = 0;
    for (float range : {0.5f, 2.0f, 5.0f, 8.0f, 12.0f, 20.0f, 30.0f, 34.0f, 36.0f, 43.0f, 50.0f, 1000.0f}) {
      for (float range_b : {range, 0.5f, 34.0f}) {
        for (bool opposed : {false, true}) {
          for (float tiny : {1.0f, 0x1p-20f, 0x1p-40f, 0.0f}) {
            const double error = ScoreError(context, range, range_b, opposed, tiny);
            // The weights' own rounding, 4 u sqrt(keys) + 8 u and u |s_j - max| on top of 3 u sum|v|: sum|v| is
            // about 18.
            EXPECT_LT(error, 4.0) << ToString(context.isa) << "/" << context.implementation << " |a| <= " << range
                                  << " |b| <= " << range_b << " opposed " << opposed << " tiny " << tiny;
            worst = std::max(worst, error);
          }
        }
      }
    }
    RecordProperty(std::string(ToString(context.isa)) + "_" + context.implementation, std::to_string(worst));
    std::printf("[ measured ] %s/%s: ln(weight) within %.2f u sum|v|\n", std::string(ToString(context.isa)).c_str(),
                context.implementation.c_str(), worst);
  });
}

TEST(AdditiveAttentionRange, HugeProjectionsMeetTheBound) {
  ForEachAdditiveAttention([](const Context& context) {
    for (float scale : {10.0f, 100.0f, 1e6f, 1e30f}) {
      Problem p({.batch = 2, .queries = 3, .keys = 9, .query_dim = 5, .key_dim = 7, .units = 70, .bias = true});
      for (float& q : p.query) q *= scale;
      p.Check(context);
      for (size_t n = 0; n < p.keys.size(); n += 3) p.keys[n] *= scale;
      p.Check(context);
    }
  });
}

TEST(AdditiveAttentionRange, SomeFarKeysAmongNearOnes) {
  ForEachAdditiveAttention([](const Context& context) {
    Problem p({.queries = 4, .keys = 13, .query_dim = 6, .key_dim = 8, .units = 33, .value_dim = 5});
    for (int64_t j : {0, 5, 6, 12}) {
      for (int64_t c = 0; c < p.d.key_dim; ++c) p.keys[static_cast<size_t>(j * p.d.key_dim + c)] *= 60;
    }
    p.Check(context);
  });
}

TEST(AdditiveAttentionRange, ZeroVectorAndSingleNonzero) {
  ForEachAdditiveAttention([](const Context& context) {
    Problem p({.queries = 2, .keys = 8, .query_dim = 3, .key_dim = 4, .units = 50});
    std::fill(p.v.begin(), p.v.end(), 0.0f);
    p.Run(context);
    for (float w : p.attention) EXPECT_EQ(w, 0.125f);
    p.v[37] = 1.5f;
    p.Check(context);
    p.v[2] = 1e-30f;
    p.Check(context);
    p.v[3] = -1e30f;  // a weight of 1 or 0
    p.Check(context);
  });
}

// --- Masks, lengths and NaN
// -------------------------------------------------------------------------------------------

TEST(AdditiveAttentionMasks, RowsWithoutAKeyAreZero) {
  ForEachAdditiveAttention([](const Context& context) {
    Problem p({.batch = 2,
               .queries = 2,
               .keys = 3,
               .query_dim = 2,
               .key_dim = 4,
               .units = 5,
               .mask = true,
               .mask_queries = 2});
    p.lengths = {3, 0};
    p.mask = {0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1};
    std::fill(p.context.begin(), p.context.end(), kNan);
    std::fill(p.attention.begin(), p.attention.end(), kNan);
    p.Run(context);
    for (int64_t row : {0, 2, 3}) {
      for (int64_t c = 0; c < 4; ++c) EXPECT_EQ(p.out(row, c), 0.0f);
      for (int64_t j = 0; j < 3; ++j) EXPECT_EQ(p.weight(row, j), 0.0f);
    }
    EXPECT_EQ(p.weight(1, 1), 0.0f);
    EXPECT_NEAR(p.weight(1, 0) + p.weight(1, 2), 1.0f, 1e-6f);
  });
}

TEST(AdditiveAttentionMasks, NanOfAMaskedKeyStaysOutOfTheQueriesThatMaskIt) {
  ForEachAdditiveAttention([](const Context& context) {
    for (float poison : {kNan, -std::numeric_limits<float>::infinity(), 3e38f}) {
      Problem p({.queries = 3,
                 .keys = 6,
                 .query_dim = 3,
                 .key_dim = 5,
                 .units = 20,
                 .value_dim = 7,
                 .mask = true,
                 .mask_queries = 3});
      for (int64_t i : {0, 2}) p.mask[static_cast<size_t>(i * 6 + 4)] = 0;  // query 1 sees key 4
      Problem clean(p.d);
      clean.mask = p.mask;
      clean.Run(context);
      for (int64_t c = 0; c < 5; ++c) p.keys[static_cast<size_t>(4 * 5 + c)] = poison;
      for (int64_t c = 0; c < 7; ++c) p.values[static_cast<size_t>(4 * 7 + c)] = kNan;
      p.Run(context);
      for (int64_t i : {0, 2}) {  // the same bits as without the poison
        for (int64_t c = 0; c < 7; ++c) EXPECT_EQ(p.out(i, c), clean.out(i, c));
        for (int64_t j = 0; j < 6; ++j) EXPECT_EQ(p.weight(i, j), clean.weight(i, j));
      }
      for (int64_t c = 0; c < 7; ++c) EXPECT_TRUE(std::isnan(p.out(1, c)));
    }
  });
}

TEST(AdditiveAttentionMasks, LiveNanPropagates) {
  uint32_t payload_bits = 0x7fc0de5a;  // its low bits must not be taken for an exponent
  float payload;
  std::memcpy(&payload, &payload_bits, sizeof(payload));
  ForEachAdditiveAttention([&](const Context& context) {
    for (float nan : {kNan, -kNan, payload}) {
      const Desc d{.queries = 3, .keys = 6, .query_dim = 3, .key_dim = 5, .units = 20, .value_dim = 7};
      Problem query(d), key(d), value(d), v(d), clean(d);
      clean.Run(context);
      query.query[3 + 1] = nan;  // of query 1
      query.lengths = {5};
      query.Run(context);
      for (int64_t j = 0; j < 5; ++j) EXPECT_TRUE(std::isnan(query.weight(1, j)));
      EXPECT_EQ(query.weight(1, 5), 0.0f);
      for (int64_t c = 0; c < 7; ++c) EXPECT_TRUE(std::isnan(query.out(1, c)));
      for (int64_t i : {0, 2}) EXPECT_FALSE(std::isnan(query.out(i, 0)));

      key.keys[2 * 5] = nan;
      key.Run(context);
      for (float w : key.attention) EXPECT_TRUE(std::isnan(w));
      for (float c : key.context) EXPECT_TRUE(std::isnan(c));

      value.values[2 * 7 + 3] = nan;
      value.Run(context);
      for (int64_t i = 0; i < 3; ++i) {
        for (int64_t c = 0; c < 7; ++c) {
          if (c == 3) {
            EXPECT_TRUE(std::isnan(value.out(i, c)));
          } else {
            EXPECT_EQ(value.out(i, c), clean.out(i, c));
          }
        }
      }
      v.v[19] = nan;
      v.Run(context);
      for (float w : v.attention) EXPECT_TRUE(std::isnan(w));

      std::fill(v.v.begin(), v.v.end(), 0.0f);  // 0 * tanh(NaN)
      v.keys[0] = nan;
      v.Run(context);
      for (float w : v.attention) EXPECT_TRUE(std::isnan(w));
    }
  });
}

TEST(AdditiveAttentionMasks, InfiniteProjectionsSaturate) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  ForEachAdditiveAttention([](const Context& context) {
    Problem p({.queries = 2, .keys = 4, .query_dim = 1, .key_dim = 1, .units = 1});
    p.query_w = {1};
    p.key_w = {1};
    p.v = {2};
    p.query = {kInf, 0};
    p.keys = {1, -3, 0, kInf};
    p.lengths = {3};
    p.Run(context);
    for (int64_t j = 0; j < 3; ++j) EXPECT_NEAR(p.weight(0, j), 1.0f / 3, 1e-6f);  // tanh is 1 for all
    p.v = {-200};  // scores far below those of absent keys, were they 0
    p.Run(context);
    for (int64_t j = 0; j < 3; ++j) EXPECT_NEAR(p.weight(0, j), 1.0f / 3, 1e-6f);
    p.v = {2};
    p.lengths = {4};
    p.Run(context);
    const double e = std::exp(2 * std::tanh(1.0)) + std::exp(2 * std::tanh(-3.0)) + 1 + std::exp(2.0);
    EXPECT_NEAR(p.weight(1, 3), std::exp(2.0) / e, 1e-6);
    p.query = {-kInf, 0};  // -inf + inf
    p.Run(context);
    EXPECT_TRUE(std::isnan(p.weight(0, 0)));
    EXPECT_FALSE(std::isnan(p.weight(1, 0)));
  });
}

// --- Properties
// -------------------------------------------------------------------------------------------------------

// Bit for bit, which a GPU's kernels are not: they add in another order for one query.
TEST(AdditiveAttentionProperties, OneStepAtATimeIsAllStepsAtOnce) {
  ForEachAdditiveAttention([](const Context& context) {
    if (context.backend == Backend::kCuda) GTEST_SKIP();
    Problem all({.batch = 2,
                 .queries = 19,
                 .keys = 11,
                 .query_dim = 40,
                 .key_dim = 30,
                 .units = 70,
                 .bias = true,
                 .mask = true,
                 .mask_queries = 19});
    harness::TensorStore random(Fill::kNormal, Guard::kEnd, 4);
    for (char& m : all.mask) m = random.RandomBelow(4) != 0;
    auto op = all.Prepare(context);
    ASSERT_TRUE(op.ok()) << op.status().message();
    ASSERT_TRUE(op->Run(all.Tensors()).ok());
    auto memory = harness::GuardedScratch(op->prepared_keys_bytes());
    ASSERT_TRUE(op->PrepareKeys(all.keys.data(), nullptr, memory->data()).ok());
    Desc step = all.d;
    step.queries = step.mask_queries = 1;
    step.query_stride = 0;
    auto one = op->Reshape(step);
    ASSERT_TRUE(one.ok()) << one.status().message();
    for (int64_t i = 0; i < 19; ++i) {
      Problem p(step);
      p.keys = all.keys;
      for (int64_t b = 0; b < 2; ++b) {
        std::copy_n(all.query.begin() + (b * 19 + i) * 40, 40, p.query.begin() + b * 40);
        std::copy_n(all.mask.begin() + (b * 19 + i) * 11, 11, p.mask.begin() + b * 11);
      }
      AdditiveAttentionTensors t = p.Tensors();
      t.prepared_keys = memory->data();
      ASSERT_TRUE(one->Run(t).ok());
      for (int64_t b = 0; b < 2; ++b) {
        EXPECT_TRUE(std::equal(p.context.begin() + b * 30, p.context.begin() + (b + 1) * 30,
                               all.context.begin() + (b * 19 + i) * 30));
        EXPECT_TRUE(std::equal(p.attention.begin() + b * 11, p.attention.begin() + (b + 1) * 11,
                               all.attention.begin() + (b * 19 + i) * 11));
      }
    }
  });
}

TEST(AdditiveAttentionProperties, BeamsShareKeysAsIfEachHadACopy) {
  ForEachAdditiveAttention([](const Context& context) {
    if (context.backend == Backend::kCuda) GTEST_SKIP();
    constexpr int64_t kBeams = 5;
    Problem beams({.queries = kBeams, .keys = 9, .query_dim = 12, .key_dim = 10, .units = 40});
    Desc copied = beams.d;
    copied.batch = kBeams;
    copied.queries = 1;
    Problem batch(copied);
    batch.query_w = beams.query_w, batch.key_w = beams.key_w, batch.v = beams.v, batch.query = beams.query;
    for (int64_t b = 0; b < kBeams; ++b) std::copy(beams.keys.begin(), beams.keys.end(), batch.keys.begin() + b * 90);
    beams.Run(context);
    batch.Run(context);
    EXPECT_EQ(beams.context, batch.context);
    EXPECT_EQ(beams.attention, batch.attention);
  });
}

TEST(AdditiveAttentionProperties, PermutingKeysPermutesWeights) {
  ForEachAdditiveAttention([](const Context& context) {
    Problem p({.queries = 4, .keys = 10, .query_dim = 12, .key_dim = 10, .units = 40});
    p.Run(context);
    Problem reversed = p;
    for (int64_t j = 0; j < 10; ++j) std::copy_n(p.keys.begin() + j * 10, 10, reversed.keys.begin() + (9 - j) * 10);
    reversed.Run(context);
    for (int64_t i = 0; i < 4; ++i) {
      for (int64_t j = 0; j < 10; ++j) EXPECT_NEAR(reversed.weight(i, 9 - j), p.weight(i, j), 1e-6f);
      for (int64_t c = 0; c < 10; ++c) EXPECT_NEAR(reversed.out(i, c), p.out(i, c), 3e-6f);
    }
  });
}

TEST(AdditiveAttentionProperties, NormalizedIsPlainWithTheVectorFolded) {
  ForEachAdditiveAttention([](const Context& context) {
    Problem normalized({.queries = 3, .keys = 7, .query_dim = 5, .key_dim = 6, .units = 30, .normalized = true});
    normalized.Run(context);
    Desc plain_desc = normalized.d;
    plain_desc.normalized = false;
    Problem plain(plain_desc);
    plain.query_w = normalized.query_w, plain.key_w = normalized.key_w;
    plain.query = normalized.query, plain.keys = normalized.keys;
    double squares = 0;
    for (float x : normalized.v) squares += double{x} * x;
    for (size_t u = 0; u < 30; ++u) {
      plain.v[u] = static_cast<float>(double{normalized.g[0]} * normalized.v[u] / std::sqrt(squares));
    }
    plain.Run(context);
    for (size_t n = 0; n < plain.attention.size(); ++n) {
      EXPECT_NEAR(plain.attention[n], normalized.attention[n], 1e-6f);
    }
  });
}

TEST(AdditiveAttentionProperties, AKeyOutOfRangeChangesNoBitOfOthersThatMaskIt) {
  ForEachAdditiveAttention([](const Context& context) {
    Problem p({.queries = 2, .keys = 8, .query_dim = 5, .key_dim = 6, .units = 30, .mask = true});
    p.mask[3] = 0;
    p.Run(context);
    Problem far = p;
    for (int64_t c = 0; c < 6; ++c) far.keys[static_cast<size_t>(3 * 6 + c)] = 1e4f;
    far.Run(context);
    EXPECT_EQ(p.context, far.context);
    EXPECT_EQ(p.attention, far.attention);
  });
}

}  // namespace
}  // namespace lamina
