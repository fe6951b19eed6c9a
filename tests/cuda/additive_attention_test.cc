// additive_attention on the emulated GPU: tiles and rows of scores, every option, keys out of the reciprocal form's
// range, prepared keys.
#include "lamina/additive_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "harness/additive_attention.h"
#include "kernels/cuda/emulator/runtime.h"
#include "kernels/cuda/portable/additive_term.cuh"
#include "tests/additive_attention_problem.h"
#include "tests/cuda/emulated.h"

namespace lamina::harness {
namespace {

using Desc = AdditiveAttentionDesc;

constexpr DType kDTypes[] = {DType::kF32, DType::kBf16, DType::kF16};
constexpr Context kOnCuda{.backend = Backend::kCuda};

// On a GPU of one multiprocessor few queries and keys fill it, if they fill four fifths of their tiles: scores come in
// tiles, contexts 16 queries at a time, and a slab is 256 KiB.
class SmallGpu {
 public:
  SmallGpu() { cuda::emulator::TheFaults().multiprocessors = 1; }
  ~SmallGpu() { cuda::emulator::TheFaults() = {}; }
};

void ExpectParity(Desc d, uint64_t seed) {
  d.dtype = kDTypes[seed % 3];
  ExpectEmulatedParity<AdditiveAttention>(d, 1, seed);
}

TEST(CudaAdditiveAttention, FewQueries) {
  uint64_t seed = 0;
  for (const int64_t queries : {1, 3, 5}) {
    for (const int64_t keys : {1, 4, 33, 70}) {
      for (const int64_t units : {1, 31, 132}) {
        ExpectParity({.batch = 2, .queries = queries, .keys = keys, .query_dim = 5, .key_dim = 12, .units = units},
                     ++seed);
      }
    }
  }
}

TEST(CudaAdditiveAttention, ManyQueries) {
  const SmallGpu gpu;
  uint64_t seed = 0;
  for (const int64_t queries : {60, 64, 125}) {
    for (const int64_t keys : {61, 64, 125}) {
      ExpectParity({.queries = queries, .keys = keys, .query_dim = 8, .key_dim = 20, .units = 30 + queries % 7},
                   ++seed);
    }
  }
}

TEST(CudaAdditiveAttention, DimensionsOfContexts) {
  uint64_t seed = 0;
  for (const int64_t dim : {1, 3, 4, 63, 64, 66, 132}) {
    for (const int64_t queries : {1, 4, 18}) {
      ExpectParity({.queries = queries, .keys = 9, .query_dim = 3, .key_dim = 4, .units = 5, .value_dim = dim}, ++seed);
    }
  }
}

TEST(CudaAdditiveAttention, AllOptionsTogether) {
  uint64_t seed = 100;
  for (const bool small : {false, true}) {
    cuda::emulator::TheFaults().multiprocessors = small ? 1 : 132;
    const int64_t queries = small ? 60 : 5;
    for (const int mask : {0, 1, 2}) {  // none, one for all queries, one for each
      for (const int64_t value_dim : {0, 20}) {
        for (const bool slices : {false, true}) {
          Desc d{.batch = small ? 2 : 3,
                 .queries = queries,
                 .keys = 62,
                 .query_dim = 9,
                 .key_dim = 16,
                 .units = 21,
                 .value_dim = value_dim,
                 .bias = seed % 2 == 0,
                 .normalized = seed % 4 < 2,
                 .mask = mask > 0,
                 .mask_queries = mask == 2 ? queries : 1};
          if (slices) {
            d.query_stride = 12;
            d.key_stride = 20;
            d.value_stride = value_dim ? 24 : 0;
            d.context_stride = 23;
          }
          ExpectParity(d, ++seed);
        }
      }
    }
  }
  cuda::emulator::TheFaults() = {};
}

// More scores than a slab's 64 Ki, and more units than a pass's 1024.
TEST(CudaAdditiveAttention, SlabsAndPasses) {
  const SmallGpu gpu;
  ExpectParity({.batch = 2, .queries = 64, .keys = 530, .query_dim = 2, .key_dim = 3, .units = 4}, 3);
  ExpectParity({.batch = 3, .queries = 3, .keys = 8200, .query_dim = 2, .key_dim = 1, .units = 2}, 4);
  ExpectParity({.batch = 2, .queries = 3, .keys = 5, .query_dim = 2, .key_dim = 3, .units = 2100}, 5);
}

TEST(CudaAdditiveAttention, NoKeysNoQueriesNoBatch) {
  for (const int64_t value_dim : {0, 7}) {
    const Desc d{.batch = 2, .queries = 3, .query_dim = 4, .key_dim = 5, .units = 6, .value_dim = value_dim};
    ExpectParity(d, 0);
    Desc masked = d;
    masked.mask = true;
    ExpectParity(masked, 1);
    Desc other = d;
    other.keys = 2;
    other.batch = 0;
    ExpectParity(other, 2);
    other.batch = 2;
    other.queries = 0;
    ExpectParity(other, 3);
  }
}

// Keys near the end of the reciprocal form's range and out of it among others, in tiles; rows:
// tests/additive_attention_property_test.cc.
TEST(CudaAdditiveAttention, FarKeysInTiles) {
  const SmallGpu gpu;
  for (const float scale : {10.0f, 20.0f, 60.0f, 1e6f, 1e30f}) {
    AdditiveAttentionProblem p(
        {.queries = 60, .keys = 125, .query_dim = 6, .key_dim = 8, .units = 33, .value_dim = 5, .mask = true});
    for (const int64_t j : {0, 5, 31, 32, 63, 64, 124}) {
      for (int64_t c = 0; c < p.d.key_dim; ++c) p.keys[static_cast<size_t>(j * p.d.key_dim + c)] *= scale;
      for (int64_t c = 0; c < p.d.query_dim; ++c) p.query[static_cast<size_t>(j % 60 * p.d.query_dim + c)] *= scale;
    }
    p.mask[5] = 0;
    p.Check(kOnCuda);
  }
}

// Lengths of the run above those of the preparation, and beyond the tensor, are cut.
TEST(CudaAdditiveAttention, LengthsAreCut) {
  AdditiveAttentionProblem p({.batch = 3, .queries = 2, .keys = 5, .query_dim = 3, .key_dim = 4, .units = 7});
  auto op = p.Prepare(kOnCuda);
  ASSERT_TRUE(op.ok()) << op.status().message();
  const auto prepared = GuardedScratch(op->prepared_keys_bytes());
  const int32_t lengths[] = {3, -7, 900}, cut[] = {3, 0, 5};
  ASSERT_TRUE(op->PrepareKeys(p.keys.data(), lengths, prepared->data()).ok());
  AdditiveAttentionTensors t = p.Tensors();
  const int32_t more[] = {4, 2, 1000};
  t.key_lengths = more;
  t.prepared_keys = prepared->data();
  ASSERT_TRUE(op->Run(t).ok());
  t.key_lengths = cut;
  for (const auto& e : Case<AdditiveAttention>::ExpectAdditiveAttention(p.d, p.Weights(), t)) {
    EXPECT_TRUE(Compare(e).ok) << Compare(e).message;
  }
}

// Keys behind a length need not be there at all.
TEST(CudaAdditiveAttention, KeysBehindALengthAreNotRead) {
  AdditiveAttentionProblem p({.queries = 2, .keys = 200, .query_dim = 3, .key_dim = 4, .units = 7, .value_dim = 4});
  p.lengths = {70};
  const Guarded keys(70 * 4 * sizeof(float), Guard::kEnd), values(70 * 4 * sizeof(float), Guard::kEnd);
  std::copy_n(p.keys.begin(), 70 * 4, keys.as<float>());
  std::copy_n(p.values.begin(), 70 * 4, values.as<float>());
  p.Run(kOnCuda);
  const std::vector<float> want = p.context;
  auto op = p.Prepare(kOnCuda);
  ASSERT_TRUE(op.ok()) << op.status().message();
  AdditiveAttentionTensors t = p.Tensors();
  t.keys = keys.data();
  t.values = values.data();
  ASSERT_TRUE(op->Run(t).ok());
  EXPECT_EQ(p.context, want);
}

// One step at a time with keys prepared once, by an operator that was prepared for all steps.
TEST(CudaAdditiveAttention, StepsMeetTheBoundOfAllAtOnce) {
  AdditiveAttentionProblem all({.batch = 2, .queries = 3, .keys = 40, .query_dim = 6, .key_dim = 8, .units = 40});
  auto op = all.Prepare(kOnCuda);
  ASSERT_TRUE(op.ok()) << op.status().message();
  const auto prepared = GuardedScratch(op->prepared_keys_bytes());
  ASSERT_TRUE(op->PrepareKeys(all.keys.data(), nullptr, prepared->data()).ok());
  Desc step = all.d;
  step.queries = 1;
  auto one = op->Reshape(step);
  ASSERT_TRUE(one.ok()) << one.status().message();
  AdditiveAttentionProblem p(step);
  p.query_w = all.query_w, p.key_w = all.key_w, p.v = all.v, p.keys = all.keys;
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t b = 0; b < 2; ++b) std::copy_n(all.query.begin() + (b * 3 + i) * 6, 6, p.query.begin() + b * 6);
    AdditiveAttentionTensors t = p.Tensors();
    t.prepared_keys = prepared->data();
    ASSERT_TRUE(one->Run(t).ok());
    for (const auto& e : Case<AdditiveAttention>::ExpectAdditiveAttention(step, p.Weights(), t)) {
      EXPECT_TRUE(Compare(e).ok) << Compare(e).message;
    }
  }
}

