// The end of a matrix product whose k was shared out over blocks: adds up the parts' sums, in their order, and ends the
// layer. A thread has four neighbouring outputs of a row. The bias is in the first part.
// Budget: one 16-byte load for each part; no shared memory. Any sizes.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_GEMM_REDUCE_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_GEMM_REDUCE_CUH_

#include "kernels/cuda/device/epilogue.cuh"

namespace lamina::cuda {

inline constexpr int kReduceThreads = 128;

// `partials`: f32 [splits, rows, quads * 4].
template <class T>
__global__ void __launch_bounds__(kReduceThreads)
    GemmReduceKernel(const __grid_constant__ GemmArgs a, const float* partials, const __grid_constant__ Divider quads) {
  AwaitEarlierKernels();
  const uint32_t item = blockIdx.x * kReduceThreads + threadIdx.x;
  const uint32_t row = quads.Quotient(item), quad = item - row * quads.divisor;
  if (row >= static_cast<uint32_t>(a.rows)) return;
  const int64_t pitch = int64_t{quads.divisor} * 4, part = a.rows * pitch;
  const float* p = partials + row * pitch + quad * 4;
  float4 sum = Load4(p);
#pragma unroll 4
  for (int split = 1; split < a.splits; ++split) {
    const float4 next = Load4(p + split * part);
    sum = make_float4(sum.x + next.x, sum.y + next.y, sum.z + next.z, sum.w + next.w);
  }
  const uint32_t image = a.pixels.Quotient(row);
  FinishQuad<T>(a.epilogue, sum, make_float4(0, 0, 0, 0), static_cast<int>(image),
                static_cast<int>(row - image * a.pixels.divisor), int64_t{quad} * 4,
                a.groups * a.n - static_cast<int>(quad) * 4);
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_GEMM_REDUCE_CUH_
