// What must hold of any right attention, whatever the bound: tested on every SIMD target and form.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "harness/multi_head_attention.h"
#include "lamina/machine.h"
#include "lamina/multi_head_attention.h"

namespace lamina {
namespace {

using Desc = MultiHeadAttentionDesc;

// ---- Properties
// ------------------------------------------------------------------------------------------------------

// q, k, v of a problem in plain vectors, and what one run gives.
struct Example {
  explicit Example(const Desc& desc, uint64_t seed = 1) : d(desc) {
    harness::TensorStore store(harness::Fill::kNormal, harness::Guard::kEnd, seed);
    const auto fill = [&](std::vector<float>& x, int64_t count) {
      const float* data = store.Input(count);
      x.assign(data, data + count);
    };
    fill(q, d.batch * d.seqlen_q * d.num_heads * d.head_dim);
    fill(k, d.batch * d.seqlen_kv * d.kv_heads() * d.head_dim);
    fill(v, d.batch * d.seqlen_kv * d.kv_heads() * d.v_dim());
  }
  void Run(const Context& context = {}) {
    const auto op = MultiHeadAttention::Prepare(d, {}, context);
    ASSERT_TRUE(op.ok()) << op.status().message();
    const auto queries = static_cast<size_t>(d.batch * d.seqlen_q * d.num_heads);
    o.assign(queries * static_cast<size_t>(d.v_dim()), NAN);
    lse.assign(queries, NAN);
    MultiHeadAttentionTensors t = extra;
    t.q = q.data();
    t.k = k.data();
    t.v = v.data();
    t.o = o.data();
    t.lse = lse.data();
    const Status status = op->Run(t);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  // Twice the bound of harness/multi_head_attention.cc with the largest L and A that there can be: what two right
  // computations of one output differ by at most.
  double Bound() const {
    double l = 0, a = 0;
    for (float x : v) a = std::max(a, std::fabs(double{x}));
    double most_q = 0, most_k = 0;
    for (float x : q) most_q = std::max(most_q, std::fabs(double{x}));
    for (float x : k) most_k = std::max(most_k, std::fabs(double{x}));
    l = d.score_scale() * most_q * most_k * static_cast<double>(d.head_dim);
    return 2 * harness::kUnitRoundoff * a *
           ((std::sqrt(static_cast<double>(d.head_dim)) + 4) * l + std::sqrt(static_cast<double>(d.seqlen_kv)) + 8);
  }
  Desc d;
  std::vector<float> q, k, v, o, lse;
  MultiHeadAttentionTensors extra;
};

void ExpectNear(const std::vector<float>& a, const std::vector<float>& b, double bound) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], bound) << "element " << i;
}

constexpr const char* kForms[] = {"flash", "decode_split512"};

// f(context) for each SIMD target and form.
template <class F>
void ForEachForm(const F& f) {
  for (Isa isa : SupportedIsas()) {
    for (const char* form : kForms) {
      SCOPED_TRACE(std::string(ToString(isa)) + "/" + form);
      f(Context{.isa = isa, .implementation = form});
    }
  }
}

TEST(MultiHeadAttentionProperty, PermutingKeysChangesNothing) {
  Example e({.seqlen_q = 20, .seqlen_kv = 77, .head_dim = 16});
  Example permuted = e;
  for (int64_t j = 0; j < 77; ++j) {
    const int64_t to = j * 30 % 77;
    std::copy_n(&e.k[j * 16], 16, &permuted.k[to * 16]);
    std::copy_n(&e.v[j * 16], 16, &permuted.v[to * 16]);
  }
  ForEachForm([&](const Context& c) {
    e.Run(c);
    permuted.Run(c);
    ExpectNear(e.o, permuted.o, e.Bound());
  });
}

