// The matrix product of core/gemm.h on any GPU from sm_80 on: convolution as implicit GEMM, fully connected, 1x1.
//   A block computes kM x 128 (or 64) outputs with warps of 64 (or 32) x 32 (warp_tile.cuh). k goes through a ring of
//   three stages of 64 bytes per row: while one is multiplied, the next two arrive. Where there are few tiles, blocks
//   share out k, too, and gemm_reduce.cuh adds their sums up.
//   kChunks: x comes by cp.async in 16-byte chunks of channels; needs channels and strides that are multiples of a
//   chunk. Otherwise element by element, for any strides: the lanes of a warp then read neighbouring pixels, whose
//   elements are neighbours in nchw, and nearly so for the few channels of a first layer.
// Budget: 48 KiB of shared memory (kM = 128); 128 registers, two blocks to an SM, or 255 and one.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_GEMM_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_GEMM_CUH_

#include "kernels/cuda/device/epilogue.cuh"
#include "kernels/cuda/portable/warp_tile.cuh"

namespace lamina::cuda {

inline constexpr int kGemmStages = 3;

// Square tiles of kM x kM by kM / 64 x 4 warps (128), or 2 x 2 (64).
template <int kM>
struct GemmShape {
  static constexpr int kN = kM;
  static constexpr int kWarpM = kM == 128 ? 64 : 32;
  static constexpr int kWarpsM = kM / kWarpM, kWarpsN = kN / kWarpN;
  static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
  struct Stage {
    unsigned char a[kM * kStepBytes], b[kN * kStepBytes];
  };
  static constexpr int kSharedBytes = kGemmStages * static_cast<int>(sizeof(Stage));
  static_assert(kWarpsM * kWarpsN * kSlabRows * kSlabPitch * 4 <= kSharedBytes, "the slabs reuse the stages");
};

// The pixel that tap (0, 0) of a row of a reads, before padding is taken off.
struct WindowOrigin {
  int64_t offset;  // of image and pixel from x, in elements; may lie before x
  int h, w;
};
LAMINA_HD WindowOrigin OriginOf(const GemmArgs& a, int row) {
  const uint32_t image = a.pixels.Quotient(static_cast<uint32_t>(row));
  const uint32_t pixel = static_cast<uint32_t>(row) - image * a.pixels.divisor;
  const uint32_t oh = a.ow.Quotient(pixel);
  const auto ow = static_cast<int>(pixel - oh * a.ow.divisor);
  const int h = static_cast<int>(oh) * a.stride_h - a.pad_top, w = ow * a.stride_w - a.pad_left;
  return {image * a.x_image + h * a.x_row + w * a.x_pixel, h, w};
}

LAMINA_HD bool IsRead(const GemmArgs& a, int row) {
  if (row >= a.rows || a.lengths == nullptr) return row < a.rows;
  const uint32_t image = a.pixels.Quotient(static_cast<uint32_t>(row));
  return row - static_cast<int>(image * a.pixels.divisor) < a.lengths[image];
}

// Brings a tile's rows of x, 64 bytes of k at a time. Thread t has the chunk t % 4 of the rows t / 4 + i * (threads/4).
template <class T, int kM, int kThreads>
class ChunkLoader {
 public:
  __device__ __forceinline__ ChunkLoader(const GemmArgs& a, int tile_row, int first_k, int thread)
      : chunk_(thread % 4), first_(thread / 4) {
    tap_.Advance(first_k + chunk_ * kElements, a.kw, a.channels);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = tile_row + first_ + i * (kThreads / 4);
      origin_[i] = OriginOf(a, row < a.rows ? row : 0);
      if (!IsRead(a, row)) origin_[i].h = INT32_MIN / 2;  // no tap of it lies inside
    }
  }
  // Starts the copies of the next 64 bytes of k.
  __device__ __forceinline__ void Load(const GemmArgs& a, const T* x, unsigned char* tile) {
    const int dh = tap_.r * a.dilation_h, dw = tap_.s * a.dilation_w;
    const int64_t shift = dh * a.x_row + dw * a.x_pixel + tap_.c;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const bool inside = tap_.r < a.kh && static_cast<unsigned>(origin_[i].h + dh) < static_cast<unsigned>(a.ih) &&
                          static_cast<unsigned>(origin_[i].w + dw) < static_cast<unsigned>(a.iw);
      CopyAsync16(tile + Swizzle64(first_ + i * (kThreads / 4), chunk_), x + (inside ? origin_[i].offset + shift : 0),
                  inside);
    }
    tap_.Advance(4 * kElements, a.kw, a.channels);
  }

 private:
  static constexpr int kElements = kChunkBytes / static_cast<int>(sizeof(T));
  static constexpr int kRows = kM * 4 / kThreads;
  int chunk_, first_;
  Tap tap_;
  WindowOrigin origin_[kRows];
};

