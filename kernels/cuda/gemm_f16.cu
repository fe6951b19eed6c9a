#include "kernels/cuda/portable/start_gemm.cuh"

namespace lamina::cuda {

template Error StartGemm<Math::kF16>(const GemmArgs&, GemmVariant, void*);

}  // namespace lamina::cuda
