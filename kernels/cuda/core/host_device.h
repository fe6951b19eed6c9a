// What both nvcc and a plain C++ compiler read: the arithmetic of addresses, tiles and schedules, used by kernels and
// by the tests that prove it without a GPU.
#ifndef LAMINA_KERNELS_CUDA_CORE_HOST_DEVICE_H_
#define LAMINA_KERNELS_CUDA_CORE_HOST_DEVICE_H_

#ifdef __CUDACC__
#define LAMINA_HD __host__ __device__ __forceinline__ constexpr
#else
#define LAMINA_HD constexpr
#endif

#endif  // LAMINA_KERNELS_CUDA_CORE_HOST_DEVICE_H_
