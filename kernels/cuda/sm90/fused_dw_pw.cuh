// Depthwise, then pointwise convolution without an intermediate in memory, on sm_90a:
//   y[row, n] = act_p(bias[n] + sum_c d[row, c] * w[n, c]),  d the depthwise step's output, in the dtype of x
// The matrix product of sm90/gemm.cuh with a left factor that is computed where the other one is loaded. A block stays
// on its multiprocessor and takes tiles of pixels and outputs in turn (core/fused_schedule.h), channels in steps of 128
// bytes. Four warps compute d. TMA brings the patch of x that a tile sees, whose zeros outside the image are the
// padding; a lane has one word of channels and its warp a strip of pixels, which it sums in f32, ends, rounds, and
// stores swizzled as wgmma reads it. Two warpgroups multiply by the weights, which TMA brings to the same stage, and
// end the layer (wgmma_epilogue.cuh). One of the depthwise threads starts all loads: patches some steps ahead, weights
// as soon as their stage is empty.
//   The depthwise step takes longer than the products: 3 x 3 with stride 1 about 15 instructions for an output, 1000
//   clocks for a step of 128 pixels where each issues, against 512 or 1024 of products. So multiplying waits for each
//   step's products before it lets go of their stage. Beyond 256 outputs d is computed again for each tile of them.
// Budget: shared memory 72 to 96 KiB of stages, 20 KiB of slabs, patches in the rest; registers 136 (depthwise) and 184
// (128 sums at 256 columns) per thread.
// Sizes: 3 x 3 and 5 x 5 windows, strides 1 and 2, one output for an input channel; what TMA asks of x (tensor_map.h).
#ifndef LAMINA_KERNELS_CUDA_SM90_FUSED_DW_PW_CUH_
#define LAMINA_KERNELS_CUDA_SM90_FUSED_DW_PW_CUH_

#include "kernels/cuda/core/swizzle.h"
#include "kernels/cuda/device/ring.cuh"
#include "kernels/cuda/sm90/wgmma_epilogue.cuh"
#include "kernels/cuda/sm90_fused_dw_pw.h"

namespace lamina::cuda {

template <Math kMath, class ShapeOfWindow>
class FusedWgmma {
 public:
  using Shape = ShapeOfWindow;
  using Shared = typename Shape::Shared;

  __device__ __forceinline__ FusedWgmma(const FusedWgmmaArgs& args, Shared& shared)
      : args_(args),
        shared_(shared),
        stages_(shared.stage_barriers),
        patches_(shared.patch_barriers),
        items_(args.tiling.tiles * static_cast<int>(args.columns.divisor)),
        steps_(static_cast<int>(DivUp(args.steps.depthwise.channels, kStepElements))) {}

  __device__ __forceinline__ void Run() {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) {
      stages_.Init(Shape::kConsumers, Shape::kWarps);
      patches_.Init(Shape::kWarps);
    }
    __syncthreads();
    AwaitEarlierKernels();
    if (thread < 32 * Shape::kWarps) {
      DecreaseRegisters<Shape::kProducerRegisters>();
      ProduceAll(thread / 32, thread % 32);
    } else {
      IncreaseRegisters<Shape::kConsumerRegisters>();
      MultiplyAll(thread / kWarpgroup - 1, thread % kWarpgroup);
    }
  }

 private:
  using T = ElementOf<kMath>;
  using StageRing = Ring<Shape::kStages>;
  using PatchRing = Ring<Shape::kPatches>;
  static constexpr int kStepElements = Shape::kStepBytes / static_cast<int>(sizeof(T));
  static constexpr int kLaneChannels = 4 / static_cast<int>(sizeof(T));
  using Strip = float[Shape::kUnitRows][kUnitColumns * kLaneChannels];  // a lane's sums of its warp's strip

  // A tile of pixels and its first output.
  struct Item {
    StripPlace begin;
    int column;
  };
  __device__ __forceinline__ Item ItemAt(int i) const {
    const uint32_t tile = args_.columns.Quotient(static_cast<uint32_t>(i));
    return {TileBegin<Shape>(args_.tiling, tile), (i - static_cast<int>(tile * args_.columns.divisor)) * Shape::kN};
  }
  template <class F>
  __device__ __forceinline__ void ForEachItem(const F& f) {
    for (int i = static_cast<int>(blockIdx.x); i < items_; i += static_cast<int>(gridDim.x)) f(ItemAt(i));
  }

