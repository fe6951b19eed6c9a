#include "kernels/cuda/sm90/start_attention.cuh"

namespace lamina::cuda {

template Error StartWgmmaAttention<Math::kF16>(const WgmmaAttentionArgs&, int, void*);

}  // namespace lamina::cuda
