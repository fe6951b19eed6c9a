// Additive attention (Bahdanau, Cho, Bengio 2015), with the normalised form of Salimans and Kingma 2016:
//   score[i, j]   = v' . tanh(query_w query[i] + key_w key[j] + bias)      v' = v, or g * v / ||v|| when normalized
//   weights[i, :] = softmax over the kept j of score[i, :]
//   context[i]    = sum_j weights[i, j] * value[j]
// per batch element. A query with no key left gets zeros. Beams of one sentence are queries of one batch element, so
// they share its keys.
#ifndef LAMINA_ADDITIVE_ATTENTION_H_
#define LAMINA_ADDITIVE_ATTENTION_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "lamina/cost.h"
#include "lamina/export.h"
#include "lamina/operator.h"
#include "lamina/types.h"

namespace lamina {

struct AdditiveAttentionDesc {
  int64_t batch = 1, queries = 1, keys = 0;  // zero of any is legal
  int64_t query_dim = 0, key_dim = 0, units = 0;
  int64_t value_dim = 0;     // 0: the values are the keys; else a tensor of their own
  bool bias = false;         // [units], inside the tanh
  bool normalized = false;   // v' = g * v / ||v||
  bool mask = false;         // a boolean tensor [batch, mask_queries, keys], true = keep
  int64_t mask_queries = 1;  // 1 (for every query) or queries
  DType dtype = DType::kF32;
  // Elements from row to row, in all batch elements alike; 0 = dense.
  int64_t query_stride = 0, key_stride = 0, value_stride = 0, context_stride = 0;

  int64_t context_dim() const { return value_dim ? value_dim : key_dim; }
  LAMINA_API Status Validate() const;
  bool operator==(const AdditiveAttentionDesc&) const = default;
};

LAMINA_API std::string ToString(const AdditiveAttentionDesc& desc);
LAMINA_API Result<AdditiveAttentionDesc> ParseAdditiveAttention(std::string_view text);
LAMINA_API Cost CostOf(const AdditiveAttentionDesc& desc);

struct AdditiveAttentionWeights {
  const void* query_w = nullptr;  // [units, query_dim]
  const void* key_w = nullptr;    // [units, key_dim]
  const void* bias = nullptr;     // [units]; null when desc.bias is false
  const void* v = nullptr;        // [units]
  const void* g = nullptr;        // [1]; null when desc.normalized is false
};

struct AdditiveAttentionTensors {
  const void* query = nullptr;          // [batch, queries, query_dim]
  const void* keys = nullptr;           // [batch, keys, key_dim]; not read with prepared_keys and separate values: then
                                        // it may be null
  const void* values = nullptr;         // [batch, keys, value_dim]; null when desc.value_dim is 0: then keys serve
  const void* prepared_keys = nullptr;  // what PrepareKeys wrote; null: the keys are prepared in this call
  const int32_t* key_lengths = nullptr;  // [batch], each in [0, keys]; null: all keys live. Not above those given to
                                         // PrepareKeys
  const bool* mask = nullptr;            // [batch, mask_queries, keys]; null when desc.mask is false
  void* context = nullptr;               // [batch, queries, context_dim]
  float* weights = nullptr;              // [batch, queries, keys], or null; masked ones are 0
};

extern template class LAMINA_API Operator<AdditiveAttentionDesc, AdditiveAttentionWeights, AdditiveAttentionTensors>;

class LAMINA_API AdditiveAttention
    : public Operator<AdditiveAttentionDesc, AdditiveAttentionWeights, AdditiveAttentionTensors> {
 public:
  using Base = Operator<AdditiveAttentionDesc, AdditiveAttentionWeights, AdditiveAttentionTensors>;
  AdditiveAttention(Base base) : Base(std::move(base)) {}  // NOLINT: implicit by design

  static Result<AdditiveAttention> Prepare(const Desc& desc, const Weights& weights, const Context& context = {});
  static Result<AdditiveAttention> LoadPacked(const std::string& path, const Context& context = {});
  Result<AdditiveAttention> Reshape(const Desc& desc) const;

  // The bytes that PrepareKeys writes: about batch * keys * units floats.
  size_t prepared_keys_bytes() const;
  // Does once per sentence what depends on the keys alone. Any Run of this operator, and of one Reshaped to other
  // `queries`, strides of the queries or mask, may then be given prepared_keys (64-byte aligned, this process's memory;
  // on kCuda the device's, as all other tensors); the results have the same bits as without. Keys from key_lengths[b]
  // on (null: none) are not read. `scratch`: scratch_bytes() as for Run, or null.
  Status PrepareKeys(const void* keys, const int32_t* key_lengths, void* prepared_keys, void* scratch = nullptr) const;
};

}  // namespace lamina

#endif  // LAMINA_ADDITIVE_ATTENTION_H_
