#include "lamina/additive_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>

#include "harness/additive_attention.h"

namespace lamina {
namespace {

using Desc = AdditiveAttentionDesc;
using harness::CheckParity;
using harness::Fill;
using harness::Guard;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

void ExpectParity(const Desc& d, const harness::ParityOptions& options = {}) {
  const auto report = CheckParity<AdditiveAttention>(d, options);
  EXPECT_GT(report.passed, 0) << ToString(d);
  for (const auto& f : report.failures) ADD_FAILURE() << f;
}

// One guard side and two thread counts: for lists of many cases.
harness::ParityOptions Brief(uint64_t seed) {
  return {.threads = {1, 2}, .seed = seed, .tensors = {{Fill::kExact, Guard::kEnd}, {Fill::kNormal, Guard::kEnd}}};
}

// Tensors of one problem in plain vectors, for tests that choose their own values.
struct Problem {
  explicit Problem(const Desc& desc) : d(desc) {
    harness::TensorStore store(Fill::kNormal, Guard::kEnd, 1);
    const auto draw = [&](int64_t count, double scale) {
      std::vector<float> x(static_cast<size_t>(count));
      for (float& e : x) e = static_cast<float>(scale * store.RandomNormal());
      return x;
    };
    query_w = draw(d.units * d.query_dim, 1 / std::sqrt(static_cast<double>(d.query_dim)));
    key_w = draw(d.units * d.key_dim, 1 / std::sqrt(static_cast<double>(d.key_dim)));
    bias = draw(d.bias ? d.units : 0, 0.3);
    v = draw(d.units, 2 / std::sqrt(static_cast<double>(d.units)));
    g = draw(d.normalized ? 1 : 0, 2.0);
    query = draw(d.batch * d.queries * d.query_dim, 1);
    keys = draw(d.batch * d.keys * d.key_dim, 1);
    values = draw(d.batch * d.keys * d.value_dim, 1);
    mask.assign(static_cast<size_t>(d.mask ? d.batch * d.mask_queries * d.keys : 0), 1);
    context.assign(static_cast<size_t>(d.batch * d.queries * d.context_dim()), 0);
    attention.assign(static_cast<size_t>(d.batch * d.queries * d.keys), 0);
  }
  AdditiveAttentionWeights Weights() const {
    return {query_w.data(), key_w.data(), d.bias ? bias.data() : nullptr, v.data(), d.normalized ? g.data() : nullptr};
  }
  AdditiveAttentionTensors Tensors() {
    return {.query = query.data(),
            .keys = keys.data(),
            .values = d.value_dim ? values.data() : nullptr,
            .key_lengths = lengths.empty() ? nullptr : lengths.data(),
            .mask = d.mask ? reinterpret_cast<const bool*>(mask.data()) : nullptr,
            .context = context.data(),
            .weights = attention.data()};
  }
  Result<AdditiveAttention> Prepare(const Context& context_ = {}) const {
    return AdditiveAttention::Prepare(d, Weights(), context_);
  }
  void Run(const Context& with = {}) {
    auto op = Prepare(with);
    ASSERT_TRUE(op.ok()) << op.status().message();
    const Status s = op->Run(Tensors());
    ASSERT_TRUE(s.ok()) << s.message();
  }
  // Runs and compares with the reference.
  void Check(const Context& with) {
    Run(with);
    for (const auto& e : harness::Case<AdditiveAttention>::ExpectAdditiveAttention(d, Weights(), Tensors())) {
      const auto comparison = harness::Compare(e);
      EXPECT_TRUE(comparison.ok) << ToString(d) << " on " << ToString(with.isa) << "/" << with.implementation << ": "
                                 << comparison.message;
    }
  }
  float& weight(int64_t i, int64_t j) { return attention[static_cast<size_t>(i * d.keys + j)]; }
  float& out(int64_t i, int64_t c) { return context[static_cast<size_t>(i * d.context_dim() + c)]; }