TEST(MultiHeadAttentionProperty, FirstCausalRowIsTheFirstValue) {
  Example e({.num_heads = 2, .seqlen_q = 70, .seqlen_kv = 70, .head_dim = 12, .causal = Causal::kTopLeft});
  ForEachForm([&](const Context& c) {
    e.Run(c);
    for (int i = 0; i < 24; ++i) EXPECT_EQ(e.o[i], e.v[i]);
  });
}

// Scores so far apart that the largest takes all the weight: the output is that value, exactly.
TEST(MultiHeadAttentionProperty, ADominantKeyTakesAll) {
  Example e({.seqlen_q = 40, .seqlen_kv = 90, .head_dim = 1, .value_dim = 7, .scale = 200.0f});
  for (int i = 0; i < 40; ++i) e.q[i] = i % 2 ? 1.0f : -1.0f;
  for (int j = 0; j < 90; ++j) e.k[j] = static_cast<float>((j * 37) % 90);  // largest 89 at j = 17, least 0 at j = 0
  const auto largest = static_cast<size_t>(std::max_element(e.k.begin(), e.k.end()) - e.k.begin());
  ForEachForm([&](const Context& c) {
    e.Run(c);
    for (size_t i = 0; i < 40; ++i) {
      for (size_t v = 0; v < 7; ++v) EXPECT_EQ(e.o[i * 7 + v], e.v[(i % 2 ? largest : 0) * 7 + v]);
    }
  });
}

TEST(MultiHeadAttentionProperty, OneStepIsTheLastRowOfAll) {
  Example all({.num_heads = 4,
               .num_kv_heads = 2,
               .seqlen_q = 37,
               .seqlen_kv = 37,
               .head_dim = 20,
               .causal = Causal::kBottomRight});
  Example step = all;
  step.d.seqlen_q = 1;
  step.q.assign(all.q.end() - 80, all.q.end());
  ForEachForm([&](const Context& c) {
    all.Run(c);
    step.Run(c);
    ExpectNear(step.o, {all.o.end() - 80, all.o.end()}, all.Bound());
  });
}

TEST(MultiHeadAttentionProperty, EachBatchElementStandsAlone) {
  Example both({.batch = 2, .num_heads = 2, .seqlen_q = 30, .seqlen_kv = 40, .head_dim = 8});
  Example second = both;
  second.d.batch = 1;
  second.q.erase(second.q.begin(), second.q.begin() + 30 * 16);
  second.k.erase(second.k.begin(), second.k.begin() + 40 * 16);
  second.v.erase(second.v.begin(), second.v.begin() + 40 * 16);
  ForEachForm([&](const Context& c) {
    both.Run(c);
    second.Run(c);
    EXPECT_EQ(second.o, std::vector<float>(both.o.begin() + 30 * 16, both.o.end()));
  });
}

TEST(MultiHeadAttentionProperty, SharedKeyHeadsAreRepeatedOnes) {
  for (int64_t seqlen_q : {1, 5, 40}) {
    Example shared({.num_heads = 6, .num_kv_heads = 2, .seqlen_q = seqlen_q, .seqlen_kv = 33, .head_dim = 8});
    Example repeated = shared;
    repeated.d.num_kv_heads = 0;
    for (auto [from, to] : {std::pair{&shared.k, &repeated.k}, {&shared.v, &repeated.v}}) {
      to->resize(33 * 6 * 8);
      for (size_t j = 0; j < 33; ++j) {
        for (size_t h = 0; h < 6; ++h) std::copy_n(&(*from)[(j * 2 + h / 3) * 8], 8, &(*to)[(j * 6 + h) * 8]);
      }
    }
    ForEachForm([&](const Context& c) {
      shared.Run(c);
      repeated.Run(c);
      ExpectNear(shared.o, repeated.o, shared.Bound());
    });
  }
}

