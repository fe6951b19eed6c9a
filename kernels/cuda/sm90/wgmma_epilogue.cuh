// From the sums of wgmma to rows of y. A thread has pairs of columns of two of its warp's 16 rows (core/fragment.h);
// through a slab of shared memory, 32 columns at a time, it gets four columns of four rows, which it ends and stores
// whole.
// Budget: 2.5 KiB of slab for each warp.
#ifndef LAMINA_KERNELS_CUDA_SM90_WGMMA_EPILOGUE_CUH_
#define LAMINA_KERNELS_CUDA_SM90_WGMMA_EPILOGUE_CUH_

#include "kernels/cuda/core/fragment.h"
#include "kernels/cuda/core/schedule.h"
#include "kernels/cuda/device/epilogue.cuh"

namespace lamina::cuda {

// Registers `first` on, a slab's columns of them.
template <int kSums>
__device__ __forceinline__ void StoreStrip(const float (&sums)[kSums], int first, float* slab, int lane) {
#pragma unroll
  for (int reg = 0; reg < WgmmaSlab::kColumns / 2; reg += 2) {
    const Position p = WgmmaPosition(lane, reg);
    *reinterpret_cast<float2*>(slab + p.row * WgmmaSlab::kPitch + p.column) =
        make_float2(sums[first + reg], sums[first + reg + 1]);
  }
}

// A warp's 16 rows: calls finish(slab, row, column) with the first of four rows and of four columns, row 0 and column 0
// being the warp's first, and where in the slab their sums begin. Columns from `columns` on are left out.
template <int kSums, class F>
__device__ __forceinline__ void ForEachQuadOfRows(const float (&sums)[kSums], WgmmaSlab& slab, int lane,
                                                  const F& finish, int columns = 2 * kSums) {
  constexpr int kStrips = 2 * kSums / WgmmaSlab::kColumns;
#pragma unroll 1  // one copy of the epilogue's code
  for (int strip = 0; strip < kStrips && strip * WgmmaSlab::kColumns < columns; ++strip) {
#pragma unroll
    for (int i = 0; i < kStrips; ++i) {
      if (i == strip) StoreStrip(sums, i * WgmmaSlab::kColumns / 2, slab.sums, lane);
    }
    __syncwarp();
    const int row = lane / 8 * 4, column = lane % 8 * 4;
    finish(slab.sums + row * WgmmaSlab::kPitch + column, row, strip * WgmmaSlab::kColumns + column);
    __syncwarp();
  }
}

struct ImagePixel {
  int image, pixel;
};

// Four columns, those below `columns_left` exist, of four rows, those below `rows_left`. e.quads says that the rows are
// evenly spaced, too: the first then begins at element `y` of y and `residual` of the residual. Else pixel_of(i) says
// where row i lies.
template <class T, class PixelOf>
__device__ __forceinline__ void FinishQuadOfRows(const Epilogue& e, const float* slab, int64_t y, int64_t residual,
                                                 int rows_left, int column, int columns_left, const PixelOf& pixel_of) {
  if (rows_left <= 0 || columns_left <= 0) return;
  const float4 bias = *reinterpret_cast<const float4*>(e.bias + column);
  if (e.quads && columns_left >= 4) {
    float v[16];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 sum = *reinterpret_cast<const float4*>(slab + i * WgmmaSlab::kPitch);
      v[4 * i] = sum.x + bias.x, v[4 * i + 1] = sum.y + bias.y;
      v[4 * i + 2] = sum.z + bias.z, v[4 * i + 3] = sum.w + bias.w;
    }
    FinishPixels<T, 4>(e, v, y + column, residual + column, rows_left);
    return;
  }
#pragma unroll 1
  for (int i = 0; i < 4 && i < rows_left; ++i) {
    const ImagePixel at = pixel_of(i);
    FinishQuad<T>(e, *reinterpret_cast<const float4*>(slab + i * WgmmaSlab::kPitch), bias, at.image, at.pixel, column,
                  columns_left);
  }
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_WGMMA_EPILOGUE_CUH_
