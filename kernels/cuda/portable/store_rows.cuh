// Rows of keys or values, as a product leaves them, to their places in a cache.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_STORE_ROWS_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_STORE_ROWS_CUH_

#include "kernels/cuda/core/attention.h"
#include "kernels/cuda/device/ptx.cuh"

namespace lamina::cuda {

inline constexpr int kStoreThreads = 256;

// A block to a row of all heads.
template <class T>
__global__ void __launch_bounds__(kStoreThreads) StoreRowsKernel(const __grid_constant__ StoreRowsArgs a) {
  AwaitEarlierKernels();
  const auto row = static_cast<int>(blockIdx.x), b = row / a.rows, i = row - b * a.rows;
  const T* from = static_cast<const T*>(a.from) + int64_t{row} * a.heads * a.dim;
  T* to = static_cast<T*>(a.to) + b * a.strides.batch + i * a.strides.row;
  for (int at = static_cast<int>(threadIdx.x); at < a.heads * a.dim; at += kStoreThreads) {
    const int head = at / a.dim;
    to[head * a.strides.head + at - head * a.dim] = from[at];
  }
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_STORE_ROWS_CUH_