class Validating {
 public:
  Validating() { setenv("LAMINA_VALIDATE", "1", 1); }
  ~Validating() {
    unsetenv("LAMINA_VALIDATE");
    cuda::emulator::TheFaults() = {};
  }
};

TEST(CudaAdditiveAttention, ValidationNamesWhatIsWrong) {
  const Validating validating;
  AdditiveAttentionProblem p({.batch = 2, .queries = 2, .keys = 5, .query_dim = 3, .key_dim = 4, .units = 7});
  auto op = p.Prepare(kOnCuda), other = p.Prepare(kOnCuda);
  ASSERT_TRUE(op.ok() && other.ok());
  AdditiveAttentionTensors t = p.Tensors();
  EXPECT_TRUE(op->Run(t).ok());
  const auto expect = [&](const Status& s, const char* words) {
    EXPECT_FALSE(s.ok());
    EXPECT_NE(s.message().find(words), std::string::npos) << s.message();
  };
  int32_t lengths[] = {3, 6};
  const auto prepared = GuardedScratch(op->prepared_keys_bytes());
  t.key_lengths = lengths;
  expect(op->Run(t), "key_lengths must lie in [0, keys], got b=1 key_lengths[b]=6 keys=5");
  expect(op->PrepareKeys(t.keys, lengths, prepared->data()), "key_lengths must lie in [0, keys]");
  lengths[1] = 2;
  ASSERT_TRUE(op->PrepareKeys(t.keys, lengths, prepared->data()).ok());
  t.prepared_keys = prepared->data();
  EXPECT_TRUE(op->Run(t).ok());
  expect(other->Run(t), "prepared_keys must hold what PrepareKeys of this operator wrote");
  lengths[0] = 4;
  expect(op->Run(t), "key_lengths must not exceed those given to PrepareKeys, got key_lengths[0]=4 prepared=3");
  cuda::emulator::TheFaults().host_memory = t.keys;
  expect(op->Run(t), "keys must be device memory, got memory of the host");
  expect(op->PrepareKeys(t.keys, nullptr, prepared->data()), "keys must be device memory");
}

