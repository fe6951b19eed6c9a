// The two kernels that multi_head_attention runs on: flash attention for many queries and a split of the keys for few.
// Both take a block of queries ("rows") that share their keys and values: queries of one head, or of several query
// heads of one key head, stacked.
#ifndef LAMINA_KERNELS_CPU_ATTENTION_H_
#define LAMINA_KERNELS_CPU_ATTENTION_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "lamina/context.h"

namespace lamina::cpu {

// Rows of a block at most, and thereby the length of the arrays below. They are filled up to a whole number of vectors
// by repeating row 0, so that kernels may read a vector of them.
inline constexpr size_t kMaxAttentionRows = 64;

inline constexpr float kLog2E = 1.44269504f;
// Where a running maximum begins: finite, so that a score of -inf less it is -inf and not NaN.
inline constexpr float kLowest = std::numeric_limits<float>::lowest();
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Scores are in units of log2: exp(s) = 2^(s log2(e)), and log2(e) is folded into what makes up s.
struct AttentionBlock {
  size_t rows = 0;
  size_t head_dim = 0, value_dim = 0;
  float scale = 0;           // of q: scale * log2(e), or scale / softcap
  float softcap = 0;         // 0: none; else softcap * log2(e)
  const float* k = nullptr;  // key j at k + j * k_row, its value at v + j * v_row
  const float* v = nullptr;
  ptrdiff_t k_row = 0, v_row = 0;
  // Keys [begin, end) are read; of these, every row keeps [whole_begin, whole_end) as far as causal and window go, and
  // row r keeps [first[r], last[r]).
  size_t begin = 0, end = 0, whole_begin = 0, whole_end = 0;
  size_t seqlen_kv = 0;  // of mask, bias and weights
  bool masked = false, biased = false, alibi = false;
  bool streamed = false;     // K and V come from memory, not from caches
  float* lse = nullptr;      // [rows], or null
  float* weights = nullptr;  // [rows, seqlen_kv], or null

  const float* q[kMaxAttentionRows];
  float* o[kMaxAttentionRows];
  int32_t first[kMaxAttentionRows], last[kMaxAttentionRows];
  const uint8_t* mask[kMaxAttentionRows];  // from key 0 on; when `masked`
  const float* bias[kMaxAttentionRows];    // from key 0 on; when `biased`
  int32_t origin[kMaxAttentionRows];       // i' of alibi's j - i'
  float slope[kMaxAttentionRows];          // times log2(e)
};

// Many queries: see attention_flash.cc.
struct FlashKernel {
  size_t lanes, vectors;                                  // a block has up to lanes * vectors rows
  size_t (*scratch_floats)(const AttentionBlock& block);  // for blocks of any number of rows with these options
  void (*run)(const AttentionBlock& block, float* scratch);
};
const FlashKernel& GetFlashKernel(Isa isa);

// The natural logarithm of sum * 2^maximum; -inf when no key was kept.
inline float LogSumExp(float maximum, float sum) {
  if (sum == 0) return kMinusInfinity;
  return static_cast<float>(maximum * 0.69314718055994531 + std::log(static_cast<double>(sum)));
}

// The softmax of some of the keys, to be merged: sum of 2^(score - maximum) * value [value_dim], then maximum and sum.
inline size_t MaximumAt(size_t value_dim) { return (value_dim + 15) / 16 * 16; }
inline size_t SumAt(size_t value_dim) { return MaximumAt(value_dim) + 1; }
inline size_t PartialFloats(size_t value_dim) { return MaximumAt(value_dim) + 16; }

// Few queries: see attention_decode.cc.
struct DecodeKernel {
  size_t lanes;
  size_t rows;  // a block has up to so many
  size_t (*scratch_floats)(const AttentionBlock& block);
  // partial [rows][PartialFloats] of keys [begin, end), which are at least one. lse and weights are left alone.
  void (*run)(const AttentionBlock& block, float* partial, float* scratch);
  // weights[r][j] = 2^(score - maximum[r]) * factor[r] for keys [begin, end), 0 where a pair is not kept.
  void (*weights)(const AttentionBlock& block, const float* maximum, const float* factor, float* scratch);
};
const DecodeKernel& GetDecodeKernel(Isa isa);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_ATTENTION_H_
