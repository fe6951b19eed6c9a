#include "kernels/cuda/sm90/start_gemm.cuh"

namespace lamina::cuda {

template Error StartWgmmaGemm<Math::kTf32>(const WgmmaGemmArgs&, WgmmaTile, int, void*);

}  // namespace lamina::cuda
