#include "kernels/cuda/portable/start_attention.cuh"

namespace lamina::cuda {

template AttentionTiles AttentionTilesOf<Math::kF16>(AttentionForm, int);
template Error StartAttention<Math::kF16>(const AttentionArgs&, AttentionForm, void*);

}  // namespace lamina::cuda
