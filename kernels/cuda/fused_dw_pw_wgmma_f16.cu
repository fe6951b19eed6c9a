#include "kernels/cuda/sm90/start_fused_dw_pw.cuh"

namespace lamina::cuda {

template Error StartFusedWgmma<Math::kF16>(const FusedWgmmaArgs&, const FusedWgmmaPlan&, int, void*);

}  // namespace lamina::cuda