  Desc d;
  std::vector<float> query_w, key_w, bias, v, g, query, keys, values, context, attention;
  std::vector<char> mask;
  std::vector<int32_t> lengths;
};

// Every candidate on every SIMD target.
template <class F>
void ForEachImplementation(const F& f) {
  for (Isa isa : SupportedIsas()) {
    for (const char* name : {"reciprocal_quad", "tanh"}) f(Context{.isa = isa, .implementation = name});
  }
}

TEST(AdditiveAttentionParity, TinyAndTileEdges) {
  // Units around the blocks of four vectors of 1, 4, 8 and 16 lanes; keys around groups of four; queries around tiles
  // of two, six and blocks of 16; dimensions around vectors.
  const int64_t units[] = {1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129};
  const int64_t keys[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33};
  const int64_t queries[] = {1, 2, 3, 5, 6, 7, 8, 12, 13, 15, 16, 17, 33};
  const int64_t dims[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 130};
  uint64_t seed = 1;
  for (int64_t u : units) {
    ExpectParity({.queries = queries[seed % 13],
                  .keys = keys[seed % 12],
                  .query_dim = dims[seed % 17],
                  .key_dim = 3,
                  .units = u},
                 Brief(seed));
    ++seed;
  }
  for (int64_t k : keys) {
    ExpectParity({.queries = 3, .keys = k, .query_dim = 5, .key_dim = dims[seed % 17], .units = 20}, Brief(seed));
    ++seed;
  }
  for (int64_t q : queries) {
    ExpectParity({.batch = 2, .queries = q, .keys = 6, .query_dim = 4, .key_dim = dims[seed % 17], .units = 24},
                 Brief(seed));
    ++seed;
  }
  for (int64_t c : dims) {
    ExpectParity({.queries = 7, .keys = 9, .query_dim = 6, .key_dim = 5, .units = 10, .value_dim = c}, Brief(seed));
    ++seed;
  }
}

TEST(AdditiveAttentionParity, AllOptionsTogether) {
  uint64_t seed = 100;
  for (bool bias : {false, true}) {
    for (bool normalized : {false, true}) {
      for (int mask : {0, 1, 2}) {  // none, one for all queries, one for each
        for (int64_t value_dim : {0, 19}) {
          for (bool slices : {false, true}) {
            Desc d{.batch = 3,
                   .queries = 5,
                   .keys = 11,
                   .query_dim = 9,
                   .key_dim = 17,
                   .units = 21,
                   .value_dim = value_dim,
                   .bias = bias,
                   .normalized = normalized,
                   .mask = mask > 0,
                   .mask_queries = mask == 2 ? 5 : 1};
            if (slices) {
              d.query_stride = 12;
              d.key_stride = 20;
              d.value_stride = value_dim ? 25 : 0;
              d.context_stride = 23;
            }
            ExpectParity(d, Brief(++seed));
          }
        }
      }
    }
  }
}

TEST(AdditiveAttentionParity, RealLayers) {
  ExpectParity({.keys = 50, .query_dim = 512, .key_dim = 512, .units = 512});  // a decoder step
  ExpectParity({.batch = 2,
                .queries = 25,
                .keys = 20,
                .query_dim = 256,
                .key_dim = 256,
                .units = 256,  // all steps
                .bias = true,
                .mask = true});
  // Bahdanau 2015: 1000 units, two directions of 1000; GNMT: normalised, 1024.
  ExpectParity({.keys = 6, .query_dim = 1000, .key_dim = 2000, .units = 1000}, Brief(5));
  ExpectParity(
      {.queries = 4, .keys = 5, .query_dim = 1024, .key_dim = 1024, .units = 1024, .bias = true, .normalized = true},
      Brief(6));
}

TEST(AdditiveAttentionParity, BothGuardsAndThreeThreadsOnOddSizes) {
  ExpectParity({.batch = 3,
                .queries = 18,
                .keys = 13,
                .query_dim = 10,
                .key_dim = 6,
                .units = 37,
                .value_dim = 21,
                .bias = true,
                .mask = true,
                .mask_queries = 18,
                .context_stride = 22},
               {.seed = 7});
  ExpectParity({.batch = 2, .queries = 1, .keys = 70, .query_dim = 3, .key_dim = 30, .units = 9}, {.seed = 8});
}

TEST(AdditiveAttentionParity, NoKeysNoQueriesNoBatch) {
  ExpectParity({.batch = 2, .queries = 3, .keys = 0, .query_dim = 4, .key_dim = 5, .units = 6});
  ExpectParity(
      {.batch = 2, .queries = 3, .keys = 0, .query_dim = 4, .key_dim = 5, .units = 6, .value_dim = 7, .mask = true});
  ExpectParity({.batch = 0, .queries = 3, .keys = 2, .query_dim = 4, .key_dim = 5, .units = 6});
  ExpectParity({.batch = 2, .queries = 0, .keys = 2, .query_dim = 4, .key_dim = 5, .units = 6});
}

TEST(AdditiveAttentionParity, RandomDescriptors) {
  const char* asked = std::getenv("LAMINA_FUZZ_CASES");
  harness::TensorStore random(Fill::kNormal, Guard::kEnd, 2026);
  for (int n = asked != nullptr ? std::atoi(asked) : 40; n > 0; --n) {
    const auto below = [&](int64_t bound) { return random.RandomBelow(bound); };
    Desc d{.batch = 1 + below(4),
           .queries = 1 + below(20),
           .keys = below(24),
           .query_dim = 1 + below(40),
           .key_dim = 1 + below(40),
           .units = 1 + below(150),
           .value_dim = below(2) * (1 + below(70)),
           .bias = below(2) == 1,
           .normalized = below(2) == 1,
           .mask = below(2) == 1};
    if (d.mask && below(2)) d.mask_queries = d.queries;
    if (below(3) == 0) d.query_stride = d.query_dim + below(9);
    if (below(3) == 0) d.key_stride = d.key_dim + below(9);
    if (below(3) == 0 && d.value_dim) d.value_stride = d.value_dim + below(9);
    if (below(3) == 0) d.context_stride = d.context_dim() + below(9);
    ExpectParity(d, Brief(random.Random()));
  }
}

TEST(AdditiveAttentionReference, BackendRunsTheLoops) {
  const auto report = CheckParity<AdditiveAttention>({.batch = 2,
                                                      .queries = 3,
                                                      .keys = 5,
                                                      .query_dim = 4,
                                                      .key_dim = 6,
                                                      .units = 7,
                                                      .value_dim = 3,
                                                      .bias = true,
                                                      .normalized = true,
                                                      .mask = true,
                                                      .mask_queries = 3},
                                                     {.backend = Backend::kReference});
  EXPECT_EQ(report.passed, 1);
  for (const auto& f : report.failures) ADD_FAILURE() << f;
}

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
  ForEachImplementation([](const Context& context) {
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
  ForEachImplementation([](const Context& context) {
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
  ForEachImplementation([](const Context& context) {
    Problem p({.queries = 4, .keys = 13, .query_dim = 6, .key_dim = 8, .units = 33, .value_dim = 5});
    for (int64_t j : {0, 5, 6, 12}) {
      for (int64_t c = 0; c < p.d.key_dim; ++c) p.keys[static_cast<size_t>(j * p.d.key_dim + c)] *= 60;
    }
    p.Check(context);
  });
}

TEST(AdditiveAttentionRange, ZeroVectorAndSingleNonzero) {
  ForEachImplementation([](const Context& context) {
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
  ForEachImplementation([](const Context& context) {
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
  ForEachImplementation([](const Context& context) {
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
  ForEachImplementation([&](const Context& context) {
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
  ForEachImplementation([](const Context& context) {
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

TEST(AdditiveAttentionProperties, OneStepAtATimeIsAllStepsAtOnce) {
  ForEachImplementation([](const Context& context) {
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
  ForEachImplementation([](const Context& context) {
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
  ForEachImplementation([](const Context& context) {
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
  ForEachImplementation([](const Context& context) {
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
  ForEachImplementation([](const Context& context) {
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

// --- Contract
// ---------------------------------------------------------------------------------------------------------

TEST(AdditiveAttentionReshape, OtherSizesSameWeights) {
  ForEachImplementation([](const Context& context) {
    Problem small({.queries = 2, .keys = 5, .query_dim = 8, .key_dim = 9, .units = 33, .bias = true});
    auto op = small.Prepare(context);
    ASSERT_TRUE(op.ok());
    Problem large({.batch = 3, .queries = 20, .keys = 17, .query_dim = 8, .key_dim = 9, .units = 33, .bias = true});
    large.query_w = small.query_w, large.key_w = small.key_w, large.v = small.v, large.bias = small.bias;
    auto reshaped = op->Reshape(large.d);
    ASSERT_TRUE(reshaped.ok()) << reshaped.status().message();
    EXPECT_EQ(reshaped->packed_bytes(), op->packed_bytes());
    EXPECT_EQ(reshaped->implementation(), op->implementation());
    ASSERT_TRUE(reshaped->Run(large.Tensors()).ok());
    const auto context_bits = large.context;
    large.Run(context);
    EXPECT_EQ(large.context, context_bits);
  });
}

TEST(AdditiveAttentionReshape, RefusesOtherWeights) {
  Problem p({.keys = 5, .query_dim = 8, .key_dim = 9, .units = 33});
  auto op = p.Prepare();
  ASSERT_TRUE(op.ok());
  Desc other = p.d;
  other.units = 34;
  const auto refused = op->Reshape(other);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("not units of the prepared"), std::string::npos)
      << refused.status().message();
}

TEST(AdditiveAttentionChoice, TheReciprocalFormIsPreferred) {
  Problem p({.keys = 50, .query_dim = 64, .key_dim = 64, .units = 64});
  auto op = p.Prepare();
  ASSERT_TRUE(op.ok());
  EXPECT_NE(op->implementation().find("/reciprocal_quad"), std::string::npos) << op->Explain();
  EXPECT_NE(op->Explain().find("/tanh"), std::string::npos);
}

TEST(AdditiveAttentionCost, CountsWhatTheLoopsDo) {
  const Desc d{.batch = 2,
               .queries = 3,
               .keys = 5,
               .query_dim = 7,
               .key_dim = 11,
               .units = 13,
               .value_dim = 17,
               .bias = true,
               .normalized = true,
               .mask = true};
  const Cost c = CostOf(d);
  EXPECT_EQ(c.macs, 2 * (3 * 7 * 13 + 5 * 11 * 13 + 3 * 5 * (13 + 17)));
  EXPECT_EQ(c.transcendentals, 2 * (3 * 5 * (13 + 1) + 3));
  EXPECT_EQ(c.params, 13 * 7 + 13 * 11 + 13 + 13 + 1);
  EXPECT_EQ(c.weight_bytes, 4 * c.params);
  EXPECT_EQ(c.activation_bytes, 4 * 2 * (3 * 7 + 5 * 11 + 5 * 17 + 3 * 17) + 2 * 5);
}

TEST(AdditiveAttentionText, ToStringAndParseAreInverses) {
  const Desc d{.batch = 2,
               .queries = 3,
               .keys = 5,
               .query_dim = 7,
               .key_dim = 11,
               .units = 13,
               .value_dim = 17,
               .bias = true,
               .normalized = true,
               .mask = true,
               .mask_queries = 3,
               .query_stride = 8,
               .context_stride = 20};
  const std::string text = ToString(d);
  EXPECT_EQ(
      text,
      "additive_attention batch=2 queries=3 keys=5 query_dim=7 key_dim=11 units=13 value_dim=17 bias=1 normalized=1 "
      "mask=1 mask_queries=3 query_stride=8 context_stride=20");
  const auto parsed = ParseAdditiveAttention(text);
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(*parsed, d);
}

void ExpectRefused(const Desc& d, const std::string& sentence) {
  const Status s = d.Validate();
  EXPECT_EQ(s.code(), StatusCode::kInvalidArgument) << ToString(d);
  EXPECT_NE(s.message().find(sentence), std::string::npos) << s.message();
}

TEST(AdditiveAttentionRefusals, Descriptors) {
  const Desc good{.batch = 2, .queries = 3, .keys = 5, .query_dim = 7, .key_dim = 11, .units = 13};
  EXPECT_TRUE(good.Validate().ok());
  const auto with = [&](auto member, auto value) {
    Desc d = good;
    d.*member = value;
    return d;
  };
  ExpectRefused(with(&Desc::batch, -1), "must not be negative, got batch=-1 queries=3 keys=5");
  ExpectRefused(with(&Desc::queries, -1), "batch, queries and keys must not be negative");
  ExpectRefused(with(&Desc::keys, -2), "keys=-2");
  ExpectRefused(with(&Desc::query_dim, 0), "must be at least 1, got query_dim=0 key_dim=11 units=13");
  ExpectRefused(with(&Desc::key_dim, 0), "must be at least 1");
  ExpectRefused(with(&Desc::units, -3), "units=-3");
  ExpectRefused(with(&Desc::value_dim, -1),
                "value_dim must not be negative (0: the values are the keys), got value_dim=-1");
  ExpectRefused(with(&Desc::keys, int64_t{1} << 31), "every size but batch must be less than 2^31");
  ExpectRefused(with(&Desc::mask_queries, 3), "mask_queries must be 1 without a mask, got mask_queries=3");
  Desc masked = with(&Desc::mask, true);
  masked.mask_queries = 2;
  ExpectRefused(masked, "mask_queries must be 1 or queries, got mask_queries=2 queries=3");
  ExpectRefused(with(&Desc::dtype, static_cast<DType>(9)), "every enumerated field must hold one of its members");
  ExpectRefused(with(&Desc::value_stride, 20),
                "value_stride must be 0 when the values are the keys, got value_stride=20");
  ExpectRefused(with(&Desc::query_stride, 6),
                "a row stride must be 0 or at least the row's elements, got query_stride=6");
  ExpectRefused(with(&Desc::key_stride, 10), "key_stride=10");
  ExpectRefused(with(&Desc::context_stride, 10), "context_stride=10");
  Desc valued = with(&Desc::value_dim, 4);
  valued.value_stride = 3;
  ExpectRefused(valued, "value_stride=3");
  ExpectRefused(with(&Desc::batch, int64_t{1} << 60), "the size of a tensor overflows");
  ExpectRefused({.batch = int64_t{1} << 20, .keys = int64_t{1} << 20, .query_dim = 1, .key_dim = 1, .units = 1 << 20},
                "overflows");
  ExpectRefused({.batch = 1 << 20,
                 .queries = 1 << 10,
                 .keys = 1 << 10,
                 .query_dim = 1 << 20,
                 .key_dim = 1 << 20,
                 .units = 1 << 20},
                "the count of multiply-accumulates overflows");
}

TEST(AdditiveAttentionRefusals, OtherElementTypesOnTheCpu) {
  const auto reports =
      AdditiveAttention::Candidates({.keys = 1, .query_dim = 1, .key_dim = 1, .units = 1, .dtype = DType::kBf16});
  ASSERT_TRUE(reports.ok());
  for (const auto& r : *reports) EXPECT_EQ(r.reason, "dtype must be f32");
}

TEST(AdditiveAttentionRefusals, Weights) {
  const Problem p({.keys = 5, .query_dim = 7, .key_dim = 11, .units = 13, .bias = true, .normalized = true});
  const auto refused = [&](auto member) {
    AdditiveAttentionWeights w = p.Weights();
    w.*member = nullptr;
    return AdditiveAttention::Prepare(p.d, w).status().message();
  };
  using W = AdditiveAttentionWeights;
  EXPECT_NE(refused(&W::query_w).find("weights.query_w must not be null"), std::string::npos);
  EXPECT_NE(refused(&W::key_w).find("weights.key_w must not be null"), std::string::npos);
  EXPECT_NE(refused(&W::v).find("weights.v must not be null"), std::string::npos);
  EXPECT_NE(refused(&W::bias).find("weights.bias must not be null when bias=1"), std::string::npos);
  EXPECT_NE(refused(&W::g).find("weights.g must not be null when normalized=1"), std::string::npos);
}

TEST(AdditiveAttentionRefusals, Tensors) {
  Problem p({.batch = 2, .keys = 5, .query_dim = 7, .key_dim = 11, .units = 13, .value_dim = 3, .mask = true});
  auto op = p.Prepare();
  ASSERT_TRUE(op.ok());
  const AdditiveAttentionTensors good = p.Tensors();
  EXPECT_TRUE(op->Run(good).ok());
  const auto refused = [&](auto change, const char* sentence) {
    AdditiveAttentionTensors t = good;
    change(t);
    const Status s = op->Run(t);
    EXPECT_FALSE(s.ok());
    EXPECT_NE(s.message().find(sentence), std::string::npos) << s.message();
  };
  refused([](auto& t) { t.query = nullptr; }, "query must not be null");
  refused([](auto& t) { t.context = nullptr; }, "context must not be null");
  refused([](auto& t) { t.keys = nullptr; }, "keys must not be null without prepared_keys and separate values");
  refused([](auto& t) { t.values = nullptr; }, "values must not be null when value_dim is not 0");
  refused([](auto& t) { t.mask = nullptr; }, "mask must not be null when mask=1");
  const int32_t negative[] = {5, -1}, beyond[] = {6, 1};
  refused([&](auto& t) { t.key_lengths = negative; },
          "key_lengths must lie in [0, keys], got b=1 key_lengths[b]=-1 keys=5");
  refused([&](auto& t) { t.key_lengths = beyond; }, "got b=0 key_lengths[b]=6 keys=5");
  alignas(64) static std::byte memory[4096];
  refused([](auto& t) { t.prepared_keys = memory + 4; },
          "prepared_keys must lie at a multiple of 64 bytes, got remainder=4");
  refused([](auto& t) { t.prepared_keys = memory; }, "prepared_keys must hold what PrepareKeys of this operator wrote");
  const Status misaligned = op->Run(good, memory + 8);
  EXPECT_NE(misaligned.message().find("scratch must lie at a multiple of 64 bytes, got remainder=8"),
            std::string::npos);

  Problem plain({.keys = 5, .query_dim = 7, .key_dim = 11, .units = 13});
  auto plain_op = plain.Prepare();
  AdditiveAttentionTensors t = plain.Tensors();
  t.values = plain.keys.data();
  EXPECT_NE(plain_op->Run(t).message().find("values must be null when value_dim=0"), std::string::npos);
  t = plain.Tensors();
  t.mask = reinterpret_cast<const bool*>(memory);
  EXPECT_NE(plain_op->Run(t).message().find("mask must be null when mask=0"), std::string::npos);
}

TEST(AdditiveAttentionRefusals, PreparedKeys) {
  for (Backend backend : {Backend::kCpu, Backend::kReference}) {
    Problem p({.batch = 2, .keys = 5, .query_dim = 7, .key_dim = 11, .units = 13});
    auto op = p.Prepare({.backend = backend}), twin = p.Prepare({.backend = backend});
    ASSERT_TRUE(op.ok() && twin.ok());
    const auto memory = harness::GuardedScratch(op->prepared_keys_bytes());
    const int32_t lengths[] = {5, 3}, longer[] = {5, 4}, beyond[] = {5, 7};
    EXPECT_NE(op->PrepareKeys(nullptr, nullptr, memory->data()).message().find("keys must not be null"),
              std::string::npos);
    EXPECT_NE(op->PrepareKeys(p.keys.data(), nullptr, nullptr).message().find("prepared_keys must not be null"),
              std::string::npos);
    EXPECT_NE(op->PrepareKeys(p.keys.data(), nullptr, memory->as<std::byte>() + 4).message().find("multiple of 64"),
              std::string::npos);
    EXPECT_NE(
        op->PrepareKeys(p.keys.data(), beyond, memory->data()).message().find("key_lengths must lie in [0, keys]"),
        std::string::npos);
    ASSERT_TRUE(op->PrepareKeys(p.keys.data(), lengths, memory->data()).ok());
    AdditiveAttentionTensors t = p.Tensors();
    t.prepared_keys = memory->data();
    EXPECT_NE(op->Run(t).message().find("got key_lengths[1]=5 prepared=3"), std::string::npos) << op->Run(t).message();
    t.key_lengths = longer;
    EXPECT_NE(op->Run(t).message().find("key_lengths must not exceed those given to PrepareKeys"), std::string::npos);
    t.key_lengths = lengths;
    EXPECT_TRUE(op->Run(t).ok());
    EXPECT_NE(twin->Run(t).message().find("prepared_keys must hold what PrepareKeys of this operator wrote"),
              std::string::npos);
    Desc fewer = p.d;
    fewer.keys = 4;
    auto reshaped = op->Reshape(fewer);
    ASSERT_TRUE(reshaped.ok());
    t.key_lengths = nullptr;
    EXPECT_NE(reshaped->Run(t).message().find("for the same batch and keys, got batch=2 keys=5"), std::string::npos);
  }
}

}  // namespace
}  // namespace lamina
