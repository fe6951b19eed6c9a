// Scaled dot-product attention with many heads (Vaswani et al. 2017), with or without the layer's four projections.
// For each batch element b, query head h and its key head h / (num_heads / num_kv_heads):
//   s[i, j]  = softcap(scale * q[i] . k[j]) + bias[i, j] + alibi_slope[h] * (j - i')      softcap(x) = c * tanh(x / c)
//   keep j   where j < key_length, mask[i, j], causal: j <= i', window: i' - window_left <= j <= i' + window_right
//   o[i]     = sum_j softmax_j(s[i, :])[j] * v[j],     lse[i] = log(sum_j exp(s[i, j])), the natural logarithm
// with i' = i (causal none and top-left) or i + key_length - seqlen_q (bottom-right). A score of -inf, from a bias of
// -inf say, is as one that is not kept. A query with no key left gives zeros and lse -inf; what lies in a key or value
// that is not kept has no influence, be it NaN.
#ifndef LAMINA_MULTI_HEAD_ATTENTION_H_
#define LAMINA_MULTI_HEAD_ATTENTION_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "lamina/cost.h"
#include "lamina/export.h"
#include "lamina/operator.h"
#include "lamina/types.h"

namespace lamina {

enum class Causal : int32_t { kNone = 0, kTopLeft = 1, kBottomRight = 2 };

// q, k, v, o: [batch, seqlen, heads, dim] or [batch, heads, seqlen, dim].
enum class AttentionLayout : int32_t { kBshd = 0, kBhsd = 1 };

// Elements from one to the next; 0 = dense in the descriptor's layout. The innermost dimension is always dense.
struct AttentionStrides {
  int64_t batch = 0, row = 0, head = 0;
  bool operator==(const AttentionStrides&) const = default;
};

struct MultiHeadAttentionDesc {
  int64_t batch = 1, num_heads = 1;
  int64_t num_kv_heads = 0;  // divides num_heads (GQA, MQA); 0 = num_heads
  int64_t seqlen_q = 0, seqlen_kv = 0;
  int64_t head_dim = 0;   // 1..256
  int64_t value_dim = 0;  // 1..256; 0 = head_dim
  float scale = 0.0f;     // 0 = 1 / sqrt(head_dim)
  Causal causal = Causal::kNone;
  int64_t window_left = -1, window_right = -1;  // keys kept on each side of i'; -1 = all
  bool mask = false;                            // boolean [mask_batch, mask_heads, seqlen_q, seqlen_kv], true = keep
  int64_t mask_batch = 1, mask_heads = 1;       // 1 (for all), or batch and num_heads
  bool bias = false;  // float [bias_batch, bias_heads, seqlen_q, seqlen_kv], added to the scores
  int64_t bias_batch = 1, bias_heads = 1;
  bool alibi = false;    // slopes [num_heads]
  float softcap = 0.0f;  // 0 = none
  AttentionLayout layout = AttentionLayout::kBshd;
  AttentionStrides q = {}, k = {}, v = {}, o = {};  // with projections k and v are the caches', q and o stay 0
  DType dtype = DType::kF32;

  // The layer with its projections: x -> q, and x (or memory) -> k, v, then attention, then wo. num_heads * head_dim
  // need not be model_dim. In self-attention seqlen_kv is the rows that the caches hold, at least seqlen_q.
  bool projections = false;
  int64_t model_dim = 0;        // channels of x and of y
  int64_t memory_dim = 0;       // cross-attention: channels of `memory`; 0 = self-attention, k and v come from x
  bool projection_bias = true;  // bq, bk, bv, bo
  int64_t x_stride = 0, memory_stride = 0, y_stride = 0;  // elements from row to row; 0 = dense

  int64_t kv_heads() const { return num_kv_heads ? num_kv_heads : num_heads; }
  int64_t v_dim() const { return value_dim ? value_dim : head_dim; }
  LAMINA_API float score_scale() const;  // scale, or what its 0 stands for
  // q, k, v and o with their zeros filled in.
  LAMINA_API AttentionStrides q_strides() const;
  LAMINA_API AttentionStrides k_strides() const;
  LAMINA_API AttentionStrides v_strides() const;
  LAMINA_API AttentionStrides o_strides() const;
  LAMINA_API Status Validate() const;
  bool operator==(const MultiHeadAttentionDesc&) const = default;
};

LAMINA_API std::string ToString(const MultiHeadAttentionDesc& desc);
LAMINA_API Result<MultiHeadAttentionDesc> ParseMultiHeadAttention(std::string_view text);
LAMINA_API Cost CostOf(const MultiHeadAttentionDesc& desc);

// All null without projections.
struct MultiHeadAttentionWeights {
  const void* wq = nullptr;  // [num_heads * head_dim, model_dim]
  const void* wk = nullptr;  // [kv_heads * head_dim, memory_dim or model_dim]
  const void* wv = nullptr;  // [kv_heads * v_dim, memory_dim or model_dim]
  const void* wo = nullptr;  // [model_dim, num_heads * v_dim]
  const void* bq = nullptr;  // [num_heads * head_dim]; biases are null when projection_bias is false
  const void* bk = nullptr;  // [kv_heads * head_dim]
  const void* bv = nullptr;  // [kv_heads * v_dim]
  const void* bo = nullptr;  // [model_dim]
};

struct MultiHeadAttentionTensors {
  // Without projections.
  const void* q = nullptr;  // [batch, seqlen_q, num_heads, head_dim] by layout and strides
  const void* k = nullptr;  // [batch, seqlen_kv, kv_heads, head_dim]
  const void* v = nullptr;  // [batch, seqlen_kv, kv_heads, v_dim]
  void* o = nullptr;        // [batch, seqlen_q, num_heads, v_dim]
  // With projections (then q, k, v, o above are null).
  const void* x = nullptr;       // [batch, seqlen_q, model_dim]
  const void* memory = nullptr;  // cross-attention: [batch, seqlen_kv, memory_dim]; null: k and v are in the caches
  void* y = nullptr;             // [batch, seqlen_q, model_dim]
  // k's and v's shape: where new rows are written and all rows are read. Self-attention writes seqlen_q rows from
  // `position` on and needs those before; cross-attention writes every row, at position 0. Both null (then position
  // must be 0, and seqlen_kv = seqlen_q in self-attention): scratch serves.
  void* k_cache = nullptr;
  void* v_cache = nullptr;
  int64_t position = 0;
  // Both.
  const int32_t* key_lengths = nullptr;  // [batch], each in [0, seqlen_kv]; null: seqlen_kv, or position + seqlen_q in
                                         // self-attention with projections
  const bool* mask = nullptr;            // [mask_batch, mask_heads, seqlen_q, seqlen_kv]
  const float* bias = nullptr;           // [bias_batch, bias_heads, seqlen_q, seqlen_kv]
  const float* alibi_slopes = nullptr;   // [num_heads]
  float* lse = nullptr;                  // [batch, num_heads, seqlen_q], or null
  float* weights = nullptr;  // [batch, num_heads, seqlen_q, seqlen_kv], or null: the slow path, a second pass
};

using MultiHeadAttention = Operator<MultiHeadAttentionDesc, MultiHeadAttentionWeights, MultiHeadAttentionTensors>;
extern template class LAMINA_API Operator<MultiHeadAttentionDesc, MultiHeadAttentionWeights, MultiHeadAttentionTensors>;

}  // namespace lamina

#endif  // LAMINA_MULTI_HEAD_ATTENTION_H_
