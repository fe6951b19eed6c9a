// Attention on a GPU: what the host tells the kernels, and the arithmetic of rows, keys and splits that both do.
//   s[i, j] = softcap(scale * q[i] . k[j]) + bias[i, j] + slope * (j - i'),   o[i] = sum_j softmax_j(s[i, :])[j] * v[j]
// A unit is what shares keys: one query head's rows, or, stacked, those of all heads of a group; row r of it is head
// r / seqlen_q and query r % seqlen_q. Scores are kept times log2(e), for exp2.
#ifndef LAMINA_KERNELS_CUDA_CORE_ATTENTION_H_
#define LAMINA_KERNELS_CUDA_CORE_ATTENTION_H_

#include <cstdint>

#include "kernels/cuda/core/divider.h"
#include "kernels/cuda/core/round.h"

namespace lamina::cuda {

// Elements from one to the next of a [batch, seqlen, heads, dim]; of a mask's or bias's planes, 0 where one is for all.
struct HeadStrides {
  int64_t batch = 0, row = 0, head = 0;
  bool operator==(const HeadStrides&) const = default;
};

// Keys [begin, end).
struct KeyRange {
  int begin = 0, end = 0;
};

// Which keys a query keeps by its place alone: causal, window and length.
struct KeyRule {
  int seqlen_q = 0;
  bool bottom_right = false;
  int64_t left = -1, right = -1;  // keys kept on each side of i'; -1: all. Causal is right = 0

  // i' of the formula.
  LAMINA_HD int Origin(int query, int length) const { return bottom_right ? query + length - seqlen_q : query; }
  LAMINA_HD KeyRange Of(int query, int length) const {
    const int64_t origin = Origin(query, length);
    const int end = right < 0 ? length : Clamped(origin + right + 1, length);
    return {left < 0 ? 0 : Clamped(origin - left, end), end};
  }
  // Of queries first..last: keys that any of them keeps, and keys that all of them keep. Both ends grow with the query.
  LAMINA_HD KeyRange OfAny(int first, int last, int length) const {
    return {Of(first, length).begin, Of(last, length).end};
  }
  LAMINA_HD KeyRange OfAll(int first, int last, int length) const {
    return {Of(last, length).begin, Of(first, length).end};
  }

 private:
  LAMINA_HD static int Clamped(int64_t key, int most) {
    return key < 0 ? 0 : key > most ? most : static_cast<int>(key);
  }
};

// What is left of a row of scores: its maximum, and the sum of exp2(score - maximum).
struct SoftmaxStats {
  float max, sum;
};

struct AttentionArgs {
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  void* o = nullptr;
  HeadStrides q_strides = {}, k_strides = {}, v_strides = {}, o_strides = {};
  bool q_chunks = false, k_chunks = false, v_chunks = false;  // rows come in aligned chunks of 16 bytes
  bool o_pieces = false;                                      // and leave in aligned pieces, as a lane holds them
  int batch = 0, num_heads = 0, seqlen_q = 0, seqlen_kv = 0, head_dim = 0, value_dim = 0;
  int stack = 1;                     // heads of a unit
  Divider group = {}, queries = {};  // query heads of a key head; seqlen_q
  float scale_log2 = 0;
  float cap = 0, scale_by_cap = 0;  // 0: none
  KeyRule rule = {};
  const int32_t* key_lengths = nullptr;  // [batch]; clamped to seqlen_kv
  int key_length = 0;                    // of every batch element without them
  const bool* mask = nullptr;            // [.., seqlen_q, seqlen_kv]
  const float* bias = nullptr;           // [.., seqlen_q, seqlen_kv]
  HeadStrides mask_strides = {}, bias_strides = {};
  const float* alibi_slopes = nullptr;  // [num_heads]
  float* lse = nullptr;                 // [batch, num_heads, seqlen_q]
  float* weights = nullptr;             // [batch, num_heads, seqlen_q, seqlen_kv]
  SoftmaxStats* stats = nullptr;        // [batch, num_heads, seqlen_q], for weights
  // split_kv: what each of `parts` saw of a row's keys.
  int splits = 1, parts = 1;
  SoftmaxStats* part_stats = nullptr;  // [batch, num_heads, seqlen_q, parts]
  float* part_o = nullptr;             // [batch, num_heads, seqlen_q, parts, PartChannels(value_dim)], not divided