TEST(CudaAdditiveAttention, FailuresAreReported) {
  AdditiveAttentionProblem p({.queries = 2, .keys = 5, .query_dim = 3, .key_dim = 4, .units = 7});
  for (int64_t allocations = 0;; ++allocations) {
    cuda::emulator::TheFaults().allocations_left = allocations;
    auto op = p.Prepare(kOnCuda);
    cuda::emulator::TheFaults() = {};
    if (op.ok()) {
      EXPECT_GE(allocations, 4);
      cuda::emulator::TheFaults().launch = 719;
      EXPECT_EQ(op->Run(p.Tensors()).code(), StatusCode::kDeviceError);
      cuda::emulator::TheFaults() = {};
      break;
    }
    EXPECT_EQ(op.status().code(), StatusCode::kOutOfMemory);
  }
  EXPECT_EQ(cuda::emulator::LiveAllocations(), 0);
}

// Four terms that share a reciprocal against double, over the whole range that they are used in.
TEST(CudaAdditiveAttention, ReciprocalQuadIsAccurate) {
  TensorStore random(Fill::kNormal, Guard::kEnd, 5);
  const auto uniform = [&](double range) {
    return static_cast<float>(range * (static_cast<double>(random.Random() >> 11) * 0x1p-52 - 1));
  };
  double worst = 0;
  int uncapped = 0;
  for (const float range_a : {0.5f, 4.0f, 12.0f, 43.5f, 80.0f}) {
    for (const float range_b : {0.5f, 4.0f, 12.0f, 34.4f}) {
      for (int i = 0; i < 4000; ++i) {
        float v[4], c[4], a[4], e[4];
        double want = 0, sum_v = 0;
        for (int u = 0; u < 4; ++u) {
          const float raw_a = uniform(range_a), raw_b = uniform(range_b);
          v[u] = std::exp2(-std::fabs(uniform(i % 2 ? 3 : 40)));
          const bool none = v[u] < 0x1p-30f;
          c[u] = none ? additive::kReciprocalCap : 1 / v[u];
          a[u] = cuda::QueryExponential(raw_a, none ? 0 : c[u]);
          e[u] = cuda::KeyExponential(raw_b);
          want += (u % 2 ? -1 : 1) * double{v[u]} / (1 + std::exp(2 * (double{raw_a} + double{raw_b})));
          sum_v += v[u];
        }
        const float4 c4{c[0], c[1], c[2], c[3]}, a4{a[0], a[1], a[2], a[3]}, e4{e[0], e[1], e[2], e[3]};
        const float got = cuda::ReciprocalQuad<true>(c4, a4, e4, 0);
        if (*std::max_element(a, a + 4) * *std::max_element(e, e + 4) <= cuda::kUncappedProduct) {
          EXPECT_EQ(got, cuda::ReciprocalQuad<false>(c4, a4, e4, 0));
          ++uncapped;
        }
        const double error = std::fabs(got - want);
        EXPECT_LE(error, 10 * kUnitRoundoff * sum_v + 4 * 0x1p-31) << range_a << " " << range_b;
        worst = std::max(worst, error / (kUnitRoundoff * sum_v + 4 * 0x1p-31));
      }
    }
  }
  EXPECT_GT(uncapped, 20000);
  std::printf("[ measured ] within %.2f u sum|v|\n", worst);
}

TEST(CudaAdditiveAttention, MinimumKeepsNan) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(cuda::MinNan(1, 2), 1);
  EXPECT_EQ(cuda::MinNan(INFINITY, 2), 2);
  EXPECT_TRUE(std::isnan(cuda::MinNan(kNan, 2)) && std::isnan(cuda::MinNan(2, kNan)));
}

}  // namespace
}  // namespace lamina::harness
