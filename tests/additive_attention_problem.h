// Problems of additive attention with tensors in plain vectors, for tests that choose their own values.
#ifndef LAMINA_TESTS_ADDITIVE_ATTENTION_PROBLEM_H_
#define LAMINA_TESTS_ADDITIVE_ATTENTION_PROBLEM_H_

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "harness/additive_attention.h"

namespace lamina {

// Normal data; query_w, key_w and v scaled so that a unit and a score are of order 1.
struct AdditiveAttentionProblem {
  explicit AdditiveAttentionProblem(const AdditiveAttentionDesc& desc) : d(desc) {
    harness::TensorStore store(harness::Fill::kNormal, harness::Guard::kEnd, 1);
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

  AdditiveAttentionDesc d;
  std::vector<float> query_w, key_w, bias, v, g, query, keys, values, context, attention;
  std::vector<char> mask;
  std::vector<int32_t> lengths;
};

// Every candidate on every SIMD target; or, in a program with an emulated GPU, on that.
template <class F>
void ForEachAdditiveAttention(const F& f) {
#ifdef LAMINA_EMULATED_GPU
  return f(Context{.backend = Backend::kCuda});
#endif
  for (Isa isa : SupportedIsas()) {
    for (const char* name : {"reciprocal_quad", "tanh"}) f(Context{.isa = isa, .implementation = name});
  }
}

}  // namespace lamina

#endif  // LAMINA_TESTS_ADDITIVE_ATTENTION_PROBLEM_H_
