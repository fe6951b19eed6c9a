// Elements of any dtype as floats, four at a time where they are aligned to four.
#ifndef LAMINA_KERNELS_CUDA_DEVICE_VEC_CUH_
#define LAMINA_KERNELS_CUDA_DEVICE_VEC_CUH_

#include <cstdint>

#include "kernels/cuda/device/ptx.cuh"

namespace lamina::cuda {

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ void FromFloat(float x, float& y) { y = x; }

// p is aligned to 4 elements.
__device__ __forceinline__ float4 Load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
template <class T>
__device__ __forceinline__ float4 Load4(const T* p) {
  const uint2 bits = *reinterpret_cast<const uint2*>(p);
  return make_float4(ToFloat(T{static_cast<uint16_t>(bits.x)}), ToFloat(T{static_cast<uint16_t>(bits.x >> 16)}),
                     ToFloat(T{static_cast<uint16_t>(bits.y)}), ToFloat(T{static_cast<uint16_t>(bits.y >> 16)}));
}
__device__ __forceinline__ void Store4(float4 v, float* p) { *reinterpret_cast<float4*>(p) = v; }
template <class T>
__device__ __forceinline__ void Store4(float4 v, T* p) {
  *reinterpret_cast<uint2*>(p) = make_uint2(PackPair(v.x, v.y, T{}), PackPair(v.z, v.w, T{}));
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_DEVICE_VEC_CUH_
