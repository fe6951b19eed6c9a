// The tensors of an additive_attention case and what they should give.
#ifndef LAMINA_HARNESS_ADDITIVE_ATTENTION_H_
#define LAMINA_HARNESS_ADDITIVE_ATTENTION_H_

#include <vector>

#include "harness/parity.h"
#include "lamina/additive_attention.h"

namespace lamina::harness {

// Key lengths and whether the weights are asked for come from the seed. Keys and values that no query of a batch
// element may see hold NaN.
template <>
class Case<AdditiveAttention> {
 public:
  Case(const AdditiveAttentionDesc& desc, TensorStore& store);
  // v' = 0 makes all scores 0 and the weights of a power of two of live keys exact.
  static bool Exact(const AdditiveAttentionDesc&) { return true; }
  std::vector<Expected> Reference() const { return ExpectAdditiveAttention(desc_, weights, tensors); }
  // One call, then the same with prepared keys: an error unless both give the same bits.
  static Status RunOnce(const AdditiveAttention& op, const AdditiveAttentionTensors& t, void* scratch);

  // Value and bound of every output of any tensors. With v' = 0 and a power of two of live keys the bound is 0.
  static std::vector<Expected> ExpectAdditiveAttention(const AdditiveAttentionDesc& desc,
                                                       const AdditiveAttentionWeights& weights,
                                                       const AdditiveAttentionTensors& tensors);

  AdditiveAttentionWeights weights;
  AdditiveAttentionTensors tensors;

 private:
  AdditiveAttentionDesc desc_;
};

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_ADDITIVE_ATTENTION_H_
