#include "harness/additive_attention.h"

#include "tests/fuzz/fuzz.h"

namespace lamina::fuzz {

template <>
struct Draw<AdditiveAttention> {
  static Result<AdditiveAttentionDesc> Parse(std::string_view text) { return ParseAdditiveAttention(text); }

  static void RunTimeSizes(AdditiveAttentionDesc& d, Rng& r) {
    const bool per_query = d.mask_queries == d.queries && d.mask_queries > 1;
    d.batch = r.Chance(5) ? 0 : r.Between(1, 3);
    d.queries = r.Size(12);
    d.keys = r.Size(70);
    d.mask_queries = per_query ? d.queries : 1;
    d.query_stride = r.Stride(d.query_dim);
    d.key_stride = r.Stride(d.key_dim);
    d.value_stride = d.value_dim ? r.Stride(d.value_dim) : 0;
    d.context_stride = r.Stride(d.context_dim());
  }

  static AdditiveAttentionDesc Any(Rng& r) {
    AdditiveAttentionDesc d;
    d.query_dim = r.Size(70);
    d.key_dim = r.Size(70);
    d.units = r.Size(140);
    d.value_dim = r.Chance(50) ? 0 : r.Size(70);
    d.bias = r.Chance(50);
    d.normalized = r.Chance(30);
    d.mask = r.Chance(40);
    RunTimeSizes(d, r);
    if (d.mask && r.Chance(50)) d.mask_queries = d.queries;
    return d;
  }
};

LAMINA_FUZZ(AdditiveAttention)

}  // namespace lamina::fuzz