// Causal, window, lengths and a bias of -inf say by themselves what a mask can say.
TEST(MultiHeadAttentionProperty, EveryMaskIsAMask) {
  const int64_t n = 50, length = 41;
  const int32_t lengths[] = {static_cast<int32_t>(length)};
  Example e({.seqlen_q = n, .seqlen_kv = n, .head_dim = 8, .causal = Causal::kBottomRight, .window_left = 17});
  e.extra.key_lengths = lengths;
  Example masked(Desc{.seqlen_q = n, .seqlen_kv = n, .head_dim = 8, .mask = true});
  Example biased(Desc{.seqlen_q = n, .seqlen_kv = n, .head_dim = 8, .bias = true});
  std::unique_ptr<bool[]> mask(new bool[n * n]);
  std::vector<float> bias(n * n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const int64_t origin = i + length - n;
      mask[i * n + j] = j < length && j <= origin && j >= origin - 17;
      bias[i * n + j] = mask[i * n + j] ? 0.0f : -INFINITY;
    }
  }
  masked.extra.mask = mask.get();
  biased.extra.bias = bias.data();
  ForEachForm([&](const Context& c) {
    e.Run(c);
    masked.Run(c);
    biased.Run(c);
    ExpectNear(e.o, masked.o, e.Bound());
    EXPECT_EQ(masked.o, biased.o);
    // The first nine queries keep nothing.
    EXPECT_EQ(std::vector<float>(e.o.begin(), e.o.begin() + 9 * 8), std::vector<float>(9 * 8, 0.0f));
    EXPECT_EQ(std::vector<float>(e.lse.begin(), e.lse.begin() + 9), std::vector<float>(9, -INFINITY));
    EXPECT_TRUE(std::isfinite(e.lse[9]));
  });
}

// Partial results over two parts of the keys, merged by their lse, are the result over all.
TEST(MultiHeadAttentionProperty, LseMergesPartsOfTheKeys) {
  Example all({.seqlen_q = 11, .seqlen_kv = 60, .head_dim = 8}), head = all, tail = all;
  head.d.seqlen_kv = 25;
  tail.d.seqlen_kv = 35;
  tail.k.erase(tail.k.begin(), tail.k.begin() + 25 * 8);
  tail.v.erase(tail.v.begin(), tail.v.begin() + 25 * 8);
  ForEachForm([&](const Context& c) {
    for (Example* e : {&all, &head, &tail}) e->Run(c);
    for (size_t i = 0; i < 11; ++i) {
      const double a = std::exp(double{head.lse[i]} - all.lse[i]), b = std::exp(double{tail.lse[i]} - all.lse[i]);
      EXPECT_NEAR(a + b, 1.0, all.Bound());
      for (size_t v = 0; v < 8; ++v) {
        EXPECT_NEAR(all.o[i * 8 + v], a * head.o[i * 8 + v] + b * tail.o[i * 8 + v], 2 * all.Bound());
      }
    }
  });
}

// ---- NaN and infinity
// ------------------------------------------------------------------------------------------------

float NanWithPayload() {
  const uint32_t bits = 0xffc0de5a;
  float nan;
  std::memcpy(&nan, &bits, sizeof(nan));
  return nan;
}

// Keys and values that come from memory are read in another order than those in caches.
TEST(MultiHeadAttentionProperty, CachesChangeNoBit) {
  Machine small = BuiltInMachine();
  small.l2.bytes = small.l3.bytes = 1;
  for (Isa isa : SupportedIsas()) {
    for (int64_t dim : {3, 64, 96, 128, 200, 256}) {
      Desc d;
      d.num_heads = 2, d.seqlen_q = 1, d.seqlen_kv = 131, d.head_dim = dim, d.layout = AttentionLayout::kBhsd;
      Example cached(d), streamed(d);
      cached.Run({.isa = isa, .implementation = "decode_split512"});
      streamed.Run({.isa = isa, .machine = &small, .implementation = "decode_split512"});
      EXPECT_EQ(cached.o, streamed.o) << ToString(isa) << " " << dim;
      EXPECT_EQ(cached.lse, streamed.lse) << ToString(isa) << " " << dim;
    }
  }
}

