// Attention as other files use it: a form and its tiles, chosen once for a problem, then a few launches a call.
#ifndef LAMINA_KERNELS_CUDA_ATTENTION_H_
#define LAMINA_KERNELS_CUDA_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/core/attention.h"
#include "kernels/cuda/core/gemm.h"
#include "kernels/cuda/runtime.h"
#include "lamina/multi_head_attention.h"

namespace lamina::cuda {

enum class AttentionForm { kFlash, kSplitKv, kFlashWgmma };

class WgmmaAttention;

// Channels that rows are padded to, rows of a unit and keys that a block has at a time, warps that share those keys.
struct AttentionTiles {
  int channels, rows, keys, key_warps, shared_bytes;
};

// One call's tensors, with the strides that they lie at. Projections put their own buffers here.
struct AttentionOperands {
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  void* o = nullptr;
  AttentionStrides q_strides, k_strides, v_strides, o_strides;
  int64_t key_length = 0;                              // where tensors->key_lengths is null
  const MultiHeadAttentionTensors* tensors = nullptr;  // mask, bias, slopes, lse, weights
};

class Attention {
 public:
  // "" or why no kernel takes these sizes.
  static std::string Refuses(AttentionForm form, const MultiHeadAttentionDesc& desc, const Device& device);

  Attention(AttentionForm form, const MultiHeadAttentionDesc& desc, const Device& device);
  double PredictNs() const;
  size_t workspace_bytes() const;  // at a multiple of 16
  Error Run(const AttentionOperands& operands, std::byte* workspace, void* stream) const;

 private:
  MultiHeadAttentionDesc desc_;
  const Device* device_;
  AttentionForm form_;
  AttentionTiles tiles_;
  AttentionArgs args_;                           // but for pointers and strides
  std::shared_ptr<const WgmmaAttention> wgmma_;  // of kFlashWgmma
};

Error StoreRows(DType dtype, const StoreRowsArgs& args, void* stream);

// Of attention_*.cu.
template <Math kMath>
AttentionTiles AttentionTilesOf(AttentionForm form, int dim);
template <Math kMath>
Error StartAttention(const AttentionArgs& args, AttentionForm form, void* stream);

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_ATTENTION_H_
