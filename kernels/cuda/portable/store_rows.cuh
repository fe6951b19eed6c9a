// Rows of keys or values, as a product leaves them, to their places in a cache.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_STORE_ROWS_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_STORE_ROWS_CUH_

#include "kernels/cuda/core/attention.h"
#include "kernels/cuda/device/ptx.cuh"

namespace lamina::cuda {

inline constexpr int kStoreThreads = 256;

// A thread an element, neighbouring ones of a row.
template <class T>
__global__ void __launch_bounds__(kStoreThreads) StoreRowsKernel(const __grid_constant__ StoreRowsArgs a) {
  const int64_t at = int64_t{blockIdx.x} * kStoreThreads + threadIdx.x;
  const int64_t row = at / a.dim, head = row % a.heads, i = row / a.heads % a.rows, b = row / a.heads / a.rows;
  if (b >= a.batch) return;
  static_cast<T*>(a.to)[b * a.strides.batch + i * a.strides.row + head * a.strides.head + at % a.dim] =
      static_cast<const T*>(a.from)[at];
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_STORE_ROWS_CUH_
