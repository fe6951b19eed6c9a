// StartGemm of one kind of products, for the files that instantiate it.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_START_GEMM_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_START_GEMM_CUH_

#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/portable/gemm.cuh"

namespace lamina::cuda {

template <Math kMath>
Error StartGemm(const GemmArgs& args, GemmVariant variant, void* stream) {
  const auto start = [&]<int kM, bool kChunks>() {
    using Shape = GemmShape<kM>;
    const int64_t tiles = DivUp(args.rows, kM) * DivUp(args.n, kM) * args.groups;
    return Launch(GemmKernel<kMath, kM, kChunks>,
                  dim3{static_cast<unsigned>(tiles), static_cast<unsigned>(args.splits), 1}, Shape::kThreads,
                  Shape::kSharedBytes, stream, args);
  };
  if (!variant.chunks) return start.template operator()<64, false>();
  return variant.tile == 128 ? start.template operator()<128, true>() : start.template operator()<64, true>();
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_START_GEMM_CUH_
