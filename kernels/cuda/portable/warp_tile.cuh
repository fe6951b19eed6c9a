// One warp's part of a tile product: 64, 32 or 16 rows by 32 or 64 columns of sums in registers, advanced by kStepBytes
// of k from swizzled tiles in shared memory (rows of 64 bytes, k along the row, for a and for b).
//   MmaTile    tensor cores: mma.m16n8, operands by ldmatrix. 16-bit elements and TF32 differ only in the instruction,
//              for a 16-byte chunk of 4 f32 has the place of 8 16-bit elements in every fragment.
//   FmaTile    f32 by fused multiply-adds: lanes 8 x 4, each with every 8th row and every 4th column, so that the lanes
//              of a load read neighbouring rows, which lie on different banks.
// In both, a lane's rows are 8 * i + lane / 4, and the four lanes of a quad share them.
// Budget (64 x 32): 64 sums, operands 24 (mma), 48 (3 x TF32), 20 (fma).
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_WARP_TILE_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_WARP_TILE_CUH_

#include <type_traits>

#include "kernels/cuda/core/fragment.h"
#include "kernels/cuda/core/gemm.h"
#include "kernels/cuda/core/swizzle.h"
#include "kernels/cuda/device/ptx.cuh"

namespace lamina::cuda {

inline constexpr int kWarpN = 32;
inline constexpr int kSlabRows = 16;
inline constexpr int kSlabPitch = kWarpN + 8;  // floats; 8 more put the rows of one store on different banks

template <Math kMath, int kWarpM, int kN>
class MmaTile {
 public:
  static constexpr int kSlabs = kWarpM / kSlabRows;

  // The lane's sum in its row 8 * r + lane / 4 and column Column(lane, c).
  static constexpr int kRows = kWarpM / 8, kColumns = kN / 4;
  __device__ __forceinline__ float& At(int r, int c) { return sum_[r / 2][c / 2][r % 2 * 2 + c % 2]; }
  __device__ __forceinline__ static int Column(int lane, int c) { return c / 2 * 8 + lane % 4 * 2 + c % 2; }

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int i = 0; i < kSlabs; ++i) {
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
        for (float& v : sum_[i][j]) v = 0;
      }
    }
  }

  // a and b point at the tiles; this warp's rows of them begin at a_row and b_row.
  __device__ __forceinline__ void Step(const unsigned char* a, int a_row, const unsigned char* b, int b_row, int lane) {
#pragma unroll
    for (int half = 0; half < kStepBytes / 32; ++half) {
      // ldmatrix takes its four matrices' rows from lanes 0-7, 8-15, 16-23, 24-31: of a, rows 0-7 and 8-15 of the
      // first chunk, then of the second; of b, the two chunks of columns 0-7, then of 8-15.
      uint32_t a_words[kSlabs][4], b_words[kN / 8][2];
#pragma unroll
      for (int i = 0; i < kSlabs; ++i) {
        LoadMatrix4(a_words[i], a + Swizzle64(a_row + 16 * i + lane % 16, 2 * half + lane / 16));
      }
#pragma unroll
      for (int j = 0; j < kN / 16; ++j) {
        uint32_t words[4];
        LoadMatrix4(words, b + Swizzle64(b_row + 16 * j + lane / 16 * 8 + lane % 8, 2 * half + lane / 8 % 2));
        b_words[2 * j][0] = words[0];
        b_words[2 * j][1] = words[1];
        b_words[2 * j + 1][0] = words[2];
        b_words[2 * j + 1][1] = words[3];
      }
      Multiply(a_words, b_words);
    }
  }

  // Rows 16 * index .. 16 * index + 15 of the sums.
  __device__ __forceinline__ void StoreSlab(int index, float* slab, int lane) const {
#pragma unroll
    for (int i = 0; i < kSlabs; ++i) {
      if (i != index) continue;
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
        for (int reg = 0; reg < 4; reg += 2) {
          const Position p = AccumulatorPosition(lane, reg);
          *reinterpret_cast<float2*>(slab + p.row * kSlabPitch + 8 * j + p.column) =
              make_float2(sum_[i][j][reg], sum_[i][j][reg + 1]);
        }
      }
    }
  }

 private:
  using Words = uint32_t;
  __device__ __forceinline__ void Multiply(const Words (&a)[kSlabs][4], const Words (&b)[kN / 8][2]) {
    if constexpr (kMath == Math::kTf32 || kMath == Math::kTf32x3) {
      Words a_high[kSlabs][4], b_high[kN / 8][2];
      Words a_low[kSlabs][4], b_low[kN / 8][2];
#pragma unroll
      for (int i = 0; i < kSlabs; ++i) Split(a[i], a_high[i], a_low[i]);
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) Split(b[j], b_high[j], b_low[j]);
      if constexpr (kMath == Math::kTf32x3) {  // the small products first, where they still count
        Products(a_low, b_high);
        Products(a_high, b_low);
      }
      Products(a_high, b_high);
    } else {
      Products(a, b);
    }
  }
  // x = high + low, each a TF32 number, up to 2^-23 |x|.
  template <int kCount>
  __device__ __forceinline__ static void Split(const Words (&x)[kCount], Words (&high)[kCount], Words (&low)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      high[i] = RoundTf32(__uint_as_float(x[i]));
      if constexpr (kMath == Math::kTf32x3) {
        const float rest = __uint_as_float(x[i]) - __uint_as_float(high[i]);
        low[i] = (high[i] & 0x7f800000) == 0x7f800000 ? 0 : RoundTf32(rest);  // infinity has no rest, not inf - inf
      }
    }
  }
  __device__ __forceinline__ void Products(const Words (&a)[kSlabs][4], const Words (&b)[kN / 8][2]) {
#pragma unroll
    for (int i = 0; i < kSlabs; ++i) {
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
        if constexpr (kMath == Math::kBf16) {
          MmaBf16(sum_[i][j], a[i], b[j]);
        } else if constexpr (kMath == Math::kF16) {
          MmaF16(sum_[i][j], a[i], b[j]);
        } else {
          MmaTf32(sum_[i][j], a[i], b[j]);
        }
      }
    }
  }

  float sum_[kSlabs][kN / 8][4];
};

