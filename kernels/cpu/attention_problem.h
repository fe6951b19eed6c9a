// Which queries share which keys, and where everything lies: turns a descriptor and one call's tensors into the blocks
// of attention.h. Nothing here depends on the SIMD target.
#ifndef LAMINA_KERNELS_CPU_ATTENTION_PROBLEM_H_
#define LAMINA_KERNELS_CPU_ATTENTION_PROBLEM_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention.h"
#include "lamina/multi_head_attention.h"

namespace lamina::cpu {

// One call's tensors, with the strides that they lie at. Projections put their own buffers here.
struct AttentionOperands {
  const float *q = nullptr, *k = nullptr, *v = nullptr;
  float* o = nullptr;
  AttentionStrides q_strides, k_strides, v_strides, o_strides;
  const int32_t* key_lengths = nullptr;
  int64_t key_length = 0;                              // of every batch element when key_lengths is null
  const MultiHeadAttentionTensors* tensors = nullptr;  // mask, bias, slopes, lse, weights
};

// The queries are cut into units that share a key head: one query head's seqlen_q rows, or, stacked, those of all heads
// of a group, row r being head r / seqlen_q and query r % seqlen_q of it.
class AttentionProblem {
 public:
  AttentionProblem(const MultiHeadAttentionDesc& desc, bool stacked);

  size_t units() const { return units_; }  // per batch element
  size_t rows() const { return rows_; }    // of a unit
  const MultiHeadAttentionDesc& desc() const { return desc_; }

  // What is the same for every block; scratch sizes need no more.
  AttentionBlock Options() const;
  // Rows [begin, begin + count) of a unit, the arrays filled up to `padded`.
  AttentionBlock Block(const AttentionOperands& operands, size_t b, size_t unit, size_t begin, size_t count,
                       size_t padded) const;

 private:
  void SetRow(const AttentionOperands& operands, int64_t b, int64_t head, int64_t i, size_t r,
              AttentionBlock& block) const;

  MultiHeadAttentionDesc desc_;
  bool stacked_;
  size_t units_, rows_;
};

// Rows that share a key head when the heads of a group are stacked.
inline size_t StackedRows(const MultiHeadAttentionDesc& d) {
  return static_cast<size_t>(d.num_heads / d.kv_heads() * d.seqlen_q);
}

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_ATTENTION_PROBLEM_H_