  // The patches of all steps of all items, in order.
  struct NextPatch {
    int item, step;
    typename PatchRing::Position at;
  };
  __device__ __forceinline__ void LoadPatch(NextPatch& next) {
    if (next.item >= items_) return;
    const DepthwiseArgs& d = args_.steps.depthwise;
    const StripPlace begin = ItemAt(next.item).begin;
    uint64_t* full = patches_.Fill(next.at, PatchOf<Shape>(args_.tiling).pixels() * Shape::kStepBytes);
    LoadTile(shared_.patches[next.at.stage], args_.x, full, next.step * kStepElements,
             begin.column * Shape::kStride - d.pad_left, begin.row * Shape::kStride - d.pad_top, begin.image);
    next.at.Advance();
    if (++next.step == steps_) {
      next.step = 0;
      next.item += static_cast<int>(gridDim.x);
    }
  }

  __device__ __forceinline__ void ProduceAll(int warp, int lane) {
    const PatchSize patch = PatchOf<Shape>(args_.tiling);
    const StripPlace place = PlaceOf<Shape>(args_.tiling, warp);
    const int corner =
        ((place.image * patch.rows + place.row * Shape::kStride) * patch.columns + place.column * Shape::kStride) *
            Shape::kStepBytes +
        lane * 4;
    const bool loads = warp == 0 && lane == 0;
    NextPatch next{static_cast<int>(blockIdx.x), 0, {}};
    if (loads) {
      PrefetchMap(args_.x);
      PrefetchMap(args_.w);
      for (int i = 0; i < Shape::kPatches - 1; ++i) LoadPatch(next);
    }
    typename StageRing::Position at;
    typename PatchRing::Position from;
    ForEachItem([&](const Item& item) {
#pragma unroll 1
      for (int step = 0; step < steps_; ++step, at.Advance(), from.Advance()) {
        typename Shape::Stage& stage = shared_.stages[at.stage];
        if (loads) {
          LoadPatch(next);  // into what all warps have left in the last step
          LoadTile(stage.b, args_.w, stages_.Fill(at, sizeof(stage.b)), step * kStepElements, item.column);
        }
        Strip sums;
        Sum(sums, step * kStepElements + lane * kLaneChannels, from, corner, patch.columns * Shape::kStepBytes, lane);
#pragma unroll
        for (auto& row : sums) ActivateAll(args_.steps.depthwise.epilogue.activation, row);
        stages_.AwaitEmpty(at);
        Store(sums, stage.a + warp * Shape::kUnitRows * kUnitColumns * Shape::kStepBytes, lane);
        FenceSharedStores();
        __syncwarp();
        if (lane == 0) stages_.HaveStored(at);
      }
    });
  }

  // sums[row][pixel][channel] of a strip, for the lane's channels from `channel` on. `corner`: of the strip's inputs in
  // the patch, `pitch`: from one row of them to the next, in bytes.
  __device__ __forceinline__ void Sum(Strip& sums, int channel, const typename PatchRing::Position& from, int corner,
                                      int pitch, int lane) {
    const DepthwiseArgs& d = args_.steps.depthwise;
    constexpr int kK = Shape::kK;
    const bool exists = channel < d.channels_padded;
    float w[kK * kK][kLaneChannels], bias[kLaneChannels];
#pragma unroll
    for (int tap = 0; tap < kK * kK; ++tap) LoadFloats(d.w + tap * d.channels_padded + channel, exists, w[tap]);
    LoadFloats(d.epilogue.bias + channel, exists, bias);
#pragma unroll
    for (auto& row : sums) {
#pragma unroll
      for (int i = 0; i < kUnitColumns * kLaneChannels; ++i) row[i] = bias[i % kLaneChannels];
    }

    patches_.AwaitFull(from);
    const unsigned char* row = shared_.patches[from.stage] + corner;
#pragma unroll
    for (int h = 0; h < Shape::kInputRows; ++h, row += pitch) {
      float in[Shape::kInputs][kLaneChannels];
#pragma unroll
      for (int i = 0; i < Shape::kInputs; ++i) {
        WidenWord(*reinterpret_cast<const uint32_t*>(row + i * Shape::kStepBytes), T{}, in[i]);
      }
#pragma unroll
      for (int r = 0; r < Shape::kUnitRows; ++r) {
        const int tap_row = h - r * Shape::kStride;
        if (tap_row < 0 || tap_row >= kK) continue;
#pragma unroll
        for (int s = 0; s < kK; ++s) {
#pragma unroll
          for (int i = 0; i < kUnitColumns * kLaneChannels; ++i) {
            const int pixel = i / kLaneChannels * Shape::kStride + s, c = i % kLaneChannels;
            sums[r][i] = fmaf(in[pixel][c], w[tap_row * kK + s][c], sums[r][i]);
          }
        }
      }
    }
    __syncwarp();
    if (lane == 0) patches_.Release(from);
  }

