#include "harness/multi_head_attention.h"

#include "tests/fuzz/fuzz.h"

namespace lamina::fuzz {
namespace {

AttentionStrides AnyStrides(AttentionLayout layout, int64_t batch, int64_t seqlen, int64_t heads, int64_t dim, Rng& r) {
  if (r.Chance(75)) return {};
  AttentionStrides s;
  if (layout == AttentionLayout::kBshd) {
    s.head = dim + r.Below(5);
    s.row = heads * s.head + r.Below(9);
    s.batch = seqlen * s.row + r.Below(9);
  } else {
    s.row = dim + r.Below(5);
    s.head = seqlen * s.row + r.Below(9);
    s.batch = heads * s.head + r.Below(9);
  }
  if (batch == 1 && r.Chance(50)) s.batch = 0;
  return s;
}

}  // namespace

template <>
struct Draw<MultiHeadAttention> {
  using D = MultiHeadAttentionDesc;
  static Result<D> Parse(std::string_view text) { return ParseMultiHeadAttention(text); }

  static void RunTimeSizes(D& d, Rng& r) {
    const bool mask_batch = d.mask_batch > 1, bias_batch = d.bias_batch > 1;
    d.batch = r.Chance(5) ? 0 : r.Between(1, 3);
    d.seqlen_q = r.Chance(30) ? 1 : r.Size(40);
    d.seqlen_kv = r.Chance(30) ? d.seqlen_q : r.Size(70);
    if (d.mask) d.mask_batch = mask_batch ? std::max<int64_t>(1, d.batch) : 1;
    if (d.bias) d.bias_batch = bias_batch ? std::max<int64_t>(1, d.batch) : 1;
    d.q = AnyStrides(d.layout, d.batch, d.seqlen_q, d.num_heads, d.head_dim, r);
    d.k = AnyStrides(d.layout, d.batch, d.seqlen_kv, d.kv_heads(), d.head_dim, r);
    d.v = AnyStrides(d.layout, d.batch, d.seqlen_kv, d.kv_heads(), d.v_dim(), r);
    d.o = AnyStrides(d.layout, d.batch, d.seqlen_q, d.num_heads, d.v_dim(), r);
    if (d.projections) d.q = d.o = {};
  }

  static D Any(Rng& r) {
    D d;
    d.num_kv_heads = r.Chance(50) ? 0 : r.Between(1, 3);
    d.num_heads = r.Between(1, 4) * std::max<int64_t>(1, d.num_kv_heads);
    d.head_dim = r.Chance(50) ? r.Pick({8, 16, 32, 64}) : r.Size(256);
    d.value_dim = r.Chance(60) ? 0 : r.Size(256);
    d.scale = r.Chance(50) ? 0.0f : static_cast<float>(r.Between(1, 8)) / 16;
    d.causal = r.Pick({Causal::kNone, Causal::kNone, Causal::kTopLeft, Causal::kBottomRight});
    d.window_left = r.Chance(70) ? -1 : r.Below(20);
    d.window_right = r.Chance(80) ? -1 : r.Below(20);
    d.mask = r.Chance(30);
    d.bias = r.Chance(30);
    d.alibi = r.Chance(20);
    d.softcap = r.Chance(80) ? 0.0f : static_cast<float>(r.Between(2, 40));
    d.layout = r.Pick({AttentionLayout::kBshd, AttentionLayout::kBhsd});
    if (r.Chance(25)) {
      d.projections = true;
      d.model_dim = r.Size(60);
      d.memory_dim = r.Chance(60) ? 0 : r.Size(60);
      d.projection_bias = r.Chance(60);
    }
    RunTimeSizes(d, r);
    if (d.mask) {
      d.mask_batch = r.Chance(50) ? 1 : std::max<int64_t>(1, d.batch);
      d.mask_heads = r.Chance(50) ? 1 : d.num_heads;
    }
    if (d.bias) {
      d.bias_batch = r.Chance(50) ? 1 : std::max<int64_t>(1, d.batch);
      d.bias_heads = r.Chance(50) ? 1 : d.num_heads;
    }
    return d;
  }
};

LAMINA_FUZZ(MultiHeadAttention)

}  // namespace lamina::fuzz
