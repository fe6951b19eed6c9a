#include "reference/multi_head_attention.h"

#include "kernels/operators/backends.h"
#include "kernels/reference/oracle.h"

namespace lamina::oracle {
namespace {

// [batch, seqlen, heads, dim] in double into a tensor with strides, `rows` rows from `from_row` on into `to_row` on.
void StoreRowsOf(const MultiHeadAttentionDesc& d, const double* values, int64_t seqlen, int64_t first, int64_t count,
                 int64_t heads, int64_t dim, const AttentionStrides& s, void* data) {
  for (int64_t b = 0; b < d.batch; ++b) {
    for (int64_t i = first; i < first + count; ++i) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t c = 0; c < dim; ++c) {
          reference::Store(values[((b * seqlen + i) * heads + h) * dim + c], d.dtype, data,
                           b * s.batch + i * s.row + h * s.head + c);
        }
      }
    }
  }
}

}  // namespace

template <>
struct Oracle<MultiHeadAttention> {
  static void KeepWeights(const MultiHeadAttentionDesc& d, KeptWeights<MultiHeadAttention>& k) {
    if (!d.projections) return;
    const int64_t memory_dim = d.memory_dim ? d.memory_dim : d.model_dim;
    const int64_t q_row = d.num_heads * d.head_dim, k_row = d.kv_heads() * d.head_dim, v_row = d.kv_heads() * d.v_dim();
    Keep(k.weights.wq, q_row * d.model_dim, d.dtype, k.kept);
    Keep(k.weights.wk, k_row * memory_dim, d.dtype, k.kept);
    Keep(k.weights.wv, v_row * memory_dim, d.dtype, k.kept);
    Keep(k.weights.wo, d.model_dim * d.num_heads * d.v_dim(), d.dtype, k.kept);
    if (!d.projection_bias) return;
    Keep(k.weights.bq, q_row, d.dtype, k.kept);
    Keep(k.weights.bk, k_row, d.dtype, k.kept);
    Keep(k.weights.bv, v_row, d.dtype, k.kept);
    Keep(k.weights.bo, d.model_dim, d.dtype, k.kept);
  }

  static size_t ScratchDoubles(const MultiHeadAttentionDesc& d) {
    size_t doubles = 0;
    reference::VisitSizes(d, [&](auto, size_t count) { doubles += count; });
    return doubles;
  }

  static void Run(const MultiHeadAttentionDesc& d, const MultiHeadAttentionWeights& w,
                  const MultiHeadAttentionTensors& t, double* scratch) {
    reference::MultiHeadAttentionValues values;
    reference::VisitSizes(d, [&](auto member, size_t count) {
      values.*member = scratch;
      scratch += count;
    });
    const auto narrow = [](const double* from, int64_t count, float* to) {
      for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
    };
    reference::WeightsSink sink;
    if (t.weights != nullptr) {
      sink = [&](int64_t row, const double* p) { narrow(p, d.seqlen_kv, t.weights + row * d.seqlen_kv); };
    }
    reference::MultiHeadAttention(d, w, t, values, sink, nullptr);
    if (t.lse != nullptr) narrow(values.lse, d.batch * d.num_heads * d.seqlen_q, t.lse);
    if (d.projections) {
      reference::StoreRows(values.y, d.batch * d.seqlen_q, d.model_dim, d.y_stride ? d.y_stride : d.model_dim, d.dtype,
                           t.y);
      const bool written = t.k_cache != nullptr && (d.memory_dim == 0 || t.memory != nullptr);
      const int64_t count = !written ? 0 : d.memory_dim ? d.seqlen_kv : d.seqlen_q;
      StoreRowsOf(d, values.k, d.seqlen_kv, t.position, count, d.kv_heads(), d.head_dim, d.k_strides(), t.k_cache);
      StoreRowsOf(d, values.v, d.seqlen_kv, t.position, count, d.kv_heads(), d.v_dim(), d.v_strides(), t.v_cache);
    } else {
      StoreRowsOf(d, values.o, d.seqlen_q, 0, d.seqlen_q, d.num_heads, d.v_dim(), d.o_strides(), t.o);
    }
  }
};

CandidateList<MultiHeadAttention> MultiHeadAttentionCandidates() { return NaiveCandidate<MultiHeadAttention>(); }

}  // namespace lamina::oracle