template <int kWarpM, int kN>
class FmaTile {
 public:
  static constexpr int kSlabs = kWarpM / kSlabRows;

  static constexpr int kRows = kWarpM / 8, kColumns = kN / 4;
  __device__ __forceinline__ float& At(int r, int c) { return sum_[r][c]; }
  __device__ __forceinline__ static int Column(int lane, int c) { return 4 * c + lane % 4; }

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (auto& row : sum_) {
#pragma unroll
      for (float& v : row) v = 0;
    }
  }

  __device__ __forceinline__ void Step(const unsigned char* a, int a_row, const unsigned char* b, int b_row, int lane) {
#pragma unroll
    for (int chunk = 0; chunk < kStepBytes / kChunkBytes; ++chunk) {
#pragma unroll
      for (int half = 0; half < kRows / kAtOnce; ++half) {
        float4 x[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          x[i] = *reinterpret_cast<const float4*>(a + Swizzle64(a_row + 8 * (kAtOnce * half + i) + lane / 4, chunk));
        }
#pragma unroll
        for (int j = 0; j < kN / 4; ++j) {
          const float4 w = *reinterpret_cast<const float4*>(b + Swizzle64(b_row + 4 * j + lane % 4, chunk));
#pragma unroll
          for (int i = 0; i < kAtOnce; ++i) {
            float& sum = sum_[kAtOnce * half + i][j];
            sum = fmaf(x[i].x, w.x, sum);
            sum = fmaf(x[i].y, w.y, sum);
            sum = fmaf(x[i].z, w.z, sum);
            sum = fmaf(x[i].w, w.w, sum);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void StoreSlab(int index, float* slab, int lane) const {
#pragma unroll
    for (int i = 0; i < kWarpM / 8; ++i) {
      if (i / 2 != index) continue;
#pragma unroll
      for (int j = 0; j < kN / 4; ++j) slab[(i % 2 * 8 + lane / 4) * kSlabPitch + 4 * j + lane % 4] = sum_[i][j];
    }
  }

 private:
  static constexpr int kAtOnce = kRows < 4 ? kRows : 4;  // rows whose factors are in registers
  float sum_[kWarpM / 8][kN / 4];
};

template <Math kMath, int kWarpM, int kN = kWarpN>
using WarpTile = std::conditional_t<kMath == Math::kF32, FmaTile<kWarpM, kN>, MmaTile<kMath, kWarpM, kN>>;

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_WARP_TILE_CUH_