  // A maximum of products is one of scores.
  LAMINA_HD bool plain() const { return cap == 0 && bias == nullptr && alibi_slopes == nullptr && scale_log2 > 0; }
  LAMINA_HD int units() const { return num_heads / stack; }
  LAMINA_HD int rows() const { return stack * seqlen_q; }
  // Of row `row` of a unit, in [batch, num_heads, seqlen_q].
  LAMINA_HD int64_t FlatRow(int b, int unit, int row) const {
    return (int64_t{b} * num_heads + unit * stack) * seqlen_q + row;
  }
};

// [batch, rows, heads, dim], dense, to where strides say.
struct StoreRowsArgs {
  const void* from;
  void* to;
  int batch, rows, heads, dim;
  HeadStrides strides;
};

constexpr int64_t PartChannels(int64_t value_dim) { return RoundUp(value_dim, 4); }

// One row: whose it is and which keys the rule keeps of it.
struct Query {
  int b, head, kv_head, i, origin;
  KeyRange keys;
};
// Rows beyond the last keep none.
LAMINA_HD Query QueryOf(const AttentionArgs& a, int b, int unit, int row, int length) {
  const auto in_unit = static_cast<int>(a.queries.Quotient(static_cast<uint32_t>(row)));
  const int head = unit * a.stack + in_unit, i = row - in_unit * a.seqlen_q;
  return {b,
          head,
          static_cast<int>(a.group.Quotient(static_cast<uint32_t>(head))),
          i,
          a.rule.Origin(i, length),
          row < a.rows() ? a.rule.Of(i, length) : KeyRange{}};
}

// The queries of rows first..last of a unit, as a range that holds them all.
LAMINA_HD KeyRange QueriesOf(const AttentionArgs& a, int first, int last) {
  const uint32_t head = a.queries.Quotient(static_cast<uint32_t>(first));
  if (head != a.queries.Quotient(static_cast<uint32_t>(last))) return {0, a.seqlen_q - 1};
  const int before = static_cast<int>(head) * a.seqlen_q;
  return {first - before, last - before};
}

// The part of `keys` that split `index` of `splits` sees: whole tiles of `tile` keys, as many for each.
LAMINA_HD KeyRange SplitOf(KeyRange keys, int tile, int splits, int index) {
  if (keys.end <= keys.begin) return {keys.begin, keys.begin};
  const int64_t each = DivUp(DivUp(keys.end - keys.begin, tile), splits) * tile;
  const int64_t begin = keys.begin + each * index, end = begin + each;
  return {static_cast<int>(begin < keys.end ? begin : keys.end), static_cast<int>(end < keys.end ? end : keys.end)};
}

// Into how many parts `tiles` tiles of keys are cut when `blocks` blocks have such tiles and `slots` run at a time: the
// fewest that keep the device nearly as busy as the best number does.
inline constexpr int kMostSplits = 64;
constexpr int SplitsFor(int64_t blocks, int64_t tiles, int64_t slots) {
  const int64_t most = tiles < kMostSplits ? tiles : kMostSplits;
  const auto busy = [&](int64_t splits) {
    const int64_t all = blocks * splits;
    return static_cast<double>(all) / static_cast<double>(DivUp(all, slots) * slots);
  };
  double best = 0;
  for (int64_t s = 1; s <= most; ++s) best = busy(s) > best ? busy(s) : best;
  for (int64_t s = 1; s <= most; ++s) {
    const bool fewer_tiles = s == 1 || DivUp(tiles, s) < DivUp(tiles, s - 1);
    if (fewer_tiles && busy(s) >= 0.85 * best) return static_cast<int>(s);
  }
  return 1;
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_ATTENTION_H_
