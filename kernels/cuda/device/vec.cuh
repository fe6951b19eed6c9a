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

// The elements of a 32-bit word; `v` has room for them.
__device__ __forceinline__ void WidenWord(uint32_t bits, float, float* v) { v[0] = __uint_as_float(bits); }
template <class T>
__device__ __forceinline__ void WidenWord(uint32_t bits, T, float* v) {
  v[0] = ToFloat(T{static_cast<uint16_t>(bits)});
  v[1] = ToFloat(T{static_cast<uint16_t>(bits >> 16)});
}

// Four or two of them as an array; p is aligned to as many.
template <class T>
__device__ __forceinline__ void LoadVector(const T* p, float (&v)[4]) {
  const float4 four = Load4(p);
  v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
}
__device__ __forceinline__ void LoadVector(const float* p, float (&v)[2]) {
  const float2 two = *reinterpret_cast<const float2*>(p);
  v[0] = two.x, v[1] = two.y;
}
template <class T>
__device__ __forceinline__ void LoadVector(const T* p, float (&v)[2]) {
  WidenWord(*reinterpret_cast<const uint32_t*>(p), T{}, v);
}
template <class T>
__device__ __forceinline__ void StoreVector(const float (&v)[4], T* p) {
  Store4(make_float4(v[0], v[1], v[2], v[3]), p);
}
__device__ __forceinline__ void StoreVector(const float (&v)[2], float* p) {
  *reinterpret_cast<float2*>(p) = make_float2(v[0], v[1]);
}
template <class T>
__device__ __forceinline__ void StoreVector(const float (&v)[2], T* p) {
  *reinterpret_cast<uint32_t*>(p) = PackPair(v[0], v[1], T{});
}

// 16-byte chunks of elements.
template <class T>
inline constexpr int kChunkElements = 16 / static_cast<int>(sizeof(T));
__device__ __forceinline__ void WidenChunk(uint4 bits, float, float (&v)[4]) {
  v[0] = __uint_as_float(bits.x), v[1] = __uint_as_float(bits.y);
  v[2] = __uint_as_float(bits.z), v[3] = __uint_as_float(bits.w);
}
template <class T>
__device__ __forceinline__ void WidenChunk(uint4 bits, T, float (&v)[8]) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) WidenWord(words[i], T{}, v + 2 * i);
}
// v points at a chunk's floats, p is aligned to 16 bytes.
__device__ __forceinline__ void StoreChunk(const float* v, float* p) { Store4(make_float4(v[0], v[1], v[2], v[3]), p); }
template <class T>
__device__ __forceinline__ void StoreChunk(const float* v, T* p) {
  *reinterpret_cast<uint4*>(p) = make_uint4(PackPair(v[0], v[1], T{}), PackPair(v[2], v[3], T{}),
                                            PackPair(v[4], v[5], T{}), PackPair(v[6], v[7], T{}));
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_DEVICE_VEC_CUH_
