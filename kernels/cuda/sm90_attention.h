// Attention on compute capability 9.0 (sm90/attention.cuh) as attention.cc uses it.
#ifndef LAMINA_KERNELS_CUDA_SM90_ATTENTION_H_
#define LAMINA_KERNELS_CUDA_SM90_ATTENTION_H_

#include <string>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/core/attention.h"
#include "kernels/cuda/core/tensor_map.h"
#include "kernels/cuda/kept_map.h"
#include "kernels/cuda/runtime.h"

namespace lamina::cuda {

struct WgmmaAttentionArgs {
  TensorMap q, k, v;
  AttentionArgs attention;  // one head to a unit
};

// "" or why this kernel does not take `desc`.
std::string RefusesWgmmaAttention(const MultiHeadAttentionDesc& desc, const Device& device);
AttentionTiles WgmmaAttentionTiles(const MultiHeadAttentionDesc& desc);

// The maps of one operator's q, k and v, kept from call to call as long as these stay where they are.
class WgmmaAttention {
 public:
  // Whether this call's pointers (and strides) are aligned as TMA wants them, and no weights are asked for.
  static bool Takes(const AttentionArgs& args);
  Error Launch(const Device& device, DType dtype, const AttentionArgs& args, void* stream) const;

 private:
  mutable KeptMap q_, k_, v_;
};

// Of attention_wgmma_*.cu.
template <Math kMath>
Error StartWgmmaAttention(const WgmmaAttentionArgs& args, int blocks, void* stream);

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_ATTENTION_H_
