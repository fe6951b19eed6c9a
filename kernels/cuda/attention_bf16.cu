#include "kernels/cuda/portable/start_attention.cuh"

namespace lamina::cuda {

template AttentionTiles AttentionTilesOf<Math::kBf16>(AttentionForm, int);
template Error StartAttention<Math::kBf16>(const AttentionArgs&, AttentionForm, void*);

}  // namespace lamina::cuda
