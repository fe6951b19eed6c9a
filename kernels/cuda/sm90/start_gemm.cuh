// StartWgmmaGemm of one kind of products, for the files that instantiate it.
#ifndef LAMINA_KERNELS_CUDA_SM90_START_GEMM_CUH_
#define LAMINA_KERNELS_CUDA_SM90_START_GEMM_CUH_

#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/sm90/gemm.cuh"

namespace lamina::cuda {

template <Math kMath>
Error StartWgmmaGemm(const WgmmaGemmArgs& args, WgmmaTile tile, int blocks, void* stream) {
  const auto start = [&]<int kM, int kN, WgmmaForm kForm = WgmmaForm::kHalves>() {
    using Shape = WgmmaShape<kMath, kM, kN, kForm>;
    return Launch(WgmmaGemmKernel<kMath, kM, kN, kForm>, dim3{static_cast<unsigned>(blocks), 1, 1}, Shape::kThreads,
                  static_cast<int>(sizeof(typename Shape::Shared)), stream, args);
  };
  constexpr WgmmaTile kLarge = LargeTile(kMath);
  if (tile == kLarge) return start.template operator()<kLarge.m, kLarge.n>();
  if constexpr (kMath != Math::kTf32x3) {
    if (tile == kKeepingTile) return start.template operator()<kKeepingTile.m, kKeepingTile.n, kKeepingTile.form>();
    if (tile == kTurnsTile) return start.template operator()<kTurnsTile.m, kTurnsTile.n, kTurnsTile.form>();
  }
  if (tile.n == 128) return start.template operator()<128, 128>();
  return tile.m == 256 ? start.template operator()<256, 64>() : start.template operator()<128, 64>();
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_START_GEMM_CUH_
