// multi_head_attention as the formulas in lamina/multi_head_attention.h say it: plain loops, accumulation in double.
#ifndef LAMINA_REFERENCE_MULTI_HEAD_ATTENTION_H_
#define LAMINA_REFERENCE_MULTI_HEAD_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <functional>

#include "lamina/multi_head_attention.h"

namespace lamina::reference {

// The tensors of one run, dense and in double, each in memory of the caller's.
struct MultiHeadAttentionValues {
  double* q = nullptr;    // [batch, seqlen_q, num_heads, head_dim]: the input's, or x projected
  double* k = nullptr;    // [batch, seqlen_kv, kv_heads, head_dim]: the input's, the cache's, or x or memory projected
  double* v = nullptr;    // [batch, seqlen_kv, kv_heads, v_dim]
  double* o = nullptr;    // [batch, seqlen_q, num_heads, v_dim]
  double* y = nullptr;    // [batch, seqlen_q, model_dim]; unused without projections
  double* lse = nullptr;  // [batch, num_heads, seqlen_q]
  double* scores = nullptr;  // [seqlen_kv]: one query's, then its softmax
};

// Calls f(member, count) for each of the above with the doubles that it needs.
template <class F>
void VisitSizes(const MultiHeadAttentionDesc& d, const F& f) {
  using Values = MultiHeadAttentionValues;
  const auto size = [](int64_t count) { return static_cast<size_t>(count); };
  f(&Values::q, size(d.batch * d.seqlen_q * d.num_heads * d.head_dim));
  f(&Values::k, size(d.batch * d.seqlen_kv * d.kv_heads() * d.head_dim));
  f(&Values::v, size(d.batch * d.seqlen_kv * d.kv_heads() * d.v_dim()));
  f(&Values::o, size(d.batch * d.seqlen_q * d.num_heads * d.v_dim()));
  f(&Values::y, size(d.projections ? d.batch * d.seqlen_q * d.model_dim : 0));
  f(&Values::lse, size(d.batch * d.num_heads * d.seqlen_q));
  f(&Values::scores, size(d.seqlen_kv));
}

// What error bounds are made from. All are needed, or none.
struct MultiHeadAttentionMagnitudes {
  double* score = nullptr;  // [batch, num_heads, seqlen_q]: largest scale * sum |q||k| over the kept keys
  double* shift = nullptr;  // [batch, num_heads, seqlen_q]: largest |softcapped score| + |bias| + |alibi|
  double* o = nullptr;      // [batch, seqlen_q, num_heads, v_dim]: sum (weight + 2^-126) |v|
  // With projections: the sums of absolute values behind q, k and v (0 in rows that a cache held), and what they come
  // to.
  double* q = nullptr;  // q's, k's and v's shapes
  double* k = nullptr;
  double* v = nullptr;
  double* projected_score = nullptr;  // [batch, num_heads, seqlen_q]: largest scale * sum (|q| k's + |k| q's)
  double* projected_o = nullptr;      // o's shape: sum weight * v's
};

// Is given each query's weights [seqlen_kv] in turn, `row` counting [batch, num_heads, seqlen_q].
using WeightsSink = std::function<void(int64_t row, const double* weights)>;

// Fills `values`, and `magnitudes` unless null; writes nothing to `tensors`. An empty sink is not called.
void MultiHeadAttention(const MultiHeadAttentionDesc& desc, const MultiHeadAttentionWeights& weights,
                        const MultiHeadAttentionTensors& tensors, const MultiHeadAttentionValues& values,
                        const WeightsSink& sink, const MultiHeadAttentionMagnitudes* magnitudes);

// The keys that batch element b has: key_lengths[b], or what its absence stands for.
int64_t KeyLength(const MultiHeadAttentionDesc& desc, const MultiHeadAttentionTensors& tensors, int64_t b);

}  // namespace lamina::reference

#endif  // LAMINA_REFERENCE_MULTI_HEAD_ATTENTION_H_
