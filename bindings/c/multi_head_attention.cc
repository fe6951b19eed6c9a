#include "lamina/multi_head_attention.h"

#include "bindings/c/handle.h"

namespace lamina::c {
namespace {

// [batch, seqlen, heads, dim] or [batch, heads, seqlen, dim].
Extents Heads(AttentionLayout layout, int64_t batch, int64_t seqlen, int64_t heads, int64_t dim,
              const AttentionStrides& s) {
  if (layout == AttentionLayout::kBshd) return {4, {batch, seqlen, heads, dim}, {s.batch, s.row, s.head, 1}};
  return {4, {batch, heads, seqlen, dim}, {s.batch, s.head, s.row, 1}};
}

}  // namespace

template <>
struct Border<MultiHeadAttentionDesc> {
  using Op = MultiHeadAttention;
  using D = MultiHeadAttentionDesc;
  static void Weights(const D& d, MultiHeadAttentionWeights& w, Slots& s) {
    if (!d.projections) return;
    const int64_t q = d.num_heads * d.head_dim, k = d.kv_heads() * d.head_dim, v = d.kv_heads() * d.v_dim();
    const int64_t from = d.memory_dim ? d.memory_dim : d.model_dim;
    s.Weight("wq", w.wq, d.dtype, Dense({q, d.model_dim}));
    s.Weight("wk", w.wk, d.dtype, Dense({k, from}));
    s.Weight("wv", w.wv, d.dtype, Dense({v, from}));
    s.Weight("wo", w.wo, d.dtype, Dense({d.model_dim, d.num_heads * d.v_dim()}));
    if (!d.projection_bias) return;
    s.Weight("bq", w.bq, d.dtype, Dense({q}));
    s.Weight("bk", w.bk, d.dtype, Dense({k}));
    s.Weight("bv", w.bv, d.dtype, Dense({v}));
    s.Weight("bo", w.bo, d.dtype, Dense({d.model_dim}));
  }
  static void Tensors(const D& d, const MultiHeadAttention*, MultiHeadAttentionTensors& t, Slots& s) {
    const Extents k = Heads(d.layout, d.batch, d.seqlen_kv, d.kv_heads(), d.head_dim, d.k_strides());
    const Extents v = Heads(d.layout, d.batch, d.seqlen_kv, d.kv_heads(), d.v_dim(), d.v_strides());
    if (d.projections) {
      s.Input("x", t.x, d.dtype, Rows({d.batch, d.seqlen_q, d.model_dim}, d.x_stride));
      if (d.memory_dim) {
        s.Input("memory", t.memory, d.dtype, Rows({d.batch, d.seqlen_kv, d.memory_dim}, d.memory_stride),
                Slots::kOptional);
      }
      s.Output("y", t.y, d.dtype, Rows({d.batch, d.seqlen_q, d.model_dim}, d.y_stride));
      s.Output("k_cache", t.k_cache, d.dtype, k, Slots::kOptional);
      s.Output("v_cache", t.v_cache, d.dtype, v, Slots::kOptional);
      s.Number("position", t.position);
    } else {
      s.Input("q", t.q, d.dtype, Heads(d.layout, d.batch, d.seqlen_q, d.num_heads, d.head_dim, d.q_strides()));
      s.Input("k", t.k, d.dtype, k);
      s.Input("v", t.v, d.dtype, v);
      s.Output("o", t.o, d.dtype, Heads(d.layout, d.batch, d.seqlen_q, d.num_heads, d.v_dim(), d.o_strides()));
    }
    s.Input("key_lengths", t.key_lengths, LAMINA_I32, Dense({d.batch}), Slots::kOptional);
    if (d.mask) s.Input("mask", t.mask, LAMINA_BOOL, Dense({d.mask_batch, d.mask_heads, d.seqlen_q, d.seqlen_kv}));
    if (d.bias) s.Input("bias", t.bias, DType::kF32, Dense({d.bias_batch, d.bias_heads, d.seqlen_q, d.seqlen_kv}));
    if (d.alibi) s.Input("alibi_slopes", t.alibi_slopes, DType::kF32, Dense({d.num_heads}));
    s.Output("lse", t.lse, DType::kF32, Dense({d.batch, d.num_heads, d.seqlen_q}), Slots::kOptional);
    s.Output("weights", t.weights, DType::kF32, Dense({d.batch, d.num_heads, d.seqlen_q, d.seqlen_kv}),
             Slots::kOptional);
  }
};

template struct Entry<MultiHeadAttentionDesc>;

}  // namespace lamina::c