// A key that some queries keep and others do not, by each kind of mask: NaN in it reaches the first alone.
TEST(MultiHeadAttentionNan, DoesNotLeakFromKeysThatAreNotKept) {
  const int64_t n = 45, bad = 20;
  std::unique_ptr<bool[]> mask(new bool[n * n]);
  std::vector<float> bias(n * n);
  for (int64_t at = 0; at < n * n; ++at) {
    mask[at] = at % n != bad || at / n % 3 == 0;
    bias[at] = mask[at] ? 0.0f : -INFINITY;
  }
  for (int kind = 0; kind < 5; ++kind) {
    Desc d{.seqlen_q = n, .seqlen_kv = n, .head_dim = 6};
    if (kind == 0) d.causal = Causal::kTopLeft;
    if (kind == 1) d.window_left = 3;
    if (kind == 2) d.window_right = 3;
    if (kind == 3) d.mask = true;
    if (kind == 4) d.bias = true;
    Example clean(d);
    if (d.mask) clean.extra.mask = mask.get();
    if (d.bias) clean.extra.bias = bias.data();
    const auto keeps = [&](int64_t i) {
      return kind == 0 ? i >= bad : kind == 1 ? i <= bad + 3 : kind == 2 ? i >= bad - 3 : i % 3 == 0;
    };
    for (bool in_key : {true, false}) {
      for (float what : {NAN, NanWithPayload(), INFINITY}) {
        Example dirty = clean;
        (in_key ? dirty.k : dirty.v)[bad * 6 + 2] = what;
        ForEachForm([&](const Context& c) {
          SCOPED_TRACE("kind " + std::to_string(kind) + (in_key ? " key " : " value ") + std::to_string(what));
          clean.Run(c);
          dirty.Run(c);
          for (int64_t i = 0; i < n; ++i) {
            for (int64_t v = 0; v < 6; ++v) {
              const float got = dirty.o[i * 6 + v], want = clean.o[i * 6 + v];
              if (!keeps(i)) {
                EXPECT_EQ(got, want) << i;
              } else if (in_key && !std::isinf(what)) {
                EXPECT_TRUE(std::isnan(got)) << i;
              } else if (!in_key && v == 2) {
                EXPECT_TRUE(std::isinf(what) ? std::isinf(got) : std::isnan(got)) << i;
              } else if (!in_key) {
                EXPECT_EQ(got, want) << i;
              }
            }
          }
        });
      }
    }
  }
}

TEST(MultiHeadAttentionNan, InAQueryStaysInItsRow) {
  Example clean({.num_heads = 2, .seqlen_q = 21, .seqlen_kv = 70, .head_dim = 6});
  Example dirty = clean;
  dirty.q[(7 * 2 + 1) * 6 + 3] = NanWithPayload();
  ForEachForm([&](const Context& c) {
    clean.Run(c);
    dirty.Run(c);
    for (size_t i = 0; i < dirty.o.size(); ++i) {
      if (i / 6 == 7 * 2 + 1) {
        EXPECT_TRUE(std::isnan(dirty.o[i]));
      } else {
        EXPECT_EQ(dirty.o[i], clean.o[i]);
      }
    }
    EXPECT_TRUE(std::isnan(dirty.lse[21 + 7]));
  });
}

// ---- Projections
// -----------------------------------------------------------------------------------------------------

