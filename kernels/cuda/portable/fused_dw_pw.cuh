// Depthwise, then pointwise convolution without an intermediate in memory, on any GPU from sm_80 on:
//   y[row, n] = act_p(bias[n] + sum_c d[row, c] * w[n, c]),  d the depthwise step's output, in the dtype of x
// A block first computes d of its 64 pixels in shared memory by fused multiply-adds, every channel once; the taps of
// neighbouring pixels meet in L1. Then it multiplies them by all the weights, 128 outputs at a time, which come through
// a ring of three stages as in the matrix product (gemm.cuh); the first ones are on their way during the first part.
// Budget: 128 registers, two blocks to an SM (f32 and 3 x TF32: 168 and one); 24 KiB of shared memory and 64 bytes *
// channels * the size of an element, which limits the channels: 512 f32 or 1024 16-bit ones take 152 KiB.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_FUSED_DW_PW_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_FUSED_DW_PW_CUH_

#include "kernels/cuda/core/fused_dw_pw.h"
#include "kernels/cuda/portable/gemm.cuh"

namespace lamina::cuda {

// One thread's part of the depthwise step.
template <class T>
class DepthwiseProducer {
 public:
  static constexpr int kElements = kChunkElements<T>;

  __device__ __forceinline__ DepthwiseProducer(const FusedDwPwArgs& a, int tile_row, int thread)
      : chunk_(thread % 4), first_(thread % kFusedStepThreads / 4) {
    const DepthwiseArgs& d = a.depthwise;
#pragma unroll
    for (int i = 0; i < kFusedPixels; ++i) {
      const int row = tile_row + first_ + i * kFusedPixelPitch;
      const auto clamped = static_cast<uint32_t>(row < a.project.rows ? row : 0);
      const uint32_t image = d.pixels.Quotient(clamped), pixel = clamped - image * d.pixels.divisor;
      const uint32_t oh = d.ow.Quotient(pixel);
      const int h = static_cast<int>(oh) * d.stride_h - d.pad_top;
      const int w = static_cast<int>(pixel - oh * d.ow.divisor) * d.stride_w - d.pad_left;
      origin_[i] = {image * d.x_image + h * d.x_row + w * d.x_pixel, row < a.project.rows ? h : INT32_MIN / 2, w};
    }
  }

  // The channels of one step, into its tile. Those beyond the last are zeros.
  __device__ __forceinline__ void Produce(const FusedDwPwArgs& a, int step, unsigned char* tile) const {
    const DepthwiseArgs& d = a.depthwise;
    const int channel = (4 * step + chunk_) * kElements, left = d.channels - channel;
    float sum[kFusedPixels * kElements] = {};
    if (left > 0) {
#pragma unroll
      for (int e = 0; e < kElements; e += 4) {
        const float4 bias = Load4(d.epilogue.bias + channel + e);
#pragma unroll
        for (int i = 0; i < kFusedPixels; ++i) {
          sum[i * kElements + e] = bias.x, sum[i * kElements + e + 1] = bias.y;
          sum[i * kElements + e + 2] = bias.z, sum[i * kElements + e + 3] = bias.w;
        }
      }
      const float* w = d.w + channel;
#pragma unroll 1
      for (int r = 0; r < d.kh; ++r) {
#pragma unroll 1
        for (int s = 0; s < d.kw; ++s) {
          AddTap(a, r * d.dilation_h, s * d.dilation_w, w, channel, sum);
          w += d.channels_padded;
        }
      }
      ActivateAll(d.epilogue.activation, sum);
    }
#pragma unroll
    for (int i = 0; i < kFusedPixels; ++i) {
      if (left < kElements) {  // the weights there are zeros, but x, which is the last channel's, need not be finite
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          if (e >= left) sum[i * kElements + e] = 0;
        }
      }
      StoreChunk(sum + i * kElements, reinterpret_cast<T*>(tile + Swizzle64(first_ + i * kFusedPixelPitch, chunk_)));
    }
  }

