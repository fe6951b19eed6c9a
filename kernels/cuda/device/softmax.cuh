// Pieces of a softmax whose scores come tile by tile (Milakov and Gimelshein, "Online normalizer calculation for
// softmax", 2018): a running maximum, and sums that are rescaled when it grows. Scores are times log2(e), for exp2.
// A score of -inf is a key that is not kept; a row without any has maximum -inf and sum 0.
#ifndef LAMINA_KERNELS_CUDA_DEVICE_SOFTMAX_CUH_
#define LAMINA_KERNELS_CUDA_DEVICE_SOFTMAX_CUH_

#include <cmath>

#include "kernels/cuda/device/lanes.cuh"
#include "kernels/cuda/device/ptx.cuh"

namespace lamina::cuda {

inline constexpr float kLog2E = 1.44269504088896340f, kLn2 = 0.69314718055994531f;

// What exponents are taken relative to: the maximum, or anything while there is none, so that exp2(-inf) is 0.
__device__ __forceinline__ float ShiftOf(float max) { return max == -INFINITY ? 0.0f : max; }

// Raises `max` to `seen`; returns what sums of before are to be multiplied by.
__device__ __forceinline__ float Raise(float& max, float seen) {
  const float before = max;
  max = fmaxf(max, seen);
  return FastExp2(before - ShiftOf(max));
}

// 1 / sum, exactly for powers of two: a step of Newton's method, where a division would be a subroutine. A row without
// keys gives zeros.
__device__ __forceinline__ float InverseOf(float sum) {
  const float near = FastReciprocal(sum);
  return sum == 0 ? 0.0f : fmaf(near, fmaf(-sum, near, 1.0f), near);
}

// The natural logarithm of the sum of exponentials.
__device__ __forceinline__ float LogSumExp(float max, float sum) {
  return sum == 0 ? -INFINITY : fmaf(max, kLn2, logf(sum));
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_DEVICE_SOFTMAX_CUH_
