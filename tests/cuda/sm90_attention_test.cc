// Attention of Hopper through multi_head_attention: edges of its tiles, every rule, NaN where no key is, what it
// refuses.
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "harness/multi_head_attention.h"
#include "kernels/cuda/core/attention_schedule.h"
#include "kernels/cuda/emulator/runtime.h"
#include "reference/element.h"
#include "tests/cuda/emulated.h"

namespace lamina::harness {
namespace {

using Desc = MultiHeadAttentionDesc;
constexpr char kName[] = "cuda/flash_wgmma";

// Few multiprocessors, so that every block takes several tiles.
class Sm90Attention : public testing::Test {
 protected:
  void SetUp() override { cuda::emulator::TheFaults().multiprocessors = 2; }
  void TearDown() override { cuda::emulator::TheFaults() = {}; }

  // The seed decides on lengths (NaN behind them), lse, caches and position.
  static void Check(Desc d, uint64_t seed) {
    d.dtype = seed % 2 ? DType::kBf16 : DType::kF16;
    ExpectEmulatedParity<MultiHeadAttention>(d, 1, seed, kName);
  }
  // Why the kernel does not take `d`.
  static std::string Refusal(const Desc& d) {
    const auto reports = MultiHeadAttention::Candidates(d, {.backend = Backend::kCuda});
    for (const CandidateReport& r : *reports) {
      if (r.name == kName) return r.reason;
    }
    return "not offered";
  }
};

TEST_F(Sm90Attention, TilesOfHeadsCoverEveryQueryOnce) {
  for (const int64_t right : {-1, 0}) {
    cuda::AttentionArgs a;
    a.batch = 2, a.num_heads = 3, a.seqlen_q = 300, a.rule.right = right;
    std::set<std::tuple<int, int, int>> seen;
    const auto tiles = static_cast<int>(cuda::HeadTiles(a, 128));
    EXPECT_EQ(tiles, 18);
    for (int i = 0; i < tiles; ++i) {
      const cuda::HeadTile t = cuda::HeadTileAt(a, i, 128);
      EXPECT_TRUE(t.b >= 0 && t.b < 2 && t.head >= 0 && t.head < 3 && t.row % 128 == 0 && t.row < 300);
      if (right == 0) {
        EXPECT_EQ(t.row, (2 - i / 6) * 128);
      }
      seen.insert({t.b, t.head, t.row});
    }
    EXPECT_EQ(seen.size(), 18u);
  }
}

// Just below, at and above the edges of tiles: 16, 64 and 128 rows, 128 keys; more tiles of keys than stages.
TEST_F(Sm90Attention, EdgesOfTiles) {
  uint64_t seed = 200;
  Check({.seqlen_q = 1, .seqlen_kv = 1, .head_dim = 64}, ++seed);
  Check({.seqlen_q = 64, .seqlen_kv = 128, .head_dim = 64}, ++seed);
  Check({.seqlen_q = 65, .seqlen_kv = 127, .head_dim = 64}, ++seed);
  Check({.seqlen_q = 130, .seqlen_kv = 129, .head_dim = 64}, ++seed);
  Check({.seqlen_q = 128, .seqlen_kv = 257, .head_dim = 64}, ++seed);
  Check({.num_heads = 3, .seqlen_q = 30, .seqlen_kv = 700, .head_dim = 64}, ++seed);
}

TEST_F(Sm90Attention, EveryWidth) {
  uint64_t seed = 220;
  for (const int64_t head_dim : {128, 256}) {
    for (const int64_t seqlen_kv : {60, 330}) {
      Check({.seqlen_q = 140, .seqlen_kv = seqlen_kv, .head_dim = head_dim, .causal = Causal::kBottomRight}, ++seed);
      Check({.batch = 2, .seqlen_q = 20, .seqlen_kv = seqlen_kv, .head_dim = head_dim}, ++seed);
    }
  }
}

TEST_F(Sm90Attention, EveryRule) {
  uint64_t seed = 240;
  const auto check = [&](const auto& change) {
    Desc d{.batch = 2, .num_heads = 2, .num_kv_heads = 1, .seqlen_q = 140, .seqlen_kv = 300, .head_dim = 64};
    change(d);
    Check(d, ++seed);
  };
  check([](Desc& d) { d.num_heads = 4, d.num_kv_heads = 2, d.seqlen_q = 20; });
  check([](Desc& d) { d.causal = Causal::kTopLeft; });
  check([](Desc& d) { d.causal = Causal::kBottomRight, d.seqlen_kv = 40; });  // queries without keys
  check([](Desc& d) { d.causal = Causal::kBottomRight, d.window_left = 37; });
  check([](Desc& d) { d.window_left = 11, d.window_right = 150, d.scale = 0.3f; });
  check([](Desc& d) { d.window_left = d.window_right = 0, d.causal = Causal::kTopLeft; });
  check([](Desc& d) { d.window_left = 3, d.window_right = 1000; });
}

TEST_F(Sm90Attention, LayoutsAndStrides) {
  uint64_t seed = 260;
  Desc d{.batch = 2, .num_heads = 2, .seqlen_q = 70, .seqlen_kv = 90, .head_dim = 64};
  d.layout = AttentionLayout::kBhsd;
  Check(d, ++seed);
  d.q = {.batch = 2 * 70 * 72, .row = 72, .head = 70 * 72};
  d.o = {.batch = 2 * 70 * 80, .row = 80, .head = 70 * 80};
  Check(d, ++seed);
  d.layout = AttentionLayout::kBshd;
  d.q = d.o = {};
  d.k = {.batch = 90 * 400, .row = 400, .head = 200};
  Check(d, ++seed);
}

TEST_F(Sm90Attention, Projections) {
  for (uint64_t seed = 280; seed < 283; ++seed) {
    Desc d{.batch = 2, .num_heads = 2, .num_kv_heads = 1, .seqlen_q = 9, .seqlen_kv = 9, .head_dim = 64};
    d.projections = true;
    d.model_dim = 24;
    d.causal = Causal::kBottomRight;
    Check(d, seed);
    d.seqlen_kv = 40;  // caches
    Check(d, seed);
  }
}

// One head of 64 channels, inputs as a test wants them.
struct Problem {
  explicit Problem(int queries, int keys) : d{.seqlen_q = queries, .seqlen_kv = keys, .head_dim = 64} {
    d.dtype = DType::kBf16;
    q.assign(static_cast<size_t>(queries) * 64 + 8, 0);
    k = v = std::vector<uint16_t>(static_cast<size_t>(keys) * 64 + 8, 0x3f80);  // ones
    o.assign(static_cast<size_t>(queries) * 64 + 8, 0);
  }
  void SetRow(std::vector<uint16_t>& to, int row, double value) const {
    for (int c = 0; c < 64; ++c) reference::Store(value, d.dtype, to.data(), row * 64 + c);
  }
  std::vector<double> Run(const MultiHeadAttention& op, const int32_t* lengths, size_t off = 0,
                          float* weights = nullptr) {
    EXPECT_TRUE(op.Run({.q = q.data() + off,
                        .k = k.data() + off,
                        .v = v.data() + off,
                        .o = o.data() + off,
                        .key_lengths = lengths,
                        .weights = weights})
                    .ok());
    std::vector<double> rows;
    for (int i = 0; i < d.seqlen_q; ++i) rows.push_back(reference::Load(o.data() + off, d.dtype, i * 64 + 63));
    return rows;
  }
  MultiHeadAttention Prepare() const {
    return *MultiHeadAttention::Prepare(d, {}, {.backend = Backend::kCuda, .implementation = kName});
  }
  Desc d;
  std::vector<uint16_t> q, k, v, o;
};

// NaN and infinity behind the key length, in a tile of its own and in the last one, and at key 40, which the causal
// rule hides from queries before it.
TEST_F(Sm90Attention, WhatIsNotKeptHasNoInfluence) {
  cuda::emulator::UnderBothSchedules([] {
    for (const int32_t length : {0, 1, 100, 128, 150}) {
      Problem p(70, 300);
      for (int j = length; j < 300; ++j) {
        p.SetRow(p.k, j, NAN);
        p.SetRow(p.v, j, j % 2 ? NAN : INFINITY);
      }
      EXPECT_EQ(p.Run(p.Prepare(), &length), std::vector<double>(70, length > 0));
    }
    Problem p(70, 70);
    p.d.causal = Causal::kTopLeft;
    p.SetRow(p.k, 40, NAN);
    p.SetRow(p.v, 40, INFINITY);
    const std::vector<double> rows = p.Run(p.Prepare(), nullptr);
    for (int i = 0; i < 70; ++i) {
      EXPECT_TRUE(i < 40 ? rows[i] == 1 : std::isnan(rows[i])) << i;
    }
  });
}

// One operator: other pointers, such that TMA does not take, and weights, which the portable kernel gives.
TEST_F(Sm90Attention, RunTakesAnyTensors) {
  Problem p(5, 4), halves(5, 4);
  for (int j = 0; j < 4; ++j) halves.SetRow(halves.v, j, 0.5);
  const MultiHeadAttention op = p.Prepare();
  EXPECT_EQ(op.implementation(), std::string(kName));
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(p.Run(op, nullptr), std::vector<double>(5, 1));
    EXPECT_EQ(halves.Run(op, nullptr), std::vector<double>(5, 0.5));
    EXPECT_EQ(p.Run(op, nullptr, 1), std::vector<double>(5, 1));
  }
  std::vector<float> weights(20);
  EXPECT_EQ(p.Run(op, nullptr, 0, weights.data()), std::vector<double>(5, 1));
  EXPECT_EQ(weights, std::vector<float>(20, 0.25f));
  const int32_t beyond = 5;  // clamped
  EXPECT_EQ(p.Run(op, &beyond), std::vector<double>(5, 1));
}

TEST_F(Sm90Attention, RefusesWhatItDoesNotTake) {
  const auto refusal = [](const auto& change) {
    Desc d{.batch = 2, .num_heads = 2, .seqlen_q = 70, .seqlen_kv = 90, .head_dim = 64, .dtype = DType::kBf16};
    change(d);
    return Refusal(d);
  };
  const auto contains = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  EXPECT_EQ(refusal([](Desc&) {}), "");
  EXPECT_EQ(refusal([](Desc& d) { d.dtype = DType::kF32; }), "multiplies 16-bit elements, got f32");
  EXPECT_EQ(refusal([](Desc& d) { d.head_dim = 72; }), "takes head_dim = value_dim = 64, 128 or 256, got 72 and 72");
  EXPECT_EQ(refusal([](Desc& d) { d.value_dim = 32; }), "takes head_dim = value_dim = 64, 128 or 256, got 64 and 32");
  EXPECT_EQ(refusal([](Desc& d) { d.mask = true; }), "leaves keys out by length, causal rule and window, got a mask");
  EXPECT_EQ(refusal([](Desc& d) { d.bias = true; }), "adds nothing to scores, got a bias");
  EXPECT_EQ(refusal([](Desc& d) { d.alibi = true; }), "adds nothing to scores, got alibi slopes");
  EXPECT_EQ(refusal([](Desc& d) { d.softcap = 2; }), "takes scores as they are, got a softcap");
  EXPECT_TRUE(contains(refusal([](Desc& d) { d.scale = -1; }), "takes a positive scale, got -1"));
  EXPECT_TRUE(contains(refusal([](Desc& d) { d.seqlen_kv = 0; }), "1 to 2^32 elements along a dimension, got 0"));
  EXPECT_TRUE(contains(refusal([](Desc& d) { d.k = {.batch = 90 * 140, .row = 140, .head = 68}; }),
                       "takes strides of a multiple of 16 bytes"));
  EXPECT_TRUE(contains(refusal([](Desc& d) { d.o = {.batch = 70 * 140, .row = 140, .head = 68}; }),
                       "stores rows that begin at multiples of 16 bytes"));
  cuda::emulator::TheFaults().capability = 80;
  EXPECT_EQ(refusal([](Desc&) {}), "is for compute capability 9.0, got 8.0");
}

}  // namespace
}  // namespace lamina::harness
