#include "lamina/multi_head_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "harness/multi_head_attention.h"

namespace lamina {
namespace {

using Desc = MultiHeadAttentionDesc;
using harness::CheckParity;

void ExpectParity(const Desc& d, const harness::ParityOptions& options = {}) {
  const auto report = CheckParity<MultiHeadAttention>(d, options);
  EXPECT_GT(report.passed, 0) << ToString(d);
  EXPECT_EQ(report.refused, 0) << ToString(d);
  for (const auto& failure : report.failures) ADD_FAILURE() << failure;
}

// ---- Parity
// ----------------------------------------------------------------------------------------------------------

TEST(MultiHeadAttentionReference, BackendRunsTheLoops) {
  const Desc plain{.batch = 2,
                   .num_heads = 4,
                   .num_kv_heads = 2,
                   .seqlen_q = 5,
                   .seqlen_kv = 7,
                   .head_dim = 3,
                   .value_dim = 2,
                   .causal = Causal::kBottomRight,
                   .mask = true,
                   .bias = true,
                   .alibi = true,
                   .softcap = 20};
  Desc layer = plain;
  layer.projections = true;
  layer.model_dim = 6;
  Desc cross = layer;
  cross.memory_dim = 5;
  for (const auto& d : {plain, layer, cross}) {
    for (uint64_t seed = 0; seed < 16; ++seed) ExpectParity(d, {.backend = Backend::kReference, .seed = seed});
  }
}

// Just below, at and above the edges: vectors of queries (1, 4, 8, 16), blocks (12, 24, 32, 64), tiles of keys (4, 6,
// 8, 64), splits (512); channels of a transposed piece (4), of a vector and of a tile.
TEST(MultiHeadAttentionParity, QueryEdges) {
  uint64_t seed = 0;
  for (int64_t seqlen_q : {1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 24, 25, 31, 33, 48, 49, 63, 64, 65, 97}) {
    ExpectParity({.num_heads = 2, .seqlen_q = seqlen_q, .seqlen_kv = 19, .head_dim = 5}, {.seed = ++seed});
  }
}

TEST(MultiHeadAttentionParity, KeyEdges) {
  uint64_t seed = 0;
  for (int64_t seqlen_kv : {0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 71, 127, 129, 511, 512, 513, 1030}) {
    ExpectParity({.num_heads = 2, .seqlen_q = 3, .seqlen_kv = seqlen_kv, .head_dim = 6}, {.seed = ++seed});
    ExpectParity({.seqlen_q = 18, .seqlen_kv = seqlen_kv, .head_dim = 3}, {.seed = ++seed});
  }
}

TEST(MultiHeadAttentionParity, ChannelEdges) {
  uint64_t seed = 0;
  for (int64_t dim : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 72, 128, 255, 256}) {
    for (int64_t value_dim : {dim, 257 - dim}) {
      const Desc d{.seqlen_q = 6, .seqlen_kv = 9, .head_dim = dim, .value_dim = value_dim};
      ExpectParity(d, {.threads = {1}, .seed = ++seed});
    }
  }
}

TEST(MultiHeadAttentionParity, RealLayers) {
  const harness::ParityOptions options{.threads = {1, 2}, .tensors = {{harness::Fill::kNormal, harness::Guard::kEnd}}};
  ExpectParity({.num_heads = 2, .seqlen_q = 128, .seqlen_kv = 128, .head_dim = 64}, options);
  ExpectParity({.seqlen_q = 197, .seqlen_kv = 197, .head_dim = 72, .layout = AttentionLayout::kBhsd}, options);
  ExpectParity({.seqlen_q = 300, .seqlen_kv = 300, .head_dim = 64, .causal = Causal::kTopLeft}, options);
  ExpectParity({.num_heads = 8, .num_kv_heads = 2, .seqlen_q = 1, .seqlen_kv = 1200, .head_dim = 128}, options);
  ExpectParity({.num_heads = 2,
                .seqlen_q = 200,
                .seqlen_kv = 200,
                .head_dim = 32,
                .causal = Causal::kBottomRight,
                .window_left = 40},
               options);
}

// Descriptors with every option drawn by chance, so that any two of them meet.
TEST(MultiHeadAttentionParity, OptionsCombine) {
  for (uint64_t seed = 1; seed <= 90; ++seed) {
    harness::TensorStore random(harness::Fill::kNormal, harness::Guard::kEnd, seed * 1000);
    const auto below = [&](int64_t bound) { return random.RandomBelow(bound); };
    Desc d;
    d.batch = 1 + below(3);
    d.num_kv_heads = 1 + below(3);
    d.num_heads = d.num_kv_heads * (1 + below(4));
    d.seqlen_q = 1 + below(seed % 3 == 0 ? 70 : 9);
    d.seqlen_kv = below(seed % 4 == 0 ? 150 : 30);
    d.head_dim = 1 + below(20);
    if (below(2)) d.value_dim = 1 + below(20);
    if (below(3) == 0) d.scale = below(2) ? 0.3f : -0.2f;
    d.causal = static_cast<Causal>(below(3));
    if (below(3) == 0) d.window_left = below(12);
    if (below(3) == 0) d.window_right = below(12);
    d.mask = below(3) == 0;
    if (below(2)) d.mask_batch = d.batch;
    if (below(2)) d.mask_heads = d.num_heads;
    d.bias = below(3) == 0;
    if (below(2)) d.bias_batch = d.batch;
    if (below(2)) d.bias_heads = d.num_heads;
    d.alibi = below(4) == 0;
    if (below(4) == 0) d.softcap = 2.5f;
    d.layout = static_cast<AttentionLayout>(below(2));
    ExpectParity(d, {.threads = {1, 3}, .seed = seed});
  }
}

TEST(MultiHeadAttentionParity, Strides) {
  // q, k and v interleaved in one row of a tensor; o a slice of wider rows; heads or batches that lie apart.
  const Desc packed{.batch = 2,
                    .num_heads = 3,
                    .seqlen_q = 10,
                    .seqlen_kv = 10,
                    .head_dim = 8,
                    .q = {.batch = 10 * 72, .row = 72},
                    .k = {.batch = 10 * 72, .row = 72},
                    .v = {.batch = 10 * 72, .row = 72},
                    .o = {.batch = 500, .row = 29, .head = 9}};
  ExpectParity(packed);
  Desc apart = packed;
  apart.layout = AttentionLayout::kBhsd;
  apart.q = apart.k = apart.v = {.batch = 400, .row = 11, .head = 120};
  apart.o = {.batch = 8, .row = 16 * 3, .head = 16};  // batch elements side by side within a head
  ExpectParity(apart);
}

TEST(MultiHeadAttentionParity, EmptyProblemsDoNothing) {
  for (const Desc& d : {Desc{.batch = 0, .seqlen_q = 3, .seqlen_kv = 3, .head_dim = 4},
                        Desc{.seqlen_q = 0, .seqlen_kv = 3, .head_dim = 4}}) {
    const auto op = MultiHeadAttention::Prepare(d, {});
    ASSERT_TRUE(op.ok()) << op.status().message();
    EXPECT_TRUE(op->Run({}).ok());
  }
}

TEST(MultiHeadAttentionLayer, SelfAttention) {
  uint64_t seed = 0;
  for (int64_t model_dim : {1, 24, 33}) {
    Desc d{.batch = 2,
           .num_heads = 4,
           .num_kv_heads = 2,
           .seqlen_q = 9,
           .seqlen_kv = 9,
           .head_dim = 5,
           .value_dim = 3,
           .causal = Causal::kBottomRight,
           .projections = true,
           .model_dim = model_dim};
    for (int i = 0; i < 4; ++i) ExpectParity(d, {.seed = ++seed});  // with and without caches and lengths
    d.seqlen_kv = 30;                                               // caches with room
    d.layout = AttentionLayout::kBhsd;
    d.projection_bias = false;
    for (int i = 0; i < 4; ++i) ExpectParity(d, {.seed = ++seed});
    d.seqlen_q = 1;
    d.alibi = true;
    d.x_stride = model_dim + 3;
    d.y_stride = model_dim + 1;
    d.k = {.batch = 30 * 5 * 2 + 9, .row = 6, .head = 30 * 6};
    d.k.batch = 2 * d.k.head + 9;
    for (int i = 0; i < 2; ++i) ExpectParity(d, {.seed = ++seed});
  }
}

TEST(MultiHeadAttentionLayer, CrossAttention) {
  uint64_t seed = 0;
  Desc d{.batch = 2,
         .num_heads = 3,
         .seqlen_q = 4,
         .seqlen_kv = 21,
         .head_dim = 8,
         .projections = true,
         .model_dim = 17,
         .memory_dim = 11};
  for (int i = 0; i < 8; ++i) ExpectParity(d, {.seed = ++seed});
  d.memory_stride = 20;
  d.mask = true;
  d.seqlen_q = 40;
  for (int i = 0; i < 3; ++i) ExpectParity(d, {.seed = ++seed});
  d.seqlen_kv = 0;
  ExpectParity(d);
}

// ---- Rules, text, cost
// -----------------------------------------------------------------------------------------------

TEST(MultiHeadAttentionText, ReadsWhatItPrints) {
  const Desc d{.batch = 2,
               .num_heads = 4,
               .num_kv_heads = 2,
               .seqlen_q = 3,
               .seqlen_kv = 5,
               .head_dim = 8,
               .value_dim = 9,
               .scale = 0.1f,
               .causal = Causal::kBottomRight,
               .window_left = 4,
               .window_right = 0,
               .mask = true,
               .mask_batch = 2,
               .mask_heads = 4,
               .bias = true,
               .bias_batch = 2,
               .bias_heads = 4,
               .alibi = true,
               .softcap = 30.0f,
               .layout = AttentionLayout::kBhsd,
               .k = {.row = 100},
               .v = {.batch = 7000, .head = 11},
               .projections = true,
               .model_dim = 16,
               .memory_dim = 12,
               .projection_bias = false,
               .x_stride = 17,
               .memory_stride = 13,
               .y_stride = 18};
  const auto read = ParseMultiHeadAttention(ToString(d));
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(*read, d) << ToString(*read);
  EXPECT_EQ(ToString(Desc{.seqlen_q = 1, .seqlen_kv = 2048, .head_dim = 128}),
            "multi_head_attention seqlen_q=1 seqlen_kv=2048 head_dim=128");
}

const Desc kValid{.batch = 2, .num_heads = 4, .seqlen_q = 3, .seqlen_kv = 5, .head_dim = 8};

TEST(MultiHeadAttentionRules, RefuseNonsenseWithTheReason) {
  const auto expect = [](auto change, const char* sentence) {
    Desc d = kValid;
    change(d);
    const Status s = d.Validate();
    EXPECT_EQ(s.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(s.message().find(sentence), std::string::npos) << s.message();
    EXPECT_EQ(s.message().find(ToString(d) + ": "), 0u) << s.message();
  };
  const int64_t huge = int64_t{1} << 40;
  expect([](Desc& d) { d.batch = -1; }, "batch, seqlen_q and seqlen_kv must not be negative, got batch=-1");
  expect([](Desc& d) { d.seqlen_q = -2; }, "must not be negative, got batch=2 seqlen_q=-2");
  expect([](Desc& d) { d.seqlen_kv = -3; }, "seqlen_kv=-3");
  expect([](Desc& d) { d.num_heads = 0; }, "num_heads must be at least 1, got num_heads=0");
  expect([](Desc& d) { d.num_kv_heads = 3; }, "num_kv_heads must divide num_heads, got num_heads=4 num_kv_heads=3");
  expect([](Desc& d) { d.num_kv_heads = -1; }, "num_kv_heads must divide num_heads, got num_heads=4 num_kv_heads=-1");
  expect([](Desc& d) { d.head_dim = 0; }, "head_dim must be 1 to 256, got head_dim=0");
  expect([](Desc& d) { d.head_dim = 257; }, "head_dim must be 1 to 256, got head_dim=257");
  expect([](Desc& d) { d.value_dim = 300; }, "value_dim must be 1 to 256, or 0 for head_dim, got value_dim=300");
  expect([&](Desc& d) { d.seqlen_kv = huge; }, "must be less than 2^31");
  expect([](Desc& d) { d.scale = INFINITY; }, "scale must be finite, got scale=inf");
  expect([](Desc& d) { d.softcap = -1; }, "softcap must be finite and not negative, got softcap=-1");
  expect([](Desc& d) { d.window_left = -2; }, "must be at least -1 (-1 keeps all), got window_left=-2");
  expect([](Desc& d) { d.causal = static_cast<Causal>(9); }, "every enumerated field must hold one of its members");
  expect([](Desc& d) { d.mask = true, d.mask_heads = 3; },
         "mask_batch must be 1 or batch and mask_heads 1 or num_heads");
  expect([](Desc& d) { d.bias = true, d.bias_batch = 5; },
         "bias_batch must be 1 or batch and bias_heads 1 or num_heads");
  expect([](Desc& d) { d.q.row = -8; }, "strides of q must not be negative, got batch=0 row=-8 head=0");
  expect([](Desc& d) { d.k.row = 31; }, "strides of k must not make its rows overlap, got batch=160 row=31 head=8");
  expect([](Desc& d) { d.v.head = 7; }, "strides of v must not make its rows overlap");
  expect([](Desc& d) { d.o.batch = 95; }, "strides of o must not make its rows overlap");
  expect([&](Desc& d) { d.q.batch = huge << 21; }, "the size of q overflows");
  expect([&](Desc& d) { d.batch = huge << 10; }, "overflows");
  expect([](Desc& d) { d.model_dim = 4; }, "need projections=1");
  const auto layer = [&](auto change, const char* sentence) {
    expect([&](Desc& d) { d.projections = true, d.model_dim = 16, change(d); }, sentence);
  };
  layer([](Desc& d) { d.model_dim = 0; }, "model_dim must be at least 1 and memory_dim at least 0, got model_dim=0");
  layer([](Desc& d) { d.seqlen_q = 6; }, "seqlen_kv must be at least seqlen_q, got seqlen_q=6 seqlen_kv=5");
  layer([](Desc& d) { d.q.row = 32; }, "strides of q and o must be 0 with projections");
  layer([](Desc& d) { d.x_stride = 15; }, "x_stride and y_stride must be 0 or at least model_dim");
  layer([](Desc& d) { d.memory_dim = 9, d.memory_stride = 8; }, "memory_stride 0 or at least memory_dim");
  layer([](Desc& d) { d.memory_stride = 16; }, "memory_stride needs memory_dim");
  layer([&](Desc& d) { d.model_dim = huge; }, "model_dim and memory_dim must be less than 2^31");
  EXPECT_TRUE(kValid.Validate().ok());
}

TEST(MultiHeadAttentionRules, RunRefusesTensors) {
  const auto op = MultiHeadAttention::Prepare(kValid, {});
  ASSERT_TRUE(op.ok());
  const std::vector<float> in(2 * 5 * 4 * 8);  // as large as the largest
  std::vector<float> out(in.size());
  const MultiHeadAttentionTensors good{.q = in.data(), .k = in.data(), .v = in.data(), .o = out.data()};
  ASSERT_TRUE(op->Run(good).ok());
  const auto expect = [&](const MultiHeadAttention& on, const MultiHeadAttentionTensors& from, auto change,
                          const char* sentence) {
    MultiHeadAttentionTensors t = from;
    change(t);
    const Status s = on.Run(t);
    EXPECT_EQ(s.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(s.message().find(sentence), std::string::npos) << s.message();
  };
  using T = MultiHeadAttentionTensors;
  const int32_t lengths[] = {5, 6}, negative[] = {-1, 5};
  bool mask[1] = {};
  expect(
      *op, good, [](T& t) { t.q = nullptr; }, "q must not be null");
  expect(
      *op, good, [](T& t) { t.k = nullptr; }, "k must not be null");
  expect(
      *op, good, [](T& t) { t.v = nullptr; }, "v must not be null");
  expect(
      *op, good, [](T& t) { t.o = nullptr; }, "o must not be null");
  expect(
      *op, good, [&](T& t) { t.key_lengths = lengths; },
      "key_lengths must lie in [0, seqlen_kv], got batch=1 key_length=6");
  expect(
      *op, good, [&](T& t) { t.key_lengths = negative; }, "got batch=0 key_length=-1");
  expect(
      *op, good, [&](T& t) { t.mask = mask; }, "mask must be given when the descriptor has one, and only then");
  expect(
      *op, good, [&](T& t) { t.bias = in.data(); }, "bias must be given when the descriptor has one, and only then");
  expect(
      *op, good, [&](T& t) { t.alibi_slopes = in.data(); }, "alibi_slopes must be given when alibi=1, and only then");
  expect(
      *op, good, [](T& t) { t.position = 1; }, "need projections=1");
  EXPECT_NE(op->Run(good, out.data() + 1).message().find("scratch must lie at a multiple of 64 bytes"),
            std::string::npos);

  Desc d = kValid;
  d.projections = true;
  d.model_dim = 8;
  EXPECT_NE(MultiHeadAttention::Prepare(d, {}).status().message().find("weights wq, wk, wv and wo must not be null"),
            std::string::npos);
  const std::vector<float> w(8 * 32), b(32), x(2 * 5 * 8);
  std::vector<float> y(2 * 3 * 8), cache(2 * 5 * 32);
  const MultiHeadAttentionWeights no_bias{w.data(), w.data(), w.data(), w.data()};
  EXPECT_NE(
      MultiHeadAttention::Prepare(d, no_bias).status().message().find("weights bq, bk, bv and bo must not be null"),
      std::string::npos);
  const MultiHeadAttentionWeights weights{w.data(), w.data(), w.data(), w.data(),
                                          b.data(), b.data(), b.data(), b.data()};
  const auto self = MultiHeadAttention::Prepare(d, weights);
  d.memory_dim = 8;
  const auto cross = MultiHeadAttention::Prepare(d, weights);
  ASSERT_TRUE(self.ok() && cross.ok());
  const T cached{.x = x.data(), .y = y.data(), .k_cache = cache.data(), .v_cache = cache.data()};
  expect(
      *self, cached, [](T& t) { t.x = nullptr; }, "x must not be null");
  expect(
      *self, cached, [](T& t) { t.y = nullptr; }, "y must not be null");
  expect(
      *self, cached, [&](T& t) { t.q = x.data(); }, "q, k, v and o must be null with projections=1");
  expect(
      *self, cached, [](T& t) { t.v_cache = nullptr; }, "k_cache and v_cache must be given both or neither");
  expect(
      *self, cached, [&](T& t) { t.memory = x.data(); }, "memory needs memory_dim");
  expect(
      *self, cached, [](T& t) { t.position = 3; }, "position must lie in [0, seqlen_kv - seqlen_q], got position=3");
  expect(
      *self, cached, [](T& t) { t.k_cache = t.v_cache = nullptr; },
      "without caches position must be 0 and seqlen_kv = seqlen_q");
  expect(
      *cross, cached, [](T& t) { t.k_cache = t.v_cache = nullptr; },
      "without memory the caches must hold its keys and values");
  expect(
      *cross, cached, [](T& t) { t.position = 1; }, "position must be 0 in cross-attention, got position=1");
}

TEST(MultiHeadAttentionRules, OtherTypesAreRefusedByTheCpu) {
  Desc d = kValid;
  d.dtype = DType::kBf16;
  const auto op = MultiHeadAttention::Prepare(d, {});
  EXPECT_EQ(op.status().code(), StatusCode::kNotBuilt);
  EXPECT_NE(op.status().message().find("only dtype=f32 is computed on the CPU"), std::string::npos);
}

TEST(MultiHeadAttentionCost, CountsThePairsThatCausalAndWindowKeep) {
  for (int64_t seqlen_q : {0, 1, 4, 9, 20}) {
    for (int64_t seqlen_kv : {0, 1, 7, 20}) {
      for (int64_t left : {-1, 0, 3, 30}) {
        for (int64_t right : {-1, 0, 2, 30}) {
          for (Causal causal : {Causal::kNone, Causal::kTopLeft, Causal::kBottomRight}) {
            const Desc d{.batch = 2,
                         .num_heads = 3,
                         .seqlen_q = seqlen_q,
                         .seqlen_kv = seqlen_kv,
                         .head_dim = 5,
                         .value_dim = 6,
                         .causal = causal,
                         .window_left = left,
                         .window_right = right};
            int64_t pairs = 0;
            for (int64_t i = 0; i < seqlen_q; ++i) {
              const int64_t origin = i + (causal == Causal::kBottomRight ? seqlen_kv - seqlen_q : 0);
              for (int64_t j = 0; j < seqlen_kv; ++j) {
                pairs += (causal == Causal::kNone || j <= origin) && (left < 0 || j >= origin - left) &&
                         (right < 0 || j <= origin + right);
              }
            }
            EXPECT_EQ(CostOf(d).macs, 6 * pairs * 11) << ToString(d);
            EXPECT_EQ(CostOf(d).transcendentals, 6 * pairs + 6 * seqlen_q) << ToString(d);
          }
        }
      }
    }
  }
}

TEST(MultiHeadAttentionCost, CountsTheProjections) {
  // BERT-base's layer: 4 * 768^2 weights and 4 * 768 biases.
  Desc d{.num_heads = 12, .seqlen_q = 128, .seqlen_kv = 128, .head_dim = 64, .projections = true, .model_dim = 768};
  const Cost c = CostOf(d);
  EXPECT_EQ(c.params, 4 * 768 * 768 + 4 * 768);
  EXPECT_EQ(c.weight_bytes, 4 * c.params);
  EXPECT_EQ(c.macs, 128 * 4 * 768 * 768 + 12 * 128 * 128 * 128);
  EXPECT_EQ(c.activation_bytes, 4 * 2 * 128 * 768);
  d.memory_dim = 512;
  d.seqlen_kv = 50;
  d.projection_bias = false;
  EXPECT_EQ(CostOf(d).params, 2 * 768 * 768 + 2 * 768 * 512);
  EXPECT_EQ(CostOf(d).macs, 128 * 2 * 768 * 768 + 50 * 2 * 768 * 512 + 12 * 128 * 50 * 128);
}

}  // namespace
}  // namespace lamina
