// Tiles of attention: how rows of q, k and v come to shared memory, and one warp's rows of o in registers.
// A tile of rows lies in slabs of 64 bytes of every row, swizzled, as a step of a WarpTile wants it.
//   MmaOutput  tensor cores: the weights, 16-bit, go from the accumulators' registers straight into the fragments of a
//   FmaOutput  f32: a quad shares its rows' weights by shuffles; each of its lanes has every fourth chunk of channels
// Budget: kWarpM * kD / 32 registers.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_ATTENTION_TILE_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_ATTENTION_TILE_CUH_

#include "kernels/cuda/device/lanes.cuh"
#include "kernels/cuda/device/vec.cuh"
#include "kernels/cuda/portable/warp_tile.cuh"

namespace lamina::cuda {

// kRows rows of kD elements of T.
template <class T, int kRows, int kD>
struct AttentionTile {
  static constexpr int kSlabBytes = kRows * kStepBytes, kChunks = kD * static_cast<int>(sizeof(T)) / kChunkBytes;
  unsigned char bytes[kRows * kD * sizeof(T)];

  __device__ __forceinline__ unsigned char* Slab(int i) { return bytes + i * kSlabBytes; }

  // Starts to bring rows 0 .. rows - 1, `dim` elements of each, from row(i); zeros elsewhere. In chunks, where these
  // exist, the copies are asynchronous; each thread commits and waits for its own.
  template <int kThreads, class RowAt>
  __device__ __forceinline__ void Load(int rows, int dim, bool chunks, int thread, const RowAt& row_at) {
    constexpr int kElements = kChunkBytes / static_cast<int>(sizeof(T));
    static_assert(kRows * kChunks % kThreads == 0);
#pragma unroll 4
    for (int i = thread; i < kRows * kChunks; i += kThreads) {
      const int row = i / kChunks, chunk = i % kChunks, left = row < rows ? dim - chunk * kElements : 0;
      unsigned char* to = Slab(chunk / 4) + Swizzle64(row, chunk % 4);
      const T* from = row_at(row < rows ? row : 0) + chunk * kElements;
      if (chunks) {
        CopyAsync16(to, from, left > 0);
      } else {
#pragma unroll
        for (int e = 0; e < kElements; ++e) reinterpret_cast<T*>(to)[e] = e < left ? from[e] : T{};
      }
    }
  }
};

// A lane has rows 8 * r + lane / 4 and, of each, kPieces pieces of kPiece channels, the first at Channel(lane, piece).
template <Math kMath, int kWarpM, int kD>
class MmaOutput {
 public:
  static constexpr int kRows = kWarpM / 8, kPieces = kD / 8, kPiece = 2;
  __device__ __forceinline__ static int Channel(int lane, int piece) { return 8 * piece + lane % 4 * 2; }
  __device__ __forceinline__ float& At(int r, int piece, int e) { return sum_[r / 2][piece][r % 2 * 2 + e]; }

  // += weights * v; the warp's keys begin at row `key` of the tile.
  template <class Weights, class Tile>
  __device__ __forceinline__ void Add(Weights& weights, Tile& v, int key, int lane) {
    using T = ElementOf<kMath>;
#pragma unroll
    for (int step = 0; step < Weights::kColumns / 4; ++step) {  // 16 keys
      // Columns 4 * step .. + 3 of a lane are two neighbours in each half of the step: word lane % 4 of the fragment.
      uint32_t p[kWarpM / 16][4];
#pragma unroll
      for (int i = 0; i < kWarpM / 16; ++i) {
#pragma unroll
        for (int reg = 0; reg < 4; ++reg) {
          const int r = 2 * i + reg % 2, c = 4 * step + reg / 2 * 2;
          p[i][reg] = PackPair(weights.At(r, c), weights.At(r, c + 1), T{});
        }
      }
#pragma unroll
      for (int n = 0; n < kD / 16; ++n) {
        // Matrices: keys 0-7 and 8-15 of the first 8 channels, then of the second.
        uint32_t words[4];
        LoadMatrix4Transposed(words, v.Slab(n / 2) + Swizzle64(key + 16 * step + lane % 16, n % 2 * 2 + lane / 16));
#pragma unroll
        for (int i = 0; i < kWarpM / 16; ++i) {
          Multiply(sum_[i][2 * n], p[i], {words[0], words[1]});
          Multiply(sum_[i][2 * n + 1], p[i], {words[2], words[3]});
        }
      }
    }
  }

 private:
  __device__ __forceinline__ static void Multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    if constexpr (kMath == Math::kBf16) {
      MmaBf16(d, a, b);
    } else {
      MmaF16(d, a, b);
    }
  }
  float sum_[kWarpM / 16][kD / 8][4] = {};
};

template <int kWarpM, int kD>
class FmaOutput {
 public:
  static constexpr int kRows = kWarpM / 8, kPieces = kD / 16, kPiece = 4;
  __device__ __forceinline__ static int Channel(int lane, int piece) { return 16 * piece + lane % 4 * 4; }
  __device__ __forceinline__ float& At(int r, int piece, int e) { return sum_[r][piece][e]; }

  template <class Weights, class Tile>
  __device__ __forceinline__ void Add(Weights& weights, Tile& v, int key, int lane) {
#pragma unroll
    for (int c = 0; c < Weights::kColumns; ++c) {
#pragma unroll 1
      for (int of_quad = 0; of_quad < 4; ++of_quad) {  // key 4 * c + of_quad, whose weights that lane of the quad has
        float p[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) p[r] = __shfl_sync(kAllLanes, weights.At(r, c), lane / 4 * 4 + of_quad);
#pragma unroll
        for (int n = 0; n < kPieces; ++n) {
          const float4 x = *reinterpret_cast<const float4*>(v.Slab(n) + Swizzle64(key + 4 * c + of_quad, lane % 4));
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            float(&sum)[4] = sum_[r][n];
            sum[0] = fmaf(p[r], x.x, sum[0]);
            sum[1] = fmaf(p[r], x.y, sum[1]);
            sum[2] = fmaf(p[r], x.z, sum[2]);
            sum[3] = fmaf(p[r], x.w, sum[3]);
          }
        }
      }
    }
  }

 private:
  float sum_[kRows][kPieces][4] = {};
};

template <Math kMath, int kWarpM, int kD>
using WarpOutput = std::conditional_t<kMath == Math::kF32, FmaOutput<kWarpM, kD>, MmaOutput<kMath, kWarpM, kD>>;

// A piece of a row of o: channels from `channel` on, of which those below `channels` exist.
template <int kPiece, class T>
__device__ __forceinline__ void StorePiece(const float (&x)[kPiece], T* row, int channel, int channels, bool whole) {
  if (whole && channel + kPiece <= channels) {
    if constexpr (kPiece == 4) {
      Store4(make_float4(x[0], x[1], x[2], x[3]), row + channel);
    } else if constexpr (sizeof(T) == 4) {
      *reinterpret_cast<float2*>(row + channel) = make_float2(x[0], x[1]);
    } else {
      *reinterpret_cast<uint32_t*>(row + channel) = PackPair(x[0], x[1], T{});
    }
  } else {
#pragma unroll
    for (int e = 0; e < kPiece; ++e) {
      if (channel + e < channels) FromFloat(x[e], row[channel + e]);
    }
  }
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_ATTENTION_TILE_CUH_
