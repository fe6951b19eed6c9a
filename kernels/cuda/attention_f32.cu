#include "kernels/cuda/portable/start_attention.cuh"

namespace lamina::cuda {

template AttentionTiles AttentionTilesOf<Math::kF32>(AttentionForm, int);
template Error StartAttention<Math::kF32>(const AttentionArgs&, AttentionForm, void*);

}  // namespace lamina::cuda