// The same element by element: thread t has row t % kM, and every (threads / kM)th element of k.
template <class T, int kM, int kThreads>
class ElementLoader {
 public:
  __device__ __forceinline__ ElementLoader(const GemmArgs& a, int tile_row, int first_k, int thread)
      : row_(thread % kM), phase_(thread / kM) {
    tap_.Advance(first_k + phase_, a.kw, a.channels);
    const int row = tile_row + row_;
    origin_ = OriginOf(a, row < a.rows ? row : 0);
    if (!IsRead(a, row)) origin_.h = INT32_MIN / 2;
  }
  __device__ __forceinline__ void Load(const GemmArgs& a, const T* x, unsigned char* tile) {
    T values[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int dh = tap_.r * a.dilation_h, dw = tap_.s * a.dilation_w;
      const bool inside = tap_.r < a.kh && static_cast<unsigned>(origin_.h + dh) < static_cast<unsigned>(a.ih) &&
                          static_cast<unsigned>(origin_.w + dw) < static_cast<unsigned>(a.iw);
      values[i] = inside ? x[origin_.offset + dh * a.x_row + dw * a.x_pixel + tap_.c * a.x_channel] : T{};
      tap_.Advance(kPhases, a.kw, a.channels);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int byte = (phase_ + i * kPhases) * static_cast<int>(sizeof(T));
      *reinterpret_cast<T*>(tile + Swizzle64(row_, byte / kChunkBytes) + byte % kChunkBytes) = values[i];
    }
  }

 private:
  static constexpr int kPhases = kThreads / kM;
  static constexpr int kCount = kStepBytes / static_cast<int>(sizeof(T)) / kPhases;
  int row_, phase_;
  Tap tap_;
  WindowOrigin origin_;
};

// Brings a tile's rows of weights, packed and padded, so always there: thread t has the chunk t % 4 of the rows
// t / 4 + i * (threads / 4).
template <class T, int kN, int kThreads>
class WeightLoader {
 public:
  __device__ __forceinline__ WeightLoader(const GemmArgs& a, int group, int tile_column, int first_k, int thread)
      : chunk_(thread % 4),
        first_(thread / 4),
        w_(static_cast<const T*>(a.w) + (int64_t{group} * a.n_padded + tile_column + first_) * a.k_padded + first_k +
           chunk_ * (kChunkBytes / static_cast<int>(sizeof(T)))) {}
  __device__ __forceinline__ void Load(const GemmArgs& a, unsigned char* tile) {
#pragma unroll
    for (int i = 0; i < kN * 4 / kThreads; ++i) {
      CopyAsync16(tile + Swizzle64(first_ + i * (kThreads / 4), chunk_), w_ + int64_t{i} * (kThreads / 4) * a.k_padded,
                  true);
    }
    w_ += kStepBytes / sizeof(T);
  }

 private:
  int chunk_, first_;
  const T* w_;
};

