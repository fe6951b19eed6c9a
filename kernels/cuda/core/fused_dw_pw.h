// Depthwise, then pointwise convolution in one kernel: the sizes that its blocks have.
//   A block computes all outputs of kFusedRows pixels. Their depthwise results, in all channels, lie in shared memory
//   as the steps of a matrix product's left factor, each computed once.
#ifndef LAMINA_KERNELS_CUDA_CORE_FUSED_DW_PW_H_
#define LAMINA_KERNELS_CUDA_CORE_FUSED_DW_PW_H_

#include "kernels/cuda/core/depthwise.h"
#include "kernels/cuda/core/gemm.h"

namespace lamina::cuda {

inline constexpr int kFusedRows = 64, kFusedN = 128, kFusedThreads = 256, kFusedStages = 3;

struct FusedDwPwArgs {
  DepthwiseArgs depthwise = {};  // its epilogue: bias and activation
  GemmArgs project = {};         // of the depthwise step's outputs; x is not used
  bool chunks = false;           // x comes in 16-byte chunks of the channels
};

// The ring of weights, then the depthwise results, kStepBytes of channels after kStepBytes.
inline constexpr int kFusedRingBytes = kFusedStages * kFusedN * kStepBytes;
constexpr int64_t FusedSharedBytes(int64_t channels, Math math) {
  return kFusedRingBytes + RoundUp(channels * ElementBytes(math), kStepBytes) * kFusedRows;
}

// What a thread computes of a step: the chunk `chunk` of the pixels first + i * kFusedPixelPitch. Lanes of a quarter
// warp thus store to two neighbouring rows, on all banks.
inline constexpr int kFusedStepThreads = 64, kFusedPixels = 4, kFusedPixelPitch = kFusedRows / kFusedPixels;
static_assert(kFusedStepThreads * kFusedPixels == kFusedRows * (kStepBytes / 16));

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_FUSED_DW_PW_H_
