// multi_head_attention on the emulated GPU: both forms, every option, every dtype; and the arithmetic of keys.
#include "harness/multi_head_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <vector>

#include "kernels/cuda/core/attention.h"
#include "kernels/cuda/emulator/runtime.h"
#include "reference/element.h"
#include "tests/cuda/emulated.h"

namespace lamina::harness {
namespace {

using Desc = MultiHeadAttentionDesc;
constexpr DType kDTypes[] = {DType::kF32, DType::kBf16, DType::kF16};

// Both forms, in f32 and in one of the 16-bit types, which differ in an instruction. The seed decides on that, and on
// lengths, lse, weights, caches and position.
void Check(Desc d, uint64_t seed) {
  for (const DType dtype : {DType::kF32, seed % 2 ? DType::kBf16 : DType::kF16}) {
    d.dtype = dtype;
    ExpectEmulatedParity<MultiHeadAttention>(d, 2, seed);
  }
}

TEST(CudaAttentionCore, RangesOfKeysAgreeWithEveryPair) {
  for (const bool bottom_right : {false, true}) {
    for (const int64_t left : {-1, 0, 2, 100}) {
      for (const int64_t right : {-1, 0, 1, 100}) {
        for (const int length : {0, 1, 4, 9}) {
          const cuda::KeyRule rule{5, bottom_right, left, right};
          const auto keeps = [&](int i, int j) {
            const int origin = bottom_right ? i + length - 5 : i;
            return j < length && (left < 0 || j >= origin - left) && (right < 0 || j <= origin + right);
          };
          const auto in = [](const cuda::KeyRange& r, int j) { return j >= r.begin && j < r.end; };
          for (int first = 0; first < 5; ++first) {
            for (int last = first; last < 5; ++last) {
              for (int j = 0; j < 12; ++j) {
                bool any = false, all = true;
                for (int i = first; i <= last; ++i) {
                  EXPECT_EQ(in(rule.Of(i, length), j), keeps(i, j)) << i << " " << j << " " << length;
                  any |= keeps(i, j);
                  all &= keeps(i, j);
                }
                EXPECT_LE(any, in(rule.OfAny(first, last, length), j));
                EXPECT_LE(in(rule.OfAll(first, last, length), j), all);
              }
              const cuda::KeyRange any = rule.OfAny(first, last, length);
              EXPECT_TRUE(any.begin >= 0 && any.end <= length);
            }
          }
        }
      }
    }
  }
}

TEST(CudaAttentionCore, SplitsCoverEveryKeyOnce) {
  for (const int begin : {0, 3}) {
    for (const int keys : {0, 1, 31, 32, 33, 200}) {
      for (const int splits : {1, 2, 3, 64}) {
        int next = begin;
        for (int i = 0; i < splits; ++i) {
          const cuda::KeyRange part = cuda::SplitOf({begin, begin + keys}, 32, splits, i);
          EXPECT_LE(part.begin, part.end);
          if (part.begin == part.end) continue;
          EXPECT_EQ(part.begin, next);
          EXPECT_TRUE((part.end - part.begin) % 32 == 0 || part.end == begin + keys);
          next = part.end;
        }
        EXPECT_EQ(next, begin + keys);
      }
    }
  }
}

TEST(CudaAttentionCore, SplitsFillTheDevice) {
  EXPECT_EQ(cuda::SplitsFor(1, 1, 264), 1);
  EXPECT_EQ(cuda::SplitsFor(264, 100, 264), 1);
  EXPECT_EQ(cuda::SplitsFor(1, 1000, 264), 56);  // 85% of what 64 would keep busy, with 18 tiles each
  EXPECT_EQ(cuda::SplitsFor(16, 16, 264), 16);
  for (int64_t blocks = 1; blocks < 300; ++blocks) {
    for (const int64_t tiles : {1, 7, 64, 1000}) {
      const int64_t splits = cuda::SplitsFor(blocks, tiles, 264);
      EXPECT_TRUE(splits >= 1 && splits <= tiles && splits <= cuda::kMostSplits);
    }
  }
}

// Just below, at and above the edges of tiles: 16 and 64 or 128 rows, 32, 64 and 128 keys.
TEST(CudaAttention, EdgesOfTiles) {
  uint64_t seed = 0;
  for (const int64_t seqlen_q : {1, 17, 64, 130}) {
    for (const int64_t seqlen_kv : {0, 1, 33, 64, 129}) {
      Check({.seqlen_q = seqlen_q, .seqlen_kv = seqlen_kv, .head_dim = 8}, ++seed);
    }
  }
}

// Channels that come in chunks of 16 bytes and such that do not, up to each width of a tile.
TEST(CudaAttention, EveryWidth) {
  uint64_t seed = 20;
  for (const int64_t head_dim : {1, 24, 64, 72, 128, 136, 256}) {
    for (const int64_t value_dim : {int64_t{0}, int64_t{3}, 257 - head_dim}) {
      if (value_dim > 200 && head_dim > 1) continue;
      Check({.num_heads = 1,
             .seqlen_q = 20,
             .seqlen_kv = 70,
             .head_dim = head_dim,
             .value_dim = value_dim,
             .causal = Causal::kBottomRight},
            ++seed);
    }
  }
}

const Desc kBase{.batch = 2, .num_heads = 4, .num_kv_heads = 2, .seqlen_q = 35, .seqlen_kv = 90, .head_dim = 16};

TEST(CudaAttention, EveryOption) {
  uint64_t seed = 40;
  const auto check = [&](const auto& change) {
    for (int i = 0; i < 2; ++i) {
      Desc d = kBase;
      if (i == 1) d.seqlen_q = 3;  // heads of a group in one tile
      change(d);
      Check(d, ++seed);
    }
  };
  check([](Desc& d) { d.num_kv_heads = 1; });
  check([](Desc& d) { d.causal = Causal::kTopLeft; });
  check([](Desc& d) { d.causal = Causal::kBottomRight, d.seqlen_kv = 20; });
  check([](Desc& d) { d.causal = Causal::kBottomRight, d.window_left = 7; });
  check([](Desc& d) { d.window_left = 11, d.window_right = 5; });
  check([](Desc& d) { d.window_left = 0, d.window_right = 0, d.causal = Causal::kTopLeft; });
  check([](Desc& d) { d.window_right = 1000, d.window_left = 3; });
  check([](Desc& d) { d.mask = true; });
  check([](Desc& d) { d.mask = true, d.mask_batch = 2, d.mask_heads = 4, d.causal = Causal::kBottomRight; });
  check([](Desc& d) { d.bias = true, d.bias_batch = 2; });
  check([](Desc& d) { d.bias = true, d.bias_heads = 4, d.mask = true; });
  check([](Desc& d) { d.alibi = true, d.causal = Causal::kBottomRight; });
  check([](Desc& d) { d.softcap = 2; });
  check([](Desc& d) { d.scale = -0.5f; });
  check([](Desc& d) {
    d.softcap = 3, d.alibi = d.bias = d.mask = true, d.scale = 0.7f, d.window_left = 40;
    d.causal = Causal::kTopLeft;
  });
}

TEST(CudaAttention, LayoutsAndStrides) {
  uint64_t seed = 80;
  Desc d = kBase;
  d.layout = AttentionLayout::kBhsd;
  Check(d, ++seed);
  d.q = {.batch = 4 * 35 * 24, .row = 24, .head = 35 * 24};
  d.v = {.batch = 2 * 90 * 17, .row = 17, .head = 90 * 17};  // no multiple of a chunk
  d.o = {.batch = 4 * 35 * 19, .row = 19, .head = 35 * 19};
  Check(d, ++seed);
  d = kBase;
  d.k = {.batch = 90 * 48, .row = 48, .head = 24};
  d.o = {.batch = 35 * 80, .row = 80, .head = 20};
  d.q = {.batch = 35 * 70, .row = 70, .head = 17};
  Check(d, ++seed);
}

TEST(CudaAttention, ManyKeysInSplits) {
  Check({.num_heads = 2, .num_kv_heads = 1, .seqlen_q = 2, .seqlen_kv = 1000, .head_dim = 64}, 91);
  Check({.num_heads = 1, .seqlen_q = 1, .seqlen_kv = 515, .head_dim = 128, .causal = Causal::kBottomRight}, 92);
}

TEST(CudaAttention, Projections) {
  for (uint64_t seed = 100; seed < 106; ++seed) {
    Desc d{.batch = 2, .num_heads = 4, .num_kv_heads = 2, .seqlen_q = 9, .seqlen_kv = 9, .head_dim = 8};
    d.projections = true;
    d.model_dim = 24;
    d.causal = Causal::kBottomRight;
    if (seed % 2) d.layout = AttentionLayout::kBhsd;
    if (seed % 3 == 0) d.projection_bias = false;
    if (seed % 3 == 1) d.value_dim = 5, d.x_stride = 30, d.y_stride = 25;
    Check(d, seed);
    d.seqlen_kv = 40;  // caches
    Check(d, seed);
    d.memory_dim = 12;
    d.memory_stride = seed % 2 ? 13 : 0;
    d.causal = Causal::kNone;
    Check(d, seed);
  }
}

// Key 40 is NaN and infinite: rows that do not keep it do not see it, those that do get NaN.
TEST(CudaAttention, WhatIsNotKeptHasNoInfluence) {
  for (const DType dtype : kDTypes) {
    for (const char* form : {"flash", "split_kv"}) {
      for (const bool in_mask : {false, true}) {
        const Desc d{.seqlen_q = 70,
                     .seqlen_kv = 70,
                     .head_dim = 16,
                     .causal = in_mask ? Causal::kNone : Causal::kTopLeft,
                     .mask = in_mask,
                     .dtype = dtype};
        TensorStore store(Fill::kNormal, Guard::kEnd, 5);
        void* q = store.Input(dtype, 70 * 16);
        void* k = store.Input(dtype, 70 * 16);
        void* v = store.Input(dtype, 70 * 16);
        void* o = store.Output(dtype, 70 * 16);
        std::vector<uint8_t> mask(70 * 70);
        for (int i = 0; i < 70; ++i) {
          for (int j = 0; j < 70; ++j) mask[i * 70 + j] = j <= i;
        }
        for (int c = 0; c < 16; ++c) {
          reference::Store(NAN, dtype, k, 40 * 16 + c);
          reference::Store(c % 2 ? NAN : INFINITY, dtype, v, 40 * 16 + c);
        }
        const auto op = MultiHeadAttention::Prepare(d, {}, {.backend = Backend::kCuda, .implementation = form});
        ASSERT_TRUE(op.ok()) << op.status().message();
        MultiHeadAttentionTensors t{.q = q, .k = k, .v = v, .o = o};
        if (in_mask) t.mask = reinterpret_cast<const bool*>(mask.data());
        ASSERT_TRUE(op->Run(t).ok());
        for (int i = 0; i < 70; ++i) {
          for (int c = 0; c < 16; ++c) {
            EXPECT_EQ(std::isnan(reference::Load(o, dtype, i * 16 + c)), i >= 40) << ToString(d) << form << i;
          }
        }
        // Row 39 by hand.
        const auto got = [&](int c) { return reference::Load(o, dtype, 39 * 16 + c); };
        std::vector<double> p(40);
        double sum = 0;
        for (int j = 0; j < 40; ++j) {
          double s = 0;
          for (int c = 0; c < 16; ++c)
            s += reference::Load(q, dtype, 39 * 16 + c) * reference::Load(k, dtype, j * 16 + c);
          sum += p[j] = std::exp(s / 4);
        }
        for (int c = 0; c < 16; ++c) {
          double want = 0;
          for (int j = 0; j < 40; ++j) want += p[j] / sum * reference::Load(v, dtype, j * 16 + c);
          EXPECT_NEAR(got(c), want, 2 * UnitRoundoff(dtype) + 1e-5);
        }
      }
    }
  }
}

TEST(CudaAttention, RunsInItsOwnScratchAndChecksWhenAsked) {
  const Desc d{.seqlen_q = 2, .seqlen_kv = 3, .head_dim = 4};
  const std::vector<float> x(12, 1.0f);
  std::vector<float> o(8);
  MultiHeadAttentionTensors t{.q = x.data(), .k = x.data(), .v = x.data(), .o = o.data()};
  for (const char* form : {"flash", "split_kv"}) {
    const auto op = MultiHeadAttention::Prepare(d, {}, {.backend = Backend::kCuda, .implementation = form});
    ASSERT_TRUE(op.ok()) << op.status().message();
    EXPECT_EQ(op->implementation(), std::string("cuda/") + form);
    o.assign(8, 0);
    ASSERT_TRUE(op->Run(t).ok());
    EXPECT_EQ(o, std::vector<float>(8, 1.0f));

    const std::vector<int32_t> lengths{4};  // beyond the last key: clamped
    t.key_lengths = lengths.data();
    ASSERT_TRUE(op->Run(t).ok());
    EXPECT_EQ(o, std::vector<float>(8, 1.0f));
    setenv("LAMINA_VALIDATE", "1", 1);
    EXPECT_NE(op->Run(t).message().find("key_lengths must lie in [0, seqlen_kv], got batch=0 key_length=4"),
              std::string::npos)
        << op->Run(t).message();
    cuda::emulator::TheFaults().host_memory = x.data();
    EXPECT_NE(op->Run(t).message().find("q must be device memory"), std::string::npos);
    cuda::emulator::TheFaults() = {};
    unsetenv("LAMINA_VALIDATE");
    t.key_lengths = nullptr;
    cuda::emulator::TheFaults().launch = 719;
    EXPECT_EQ(op->Run(t).code(), StatusCode::kDeviceError);
    cuda::emulator::TheFaults() = {};
  }
}

TEST(CudaAttention, TheFormFollowsTheProblem) {
  const auto chosen = [](const Desc& d) {
    return MultiHeadAttention::Prepare(d, {}, {.backend = Backend::kCuda})->implementation();
  };
  Desc d{.num_heads = 16, .seqlen_q = 1, .seqlen_kv = 4096, .head_dim = 128, .dtype = DType::kBf16};
  EXPECT_EQ(chosen(d), "cuda/split_kv");
  d.seqlen_q = 4096;
  EXPECT_EQ(chosen(d), "cuda/flash_wgmma");
  d.softcap = 2;
  EXPECT_EQ(chosen(d), "cuda/flash");
}

}  // namespace
}  // namespace lamina::harness