// A warp tile's sums become outputs, by way of the warp's own slab of shared memory: 16 rows, of which a lane reads
// back four columns. The tile begins at `tile_row` and at `tile_column` of the group; `split` is its part of k.
template <class T, class Sums>
__device__ __forceinline__ void FinishWarpTile(const GemmArgs& a, const Sums& sums, float* slab, int tile_row,
                                               int tile_column, int group, int split, int lane) {
  const int column = tile_column + lane % 8 * 4;
  const int before = split == 0 ? 0 : split * (a.rows / static_cast<int>(a.pixels.divisor));  // images
  const float4 bias = split == 0
                          ? *reinterpret_cast<const float4*>(a.epilogue.bias + int64_t{group} * a.n_padded + column)
                          : make_float4(0, 0, 0, 0);
#pragma unroll 1
  for (int i = 0; i < Sums::kSlabs; ++i) {
    sums.StoreSlab(i, slab, lane);
    __syncwarp();
#pragma unroll 1  // one copy of the epilogue's code
    for (int j = 0; j < kSlabRows / 4; ++j) {
      const int in_slab = 4 * j + lane / 8, row = tile_row + kSlabRows * i + in_slab;
      if (row < a.rows && column < a.n) {
        const float4 sum = *reinterpret_cast<const float4*>(slab + in_slab * kSlabPitch + lane % 8 * 4);
        const auto image = static_cast<int>(a.pixels.Quotient(static_cast<uint32_t>(row)));
        FinishQuad<T>(a.epilogue, sum, bias, before + image, row - image * static_cast<int>(a.pixels.divisor),
                      int64_t{group} * a.n + column, a.n - column);
      }
    }
    __syncwarp();
  }
}

// Fused multiply-adds and split factors hold more in registers than half an SM's share.
template <Math kMath>
inline constexpr int kBlocksPerSm = kMath == Math::kF32 || kMath == Math::kTf32x3 ? 1 : 2;

template <Math kMath, int kM, bool kChunks>
__global__ void __launch_bounds__(GemmShape<kM>::kThreads, kBlocksPerSm<kMath>)
    GemmKernel(const __grid_constant__ GemmArgs a) {
  AwaitEarlierKernels();
  using Shape = GemmShape<kM>;
  using T = ElementOf<kMath>;
  using Loader =
      std::conditional_t<kChunks, ChunkLoader<T, kM, Shape::kThreads>, ElementLoader<T, kM, Shape::kThreads>>;
  struct Shared {
    typename Shape::Stage stages[kGemmStages];
  };
  Shared& shared = SharedMemory<Shared>();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const Tile tile = TileOf(blockIdx.x, static_cast<int>(DivUp(a.rows, kM)), static_cast<int>(DivUp(a.n, kM)));
  const int tile_row = tile.m * kM, tile_column = tile.n * kM;

  const auto split = static_cast<int>(blockIdx.y);
  constexpr int kStepElements = kStepBytes / static_cast<int>(sizeof(T));
  const StepRange range = StepsOf(a.k_padded / kStepElements, split, a.splits);
  const int steps = range.last - range.first, first_k = range.first * kStepElements;
  const T* x = static_cast<const T*>(a.x) + int64_t{tile.group} * a.channels * a.x_channel;
  Loader loader(a, tile_row, first_k, thread);
  WeightLoader<T, kM, Shape::kThreads> weights(a, tile.group, tile_column, first_k, thread);
  int loaded = 0;
  const auto load_next = [&] {
    if (loaded < steps) {
      typename Shape::Stage& stage = shared.stages[loaded % kGemmStages];
      loader.Load(a, x, stage.a);
      weights.Load(a, stage.b);
      ++loaded;
    }
    CopyAsyncCommit();
  };

  WarpTile<kMath, Shape::kWarpM> sums;
  sums.Clear();
  const int a_row = warp / Shape::kWarpsN * Shape::kWarpM, b_row = warp % Shape::kWarpsN * kWarpN;
#pragma unroll
  for (int i = 0; i < kGemmStages - 1; ++i) load_next();
  for (int step = 0; step < steps; ++step) {
    CopyAsyncWait<kGemmStages - 2>();
    __syncthreads();  // this step's stage has arrived for all, and all are done with the one that is loaded next
    load_next();
    const typename Shape::Stage& stage = shared.stages[step % kGemmStages];
    sums.Step(stage.a, a_row, stage.b, b_row, lane);
  }
  CopyAsyncWait<0>();
  __syncthreads();  // the stages become slabs, one a warp

  float* slab = reinterpret_cast<float*>(&shared) + warp * (kSlabRows * kSlabPitch);
  FinishWarpTile<T>(a, sums, slab, tile_row + a_row, tile_column + b_row, tile.group, split, lane);
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_GEMM_CUH_