// A prompt, then single steps through operators that are reshaped from the prompt's, into one cache: the same as all at
// once.
TEST(MultiHeadAttentionLayer, GrowingCacheIsFullRecomputation) {
  const int64_t total = 23, prompt = 17, model_dim = 32;
  const Desc all{.batch = 2,
                 .num_heads = 4,
                 .num_kv_heads = 2,
                 .seqlen_q = total,
                 .seqlen_kv = total,
                 .head_dim = 8,
                 .causal = Causal::kBottomRight,
                 .projections = true,
                 .model_dim = model_dim};
  harness::TensorStore store(harness::Fill::kNormal, harness::Guard::kEnd, 3);
  harness::Case<MultiHeadAttention> c(all, store);
  c.tensors.key_lengths = nullptr;
  c.tensors.k_cache = c.tensors.v_cache = nullptr;
  const auto expected = c.Reference();
  const auto* x = static_cast<const float*>(c.tensors.x);
  for (Isa isa : SupportedIsas()) {
    const auto whole = MultiHeadAttention::Prepare(all, c.weights, {.isa = isa});
    ASSERT_TRUE(whole.ok());
    std::vector<float> want(2 * total * model_dim), got(want.size());
    ASSERT_TRUE(whole->Run({.x = x, .y = want.data()}).ok());

    // The caches hold `total` rows; each call's x and y are dense, so the rows of the two batch elements are copied.
    std::vector<float> k_cache(2 * total * 2 * 8, NAN), v_cache(k_cache);
    Desc d = all;
    d.seqlen_q = prompt;
    auto op = MultiHeadAttention::Prepare(d, c.weights, {.isa = isa});
    ASSERT_TRUE(op.ok());
    for (int64_t position = 0; position < total; position += d.seqlen_q) {
      if (position > 0) {
        d.seqlen_q = 1;
        auto step = op->Reshape(d);
        ASSERT_TRUE(step.ok()) << step.status().message();
        EXPECT_EQ(step->implementation(), op->implementation());
        op = std::move(step);
      }
      std::vector<float> part(2 * d.seqlen_q * model_dim), y(part.size());
      const int64_t row = d.seqlen_q * model_dim;
      for (int64_t b = 0; b < 2; ++b) std::copy_n(x + (b * total + position) * model_dim, row, &part[b * row]);
      const Status s = op->Run({.x = part.data(),
                                .y = y.data(),
                                .k_cache = k_cache.data(),
                                .v_cache = v_cache.data(),
                                .position = position});
      ASSERT_TRUE(s.ok()) << s.message();
      for (int64_t b = 0; b < 2; ++b) std::copy_n(&y[b * row], row, &got[(b * total + position) * model_dim]);
    }
    // Both are within the layer's bound of the true value.
    for (const harness::Expected& e : expected) {
      if (e.name.substr(0, 1) != "y") continue;
      const auto b = e.name == "y[batch 0, head 0]" ? 0 : 1;
      for (size_t i = 0; i < e.want.size(); ++i) {
        EXPECT_NEAR(want[b * total * model_dim + i], e.want[i], e.tolerance[i]);
        EXPECT_NEAR(got[b * total * model_dim + i], e.want[i], e.tolerance[i]);
      }
    }
  }
}

TEST(MultiHeadAttentionLayer, ReshapeSharesThePackedWeights) {
  Desc d{.num_heads = 2, .seqlen_q = 8, .seqlen_kv = 8, .head_dim = 4, .projections = true, .model_dim = 8};
  harness::TensorStore store(harness::Fill::kNormal, harness::Guard::kEnd, 1);
  harness::Case<MultiHeadAttention> c(d, store);
  const auto op = MultiHeadAttention::Prepare(d, c.weights);
  ASSERT_TRUE(op.ok());
  EXPECT_GT(op->packed_bytes(), 4u * (8 * 24 + 8 * 8));
  d.batch = 3;
  d.seqlen_kv = 100;
  d.k = {.batch = 1000, .row = 9};
  const auto reshaped = op->Reshape(d);
  ASSERT_TRUE(reshaped.ok()) << reshaped.status().message();
  EXPECT_EQ(reshaped->packed_bytes(), op->packed_bytes());
  d.head_dim = 3;
  EXPECT_NE(op->Reshape(d).status().message().find(", not head_dim"), std::string::npos);
}

}  // namespace
}  // namespace lamina
