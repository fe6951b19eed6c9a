// Sums and maxima over the lanes of a warp, all of which call these.
#ifndef LAMINA_KERNELS_CUDA_DEVICE_LANES_CUH_
#define LAMINA_KERNELS_CUDA_DEVICE_LANES_CUH_

#include <cmath>

#include "kernels/cuda/device/ptx.cuh"

namespace lamina::cuda {

inline constexpr uint32_t kAllLanes = 0xffffffff;

// Over neighbouring lanes, kLanes of them, for each to have: of a quad (4), of a warp (32).
template <int kLanes>
__device__ __forceinline__ float MaxOverLanes(float x) {
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}
template <int kLanes>
__device__ __forceinline__ float SumOverLanes(float x) {
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

// v[i] summed over the warp's lanes: lane l gets the sum with i = l / (32 / kCount).
template <int kCount>
__device__ __forceinline__ float SumEachOverLanes(float (&v)[kCount], int lane) {
#pragma unroll
  for (int half = kCount / 2, mask = 16; half > 0; half /= 2, mask /= 2) {
    const bool upper = (lane & mask) != 0;
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      if (i >= half) continue;
      const float keep = upper ? v[i + half] : v[i], give = upper ? v[i] : v[i + half];
      v[i] = keep + __shfl_xor_sync(kAllLanes, give, mask);
    }
  }
  return SumOverLanes<32 / kCount>(v[0]);
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_DEVICE_LANES_CUH_
