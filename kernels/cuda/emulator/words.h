// The words of CUDA C++ that kernels use, for a plain C++ compiler: qualifiers, small vectors, indices.
#ifndef LAMINA_KERNELS_CUDA_EMULATOR_WORDS_H_
#define LAMINA_KERNELS_CUDA_EMULATOR_WORDS_H_

#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
constexpr float2 make_float2(float x, float y) { return {x, y}; }
constexpr float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
constexpr uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
constexpr uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

// Of the thread that is running; the emulator sets them.
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

#endif  // LAMINA_KERNELS_CUDA_EMULATOR_WORDS_H_
