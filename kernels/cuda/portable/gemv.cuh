// The matrix product of core/gemm.h for a few rows, whose time is that of reading the weights. A warp computes 4
// outputs of 1 or 4 rows; its lanes share out k, 16 bytes of weights at a time, and add up at the end. Products in f32
// by fused multiply-adds, of 16-bit elements too. Neighbouring blocks have the same outputs of further rows.
//   kChunks: x comes in 16-byte chunks; needs channels and strides that are multiples of a chunk. Otherwise element by
//   element.
// Budget: no shared memory; 4 x kRows sums and up to 8 chunks of weights under way: 128 registers at most, four blocks
// to an SM. 1x1 windows and one group; any n and k.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_GEMV_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_GEMV_CUH_

#include "kernels/cuda/device/epilogue.cuh"
#include "kernels/cuda/device/lanes.cuh"
#include "kernels/cuda/portable/gemm.cuh"

namespace lamina::cuda {

inline constexpr int kGemvThreads = 128, kGemvColumns = 4 * kGemvThreads / 32;  // outputs of a block

template <class T>
__device__ __forceinline__ void LoadChunk(const T* p, float (&v)[kChunkElements<T>]) {
  WidenChunk(*reinterpret_cast<const uint4*>(p), T{}, v);
}

template <Math kMath, int kRows, bool kChunks>
__global__ void __launch_bounds__(kGemvThreads, 4) GemvKernel(const __grid_constant__ GemmArgs a) {
  AwaitEarlierKernels();
  using T = ElementOf<kMath>;
  constexpr int kElements = kChunkElements<T>, kStride = 32 * kElements;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int groups = (a.rows + kRows - 1) / kRows, block = static_cast<int>(blockIdx.x);
  const int first_row = block % groups * kRows, column = block / groups * kGemvColumns + thread / 32 * 4;
  if (column >= a.n) return;
  const T* w = static_cast<const T*>(a.w) + int64_t{column} * a.k_padded;  // padded rows: all four are there
  const T* x[kRows];
  int k_of[kRows];  // the elements of k that are read; the others are zeros
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = first_row + r;
    const WindowOrigin origin = OriginOf(a, row < a.rows ? row : 0);
    const bool inside = IsRead(a, row) && static_cast<unsigned>(origin.h) < static_cast<unsigned>(a.ih) &&
                        static_cast<unsigned>(origin.w) < static_cast<unsigned>(a.iw);
    x[r] = static_cast<const T*>(a.x) + (inside ? origin.offset : 0);
    k_of[r] = inside ? a.k : 0;
  }

  float sum[4 * kRows] = {};
#pragma unroll(kRows == 1 ? 2 : 1)
  for (int k = lane * kElements; k < a.k; k += kStride) {
    float weight[4][kElements];
#pragma unroll
    for (int j = 0; j < 4; ++j) LoadChunk(w + int64_t{j} * a.k_padded + k, weight[j]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float value[kElements] = {};
      if constexpr (kChunks) {
        if (k < k_of[r]) LoadChunk(x[r] + k, value);
      } else {
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          if (k + e < k_of[r]) value[e] = ToFloat(x[r][(k + e) * a.x_channel]);
        }
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int e = 0; e < kElements; ++e) sum[4 * r + j] = fmaf(value[e], weight[j][e], sum[4 * r + j]);
      }
    }
  }

  // Lane r finishes row first_row + r.
  constexpr int kLanesPerSum = 32 / (4 * kRows);
  const float mine = SumEachOverLanes(sum, lane);
  float out[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) out[j] = __shfl_sync(kAllLanes, mine, (4 * (lane % kRows) + j) * kLanesPerSum);
  const int row = first_row + lane;
  if (lane >= kRows || row >= a.rows) return;
  const float4 bias = Load4(a.epilogue.bias + column);
  const auto image = static_cast<int>(a.pixels.Quotient(static_cast<uint32_t>(row)));
  FinishQuad<T>(a.epilogue, make_float4(out[0], out[1], out[2], out[3]), bias, image,
                row - image * static_cast<int>(a.pixels.divisor), column, a.n - column);
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_GEMV_CUH_