 private:
  __device__ __forceinline__ void AddTap(const FusedDwPwArgs& a, int dh, int dw, const float* weights, int channel,
                                         float (&sum)[kFusedPixels * kElements]) const {
    const DepthwiseArgs& d = a.depthwise;
    const T* x = static_cast<const T*>(d.x) + dh * d.x_row + dw * d.x_pixel;
    float w[kElements];
#pragma unroll
    for (int e = 0; e < kElements; e += 4) {
      const float4 four = Load4(weights + e);
      w[e] = four.x, w[e + 1] = four.y, w[e + 2] = four.z, w[e + 3] = four.w;
    }
    const auto inside = [&](int i) {
      return static_cast<unsigned>(origin_[i].h + dh) < static_cast<unsigned>(d.ih) &&
             static_cast<unsigned>(origin_[i].w + dw) < static_cast<unsigned>(d.iw);
    };
    const auto add = [&](int i, const float(&in)[kElements]) {
#pragma unroll
      for (int e = 0; e < kElements; ++e) sum[i * kElements + e] = fmaf(in[e], w[e], sum[i * kElements + e]);
    };
    if (a.chunks) {
      uint4 bits[kFusedPixels];  // all are on their way before the first is used
#pragma unroll
      for (int i = 0; i < kFusedPixels; ++i) {
        bits[i] = inside(i) ? *reinterpret_cast<const uint4*>(x + origin_[i].offset + channel) : make_uint4(0, 0, 0, 0);
      }
#pragma unroll
      for (int i = 0; i < kFusedPixels; ++i) {
        float in[kElements];
        WidenChunk(bits[i], T{}, in);
        add(i, in);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kFusedPixels; ++i) {
        if (!inside(i)) continue;
        float in[kElements];
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          const auto c = static_cast<uint32_t>(min(channel + e, d.channels - 1));
          in[e] = ToFloat(x[origin_[i].offset + d.multiplier.Quotient(c) * d.x_channel]);
        }
        add(i, in);
      }
    }
  }

  int chunk_, first_;
  WindowOrigin origin_[kFusedPixels];
};

template <Math kMath>
__global__ void __launch_bounds__(kFusedThreads, kBlocksPerSm<kMath>)
    FusedDwPw(const __grid_constant__ FusedDwPwArgs a) {
  AwaitEarlierKernels();
  using T = ElementOf<kMath>;
  constexpr int kWarpM = 32, kWarpsN = kFusedN / kWarpN, kStageBytes = kFusedN * kStepBytes;
  constexpr int kTileBytes = kFusedRows * kStepBytes;
  static_assert(kFusedThreads == 32 * kWarpsN * (kFusedRows / kWarpM), "eight warps of 32 x 32");
  static_assert(kFusedThreads / 32 * kSlabRows * kSlabPitch * 4 <= kFusedRingBytes, "the slabs reuse the ring");
  unsigned char* const ring = &SharedMemory<unsigned char>();
  unsigned char* const between = ring + kFusedRingBytes;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int tile_row = static_cast<int>(blockIdx.x) * kFusedRows;
  const int a_row = warp / kWarpsN * kWarpM, b_row = warp % kWarpsN * kWarpN;
  const int steps = a.project.k_padded * static_cast<int>(sizeof(T)) / kStepBytes;

  for (int column = 0; column < a.project.n; column += kFusedN) {
    WeightLoader<T, kFusedN, kFusedThreads> weights(a.project, 0, column, 0, thread);
    int loaded = 0;
    const auto load_next = [&] {
      if (loaded < steps) weights.Load(a.project, ring + loaded++ % kFusedStages * kStageBytes);
      CopyAsyncCommit();
    };
#pragma unroll
    for (int i = 0; i < kFusedStages - 1; ++i) load_next();
    if (column == 0) {
      const DepthwiseProducer<T> producer(a, tile_row, thread);
#pragma unroll 1
      for (int step = thread / kFusedStepThreads; step < steps; step += kFusedThreads / kFusedStepThreads) {
        producer.Produce(a, step, between + step * kTileBytes);
      }
    }
    WarpTile<kMath, kWarpM> sums;
    sums.Clear();
    const bool any = column + b_row < a.project.n;
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      CopyAsyncWait<kFusedStages - 2>();
      __syncthreads();  // this step's weights have arrived for all, and all are done with those that are loaded next
      load_next();
      if (any) sums.Step(between + step * kTileBytes, a_row, ring + step % kFusedStages * kStageBytes, b_row, lane);
    }
    CopyAsyncWait<0>();
    __syncthreads();  // the ring becomes slabs, one a warp
    float* slab = reinterpret_cast<float*>(ring) + warp * (kSlabRows * kSlabPitch);
    FinishWarpTile<T>(a.project, sums, slab, tile_row + a_row, column + b_row, 0, 0, lane);
    __syncthreads();  // and a ring again
  }
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_FUSED_DW_PW_CUH_
