#include "kernels/cpu/attention_problem.h"

#include <algorithm>

namespace lamina::cpu {
namespace {

constexpr double kLog2EInDouble = 1.4426950408889634;
constexpr int32_t kTileKeys = 8;  // a multiple of every kernel's tile, or nearly

}  // namespace

AttentionProblem::AttentionProblem(const MultiHeadAttentionDesc& desc, bool stacked)
    : desc_(desc),
      stacked_(stacked),
      units_(static_cast<size_t>(stacked ? desc.kv_heads() : desc.num_heads)),
      rows_(stacked ? StackedRows(desc) : static_cast<size_t>(desc.seqlen_q)) {}

AttentionBlock AttentionProblem::Options() const {
  const MultiHeadAttentionDesc& d = desc_;
  AttentionBlock block;
  block.head_dim = static_cast<size_t>(d.head_dim);
  block.value_dim = static_cast<size_t>(d.v_dim());
  block.seqlen_kv = static_cast<size_t>(d.seqlen_kv);
  const double scale = d.score_scale();
  block.scale = static_cast<float>(d.softcap > 0 ? scale / d.softcap : scale * kLog2EInDouble);
  block.softcap = static_cast<float>(d.softcap * kLog2EInDouble);
  block.masked = d.mask;
  block.biased = d.bias;
  block.alibi = d.alibi;
  return block;
}

void AttentionProblem::SetRow(const AttentionOperands& op, int64_t b, int64_t head, int64_t i, size_t r,
                              AttentionBlock& block) const {
  const MultiHeadAttentionDesc& d = desc_;
  block.q[r] = op.q + b * op.q_strides.batch + i * op.q_strides.row + head * op.q_strides.head;
  block.o[r] = op.o + b * op.o_strides.batch + i * op.o_strides.row + head * op.o_strides.head;
  const int64_t length = op.key_lengths != nullptr ? op.key_lengths[b] : op.key_length;
  const int64_t origin = i + (d.causal == Causal::kBottomRight ? length - d.seqlen_q : 0);  // i' of the formula
  int64_t first = 0, last = length;
  if (d.causal != Causal::kNone) last = std::min(last, origin + 1);
  // Windows may be as long as int64 goes: what reaches beyond the keys is all of them.
  if (d.window_left >= 0 && d.window_left < origin) first = origin - d.window_left;
  if (d.window_right >= 0 && d.window_right < last - origin) last = origin + d.window_right + 1;
  block.first[r] = static_cast<int32_t>(std::min(first, length));
  block.last[r] = static_cast<int32_t>(std::max(last, first > length ? length : first));
  block.origin[r] = static_cast<int32_t>(origin);
  const MultiHeadAttentionTensors& t = *op.tensors;
  const auto plane_row = [&](int64_t batches, int64_t heads) {
    return (((batches == 1 ? 0 : b) * heads + (heads == 1 ? 0 : head)) * d.seqlen_q + i) * d.seqlen_kv;
  };
  if (d.mask) block.mask[r] = reinterpret_cast<const uint8_t*>(t.mask) + plane_row(d.mask_batch, d.mask_heads);
  if (d.bias) block.bias[r] = t.bias + plane_row(d.bias_batch, d.bias_heads);
  block.slope[r] = d.alibi ? static_cast<float>(t.alibi_slopes[head] * kLog2EInDouble) : 0.0f;
}

AttentionBlock AttentionProblem::Block(const AttentionOperands& op, size_t batch, size_t unit, size_t begin,
                                       size_t count, size_t padded) const {
  const MultiHeadAttentionDesc& d = desc_;
  AttentionBlock block = Options();
  const auto b = static_cast<int64_t>(batch), group = d.num_heads / d.kv_heads();
  const int64_t head0 = static_cast<int64_t>(unit) * (stacked_ ? group : 1), kv_head = head0 / group;
  block.rows = count;
  block.k = op.k + b * op.k_strides.batch + kv_head * op.k_strides.head;
  block.v = op.v + b * op.v_strides.batch + kv_head * op.v_strides.head;
  block.k_row = static_cast<ptrdiff_t>(op.k_strides.row);
  block.v_row = static_cast<ptrdiff_t>(op.v_strides.row);
  // Rows of a unit follow each other in [batch, num_heads, seqlen_q], stacked or not.
  const int64_t first_row = (b * d.num_heads + head0) * d.seqlen_q + static_cast<int64_t>(begin);
  if (op.tensors->lse != nullptr) block.lse = op.tensors->lse + first_row;
  if (op.tensors->weights != nullptr) block.weights = op.tensors->weights + first_row * d.seqlen_kv;

  int32_t lowest = INT32_MAX, highest = 0, whole_begin = 0, whole_end = INT32_MAX;
  const auto row = static_cast<int64_t>(begin);
  int64_t head = head0 + row / d.seqlen_q, i = row % d.seqlen_q;
  for (size_t r = 0; r < padded; ++r) {
    if (r < count) {
      SetRow(op, b, head, i, r, block);
      if (++i == d.seqlen_q) ++head, i = 0;
    } else {
      SetRow(op, b, head0 + row / d.seqlen_q, row % d.seqlen_q, r, block);
    }
    const int32_t first = block.first[r], last = block.last[r];
    whole_begin = std::max(whole_begin, first);
    whole_end = std::min(whole_end, last);
    if (first < last) {
      lowest = std::min(lowest, first);
      highest = std::max(highest, last);
    }
  }
  if (lowest >= highest) return block;  // no row keeps a key
  block.begin = static_cast<size_t>(lowest);
  block.end = static_cast<size_t>(highest);
  // Whole tiles of keys as long as nothing cuts them; where there is none, every tile is cut.
  if (whole_end < highest) whole_end = whole_begin + (whole_end - whole_begin) / kTileKeys * kTileKeys;
  if (whole_begin >= whole_end) whole_begin = whole_end = highest;
  block.whole_begin = static_cast<size_t>(whole_begin);
  block.whole_end = static_cast<size_t>(whole_end);
  return block;
}

}  // namespace lamina::cpu