  // Channels beyond the last have weights and inputs of zero: what follows meets zeros among the product's weights.
  __device__ __forceinline__ static void LoadFloats(const float* from, bool exists, float (&to)[kLaneChannels]) {
    if constexpr (kLaneChannels == 2) {
      const float2 two = exists ? *reinterpret_cast<const float2*>(from) : make_float2(0, 0);
      to[0] = two.x, to[1] = two.y;
    } else {
      to[0] = exists ? *from : 0;
    }
  }

  // The product's factors of a word; f32 is rounded to TF32, as TMA does it.
  __device__ __forceinline__ static uint32_t FactorOf(const float* sum, float) { return RoundTf32(sum[0]); }
  template <class Half>
  __device__ __forceinline__ static uint32_t FactorOf(const float* sum, Half) {
    return PackPair(sum[0], sum[1], Half{});
  }

  // `rows`: the strip's first in the left factor, at a multiple of eight.
  __device__ __forceinline__ static void Store(const Strip& sums, unsigned char* rows, int lane) {
#pragma unroll
    for (int i = 0; i < Shape::kUnitRows * kUnitColumns; ++i) {
      const float* sum = sums[i / kUnitColumns] + i % kUnitColumns * kLaneChannels;
      *reinterpret_cast<uint32_t*>(rows + Swizzle128(i, lane / 4) + lane % 4 * 4) = FactorOf(sum, T{});
    }
  }

  // `part`: which rows or columns of a tile; `thread` of the warpgroup.
  __device__ __forceinline__ void MultiplyAll(int part, int thread) {
    constexpr bool kByRows = Shape::kM == 128;
    const uint64_t a0 = KMajor128(SharedAddress(shared_.stages[0].a) + (kByRows ? part * 64 * Shape::kStepBytes : 0));
    const uint64_t b0 =
        KMajor128(SharedAddress(shared_.stages[0].b) + (kByRows ? 0 : part * Shape::kColumns * Shape::kStepBytes));
    const int first_unit = (kByRows ? part * 8 : 0) + thread / 32 * 2;
    typename StageRing::Position at;
    ForEachItem([&](const Item& item) {
      float sums[Shape::kColumns / 2];
      for (int step = 0; step < steps_; ++step, at.Advance()) {
        stages_.AwaitFull(at);
        const int stage = at.stage * static_cast<int>(sizeof(typename Shape::Stage));
        WgmmaFence();
#pragma unroll
        for (int k = 0; k < Shape::kStepBytes; k += 32) {
          Wgmma<kMath, Shape::kColumns>(sums, Step(a0, stage + k), Step(b0, stage + k), step + k > 0);
        }
        WgmmaCommit();
        WgmmaWait<0>();
        if (thread == 0) stages_.Release(at);
      }
      Finish(sums, item.begin, item.column + (kByRows ? 0 : part * Shape::kColumns), first_unit, part * 4 + thread / 32,
             thread % 32);
    });
  }

  // A warp's two units; a lane has half of one.
  __device__ __forceinline__ void Finish(const float (&sums)[Shape::kColumns / 2], const StripPlace& begin,
                                         int first_column, int first_unit, int warp, int lane) {
    const DepthwiseArgs& d = args_.steps.depthwise;
    const GemmArgs& p = args_.steps.project;
    const Epilogue& e = p.epilogue;
    const auto finish = [&](const float* slab, int in_warp, int in_tile) {
      const int unit = first_unit + in_warp / kUnitColumns, column = first_column + in_tile;
      const StripPlace place = PlaceOf<Shape>(args_.tiling, unit / Shape::kUnitRows);
      const int image = begin.image + place.image, oh = begin.row + place.row + unit % Shape::kUnitRows;
      const int ow = begin.column + place.column + in_warp % kUnitColumns, width = static_cast<int>(d.ow.divisor);
      const int pixel = oh * width + ow, left = image < d.images && oh < d.oh ? width - ow : 0;
      FinishQuadOfRows<T>(e, slab, RowOffset(e.y_strides, image, pixel), RowOffset(e.residual_strides, image, pixel),
                          left, column, p.n - column, [&](int i) {
                            return ImagePixel{image, pixel + i};
                          });
    };
    ForEachQuadOfRows(sums, shared_.slabs[warp], lane, finish, p.n - first_column);
  }

  const FusedWgmmaArgs& args_;
  Shared& shared_;
  StageRing stages_;
  PatchRing patches_;
  int items_, steps_;
};

template <Math kMath, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1) FusedWgmmaKernel(const __grid_constant__ FusedWgmmaArgs a) {
  FusedWgmma<kMath, Shape>(a, SharedMemory<typename Shape::Shared>()).Run();
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_FUSED_DW_PW_CUH_
