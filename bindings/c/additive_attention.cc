#include "lamina/additive_attention.h"

#include "bindings/c/handle.h"

namespace lamina::c {

template <>
struct Border<AdditiveAttentionDesc> {
  using Op = AdditiveAttention;
  using D = AdditiveAttentionDesc;
  static void Weights(const D& d, AdditiveAttentionWeights& w, Slots& s) {
    s.Weight("query_w", w.query_w, d.dtype, Dense({d.units, d.query_dim}));
    s.Weight("key_w", w.key_w, d.dtype, Dense({d.units, d.key_dim}));
    if (d.bias) s.Weight("bias", w.bias, d.dtype, Dense({d.units}));
    s.Weight("v", w.v, d.dtype, Dense({d.units}));
    if (d.normalized) s.Weight("g", w.g, d.dtype, Dense({1}));
  }
  static void Keys(const D& d, const void*& keys, const int32_t*& key_lengths, Slots& s,
                   Slots::Need need = Slots::kRequired) {
    s.Input("keys", keys, d.dtype, Rows({d.batch, d.keys, d.key_dim}, d.key_stride), need);
    s.Input("key_lengths", key_lengths, LAMINA_I32, Dense({d.batch}), Slots::kOptional);
  }
  static void Tensors(const D& d, const AdditiveAttention* prepared, AdditiveAttentionTensors& t, Slots& s) {
    s.Input("query", t.query, d.dtype, Rows({d.batch, d.queries, d.query_dim}, d.query_stride));
    Keys(d, t.keys, t.key_lengths, s, d.value_dim ? Slots::kOptional : Slots::kRequired);
    if (d.value_dim) s.Input("values", t.values, d.dtype, Rows({d.batch, d.keys, d.value_dim}, d.value_stride));
    const int64_t bytes = prepared ? static_cast<int64_t>(prepared->prepared_keys_bytes()) : kAnySize;
    s.Input("prepared_keys", t.prepared_keys, LAMINA_U8, Dense({bytes}), Slots::kOptional);
    if (d.mask) s.Input("mask", t.mask, LAMINA_BOOL, Dense({d.batch, d.mask_queries, d.keys}));
    s.Output("context", t.context, d.dtype, Rows({d.batch, d.queries, d.context_dim()}, d.context_stride));
    s.Output("weights", t.weights, DType::kF32, Dense({d.batch, d.queries, d.keys}), Slots::kOptional);
  }
};

template struct Entry<AdditiveAttentionDesc>;

}  // namespace lamina::c
