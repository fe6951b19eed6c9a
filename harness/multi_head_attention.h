// The tensors of a multi_head_attention case and what they should give.
//
// What the descriptor leaves to run time is drawn from the store's random sequence: key lengths or none, lse and
// weights asked for or not, caches or none, their position, memory or caches that hold it already. Keys and values
// beyond a key length are NaN. The exact fill makes every score 0, so that each output is the mean of the kept values:
// exact where their number is a power of two, and else to the two roundings of a reciprocal and a product.
#ifndef LAMINA_HARNESS_MULTI_HEAD_ATTENTION_H_
#define LAMINA_HARNESS_MULTI_HEAD_ATTENTION_H_

#include <vector>

#include "harness/parity.h"
#include "lamina/multi_head_attention.h"

namespace lamina::harness {

template <>
class Case<MultiHeadAttention> {
 public:
  Case(const MultiHeadAttentionDesc& desc, TensorStore& store);
  static bool Exact(const MultiHeadAttentionDesc&) { return true; }
  std::vector<Expected> Reference() const;
  // Fills the rows that the caches hold before the call, then runs.
  static Status RunOnce(const MultiHeadAttention& op, const MultiHeadAttentionTensors& t, void* scratch);

  MultiHeadAttentionWeights weights;
  MultiHeadAttentionTensors tensors;

 private:
  void MakeWeights(TensorStore& store);
  void MakeMasks(TensorStore& store);
  void MakeLengths(TensorStore& store, int64_t most);

  MultiHeadAttentionDesc desc_;
  Fill fill_;
};

// Floats from the first to the last element of a [batch, seqlen, heads, dim] with strides.
int64_t SpanOf(int64_t batch, int64_t seqlen, int64_t heads, int64_t dim, const AttentionStrides& strides);

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_MULTI_HEAD_ATTENTION_H_
