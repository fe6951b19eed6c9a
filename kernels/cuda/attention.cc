#include "kernels/cuda/attention.h"

#include <algorithm>

#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/sm90_attention.h"

namespace lamina::cuda {
namespace {

constexpr int64_t kMost = int64_t{1} << 31;  // of what is counted in an int
int BlocksPerMultiprocessor(AttentionForm form) { return form == AttentionForm::kFlashWgmma ? 1 : 2; }

AttentionTiles TilesOf(AttentionForm form, const MultiHeadAttentionDesc& d) {
  if (form == AttentionForm::kFlashWgmma) return WgmmaAttentionTiles(d);
  const auto channels = static_cast<int>(std::max(d.head_dim, d.v_dim()));
  switch (d.dtype) {
    case DType::kF32: return AttentionTilesOf<Math::kF32>(form, channels);
    case DType::kBf16: return AttentionTilesOf<Math::kBf16>(form, channels);
    case DType::kF16: return AttentionTilesOf<Math::kF16>(form, channels);
  }
  return {};
}

// Heads of a group share a unit where one head's queries would leave half a block empty.
int64_t StackOf(AttentionForm form, const MultiHeadAttentionDesc& d, const AttentionTiles& tiles) {
  if (form == AttentionForm::kFlashWgmma) return 1;
  return 2 * d.seqlen_q <= tiles.rows ? d.num_heads / d.kv_heads() : 1;
}

// Blocks of one split.
int64_t BlocksOf(AttentionForm form, const MultiHeadAttentionDesc& d, const AttentionTiles& tiles) {
  const int64_t stack = StackOf(form, d, tiles);
  return d.batch * (d.num_heads / stack) * DivUp(stack * d.seqlen_q, tiles.rows);
}

HeadStrides Strides(const AttentionStrides& s) { return {s.batch, s.row, s.head}; }

// Every row of `dim` elements begins at a multiple of `bytes` and is made of whole pieces of that size.
bool Aligned(const void* data, const AttentionStrides& s, int64_t dim, size_t element, size_t bytes) {
  const auto elements = static_cast<int64_t>(bytes / element);
  return reinterpret_cast<uintptr_t>(data) % bytes == 0 && s.batch % elements == 0 && s.row % elements == 0 &&
         s.head % elements == 0 && dim % elements == 0;
}

HeadStrides PlaneStrides(const MultiHeadAttentionDesc& d, int64_t batches, int64_t heads) {
  const int64_t plane = d.seqlen_q * d.seqlen_kv;
  return {batches == 1 ? 0 : heads * plane, d.seqlen_kv, heads == 1 ? 0 : plane};
}

}  // namespace

std::string Attention::Refuses(AttentionForm form, const MultiHeadAttentionDesc& d, const Device& device) {
  if (form == AttentionForm::kFlashWgmma) {
    if (std::string why = RefusesWgmmaAttention(d, device); !why.empty()) return why;
  }
  const AttentionTiles tiles = TilesOf(form, d);
  if (d.seqlen_q + d.seqlen_kv >= kMost || d.batch * d.num_heads * d.seqlen_q >= kMost ||
      BlocksOf(form, d, tiles) * kMostSplits >= kMost) {
    return "takes fewer than 2^31 queries of all heads, tiles of queries and keys";
  }
  if (static_cast<size_t>(tiles.shared_bytes) > device.shared_bytes) {
    return "takes " + std::to_string(tiles.shared_bytes) + " bytes of shared memory, got a device with " +
           std::to_string(device.shared_bytes);
  }
  return "";
}

Attention::Attention(AttentionForm form, const MultiHeadAttentionDesc& d, const Device& device)
    : desc_(d), device_(&device), form_(form), tiles_(TilesOf(form, d)) {
  AttentionArgs& a = args_;
  a.batch = static_cast<int>(d.batch);
  a.num_heads = static_cast<int>(d.num_heads);
  a.seqlen_q = static_cast<int>(d.seqlen_q);
  a.seqlen_kv = static_cast<int>(d.seqlen_kv);
  a.head_dim = static_cast<int>(d.head_dim);
  a.value_dim = static_cast<int>(d.v_dim());
  a.stack = static_cast<int>(StackOf(form, d, tiles_));
  a.group = Divider::Of(static_cast<uint32_t>(d.num_heads / d.kv_heads()));
  a.queries = Divider::Of(static_cast<uint32_t>(std::max<int64_t>(d.seqlen_q, 1)));
  constexpr double kLog2E = 1.4426950408889634;
  a.scale_log2 = static_cast<float>(kLog2E * d.score_scale());
  a.cap = d.softcap;
  if (d.softcap > 0) a.scale_by_cap = static_cast<float>(double{d.score_scale()} / d.softcap);
  a.rule.seqlen_q = a.seqlen_q;
  a.rule.bottom_right = d.causal == Causal::kBottomRight;
  // More than all keys on a side is all of them.
  const auto width = [&](int64_t window) { return std::min(window, d.seqlen_q + d.seqlen_kv); };
  a.rule.left = width(d.window_left);
  a.rule.right = d.causal == Causal::kNone ? width(d.window_right) : 0;
  a.mask_strides = PlaneStrides(d, d.mask_batch, d.mask_heads);
  a.bias_strides = PlaneStrides(d, d.bias_batch, d.bias_heads);
  if (form == AttentionForm::kSplitKv) {
    a.splits = SplitsFor(std::max<int64_t>(BlocksOf(form, d, tiles_), 1),
                         DivUp(std::max<int64_t>(d.seqlen_kv, 1), tiles_.keys),
                         int64_t{device.multiprocessors} * BlocksPerMultiprocessor(form));
    a.parts = a.splits * tiles_.key_warps;
  }
  if (form == AttentionForm::kFlashWgmma) wgmma_ = std::make_shared<WgmmaAttention>();
}

double Attention::PredictNs() const {
  const MultiHeadAttentionDesc& d = desc_;
  MultiHeadAttentionDesc plain = d;
  plain.projections = false;
  const double queries = static_cast<double>(d.batch * d.num_heads * d.seqlen_q);
  const auto blocks = static_cast<double>(BlocksOf(form_, d, tiles_));
  const double kept = static_cast<double>(CostOf(plain).macs) / static_cast<double>(d.head_dim + d.v_dim());
  // The kept pairs of the rows that tiles hold, those that are none included.
  const double pairs = queries > 0 ? kept / queries * blocks * tiles_.rows : 0;
  // An exponential takes a sixteenth of a multiprocessor's clock, in which the products of two channels are formed.
  const Math math = NativeMath(d.dtype);
  const double flops_per_clock =
      form_ == AttentionForm::kFlashWgmma ? WgmmaFlopsPerClock(math) : PortableFlopsPerClock(device_->capability, math);
  const double flops = pairs * (4.0 * tiles_.channels + flops_per_clock / 16);
  double bytes = static_cast<double>(CostOf(plain).activation_bytes);
  double launches = 0;
  if (form_ == AttentionForm::kSplitKv) {
    bytes += 2.0 * static_cast<double>(workspace_bytes());
    launches = kLaunchNs;
  }
  return launches + cuda::PredictNs(device_->figures(), flops, flops_per_clock, bytes, blocks * args_.splits,
                                    BlocksPerMultiprocessor(form_));
}

size_t Attention::workspace_bytes() const {
  const auto queries = static_cast<size_t>(desc_.batch * desc_.num_heads * desc_.seqlen_q);
  size_t bytes = RoundUp(queries * sizeof(SoftmaxStats), 16);
  if (form_ == AttentionForm::kSplitKv) {
    const size_t parts = queries * static_cast<size_t>(args_.parts);
    bytes += parts * static_cast<size_t>(PartChannels(desc_.v_dim())) * sizeof(float) + parts * sizeof(SoftmaxStats);
  }
  return bytes;
}

Error Attention::Run(const AttentionOperands& operands, std::byte* workspace, void* stream) const {
  const MultiHeadAttentionDesc& d = desc_;
  const MultiHeadAttentionTensors& t = *operands.tensors;
  const size_t element = SizeOf(d.dtype);
  AttentionArgs a = args_;
  a.q = operands.q;
  a.k = operands.k;
  a.v = operands.v;
  a.o = operands.o;
  a.q_strides = Strides(operands.q_strides);
  a.k_strides = Strides(operands.k_strides);
  a.v_strides = Strides(operands.v_strides);
  a.o_strides = Strides(operands.o_strides);
  a.q_chunks = Aligned(a.q, operands.q_strides, d.head_dim, element, 16);
  a.k_chunks = Aligned(a.k, operands.k_strides, d.head_dim, element, 16);
  a.v_chunks = Aligned(a.v, operands.v_strides, d.v_dim(), element, 16);
  a.o_pieces = Aligned(a.o, operands.o_strides, d.v_dim(), element, d.dtype == DType::kF32 ? 16 : 4);
  a.key_lengths = t.key_lengths;
  a.key_length = static_cast<int>(operands.key_length);
  a.mask = t.mask;
  a.bias = t.bias;
  a.alibi_slopes = t.alibi_slopes;
  a.lse = t.lse;
  a.weights = t.weights;
  const auto queries = static_cast<size_t>(d.batch * d.num_heads * d.seqlen_q);
  a.stats = reinterpret_cast<SoftmaxStats*>(workspace);
  if (form_ == AttentionForm::kSplitKv) {
    a.part_o = reinterpret_cast<float*>(workspace + RoundUp(static_cast<int64_t>(queries * sizeof(SoftmaxStats)), 16));
    a.part_stats = reinterpret_cast<SoftmaxStats*>(a.part_o + queries * static_cast<size_t>(a.parts) *
                                                                  static_cast<size_t>(PartChannels(d.v_dim())));
  }
  if (wgmma_ != nullptr && WgmmaAttention::Takes(a)) return wgmma_->Launch(*device_, d.dtype, a, stream);
  const AttentionForm portable = form_ == AttentionForm::kSplitKv ? form_ : AttentionForm::kFlash;
  switch (d.dtype) {
    case DType::kF32: return StartAttention<Math::kF32>(a, portable, stream);
    case DType::kBf16: return StartAttention<Math::kBf16>(a, portable, stream);
    case DType::kF16: return StartAttention<Math::kF16>(a, portable, stream);
  }
  return {};
}

}  // namespace lamina::cuda
