// The contract of additive_attention: Reshape, the choice of a candidate, cost, text, and every refusal's sentence.
#include <gtest/gtest.h>

#include "lamina/additive_attention.h"
#include "tests/additive_attention_problem.h"

namespace lamina {
namespace {

using Desc = AdditiveAttentionDesc;
using Problem = AdditiveAttentionProblem;

TEST(AdditiveAttentionReshape, OtherSizesSameWeights) {
  ForEachAdditiveAttention([](const Context& context) {
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
