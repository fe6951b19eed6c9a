#include "kernels/cuda/portable/start_fused_dw_pw.cuh"

namespace lamina::cuda {

template Error StartFusedDwPw<Math::kTf32x3>(const FusedDwPwArgs&, void*);

}  // namespace lamina::cuda
