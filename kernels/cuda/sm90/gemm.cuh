// The matrix product of core/gemm.h on sm_90a: convolution as implicit GEMM, fully connected, 1x1.
//   A block stays on its multiprocessor and takes tiles of kM x kN outputs in turn. One thread of the first warpgroup
//   loads: for each step of k (128 bytes of channels of one tap) a box of kM rows of x and one of kN rows of w by TMA,
//   swizzled as wgmma reads them, into a ring of stages. Two warpgroups multiply, half the rows each, their sums in
//   registers, one group of wgmma under way while the next stage is awaited; then each warp turns its sums to rows
//   through a slab of shared memory and ends the layer. Meanwhile the loads of the next tile have begun.
//   x is a matrix (one row per pixel), or an image of which TMA walks the windows (im2col): padding, strides, dilation,
//   the last rows and the last channels are its zeros.
//   Few tiles: blocks share out k, too, and gemm_reduce.cuh adds their sums up.
//   Up to 64 outputs with few weights: a block keeps them (kKeeps) and the ring brings x alone, for L2 gives a narrow
//   tile its operands more slowly than they are multiplied.
//   Short k: the warpgroups take whole tiles in turn (kTurns); one multiplies while the other ends its layer.
//   3 x TF32: products as exact as f32's, of factors split in two. Rows of x are split in registers on the way from
//   shared memory, so that wgmma reads w alone and nothing is written; weights were split when they were packed.
// Budget: up to 192 KiB of stages, 20 KiB of slabs; registers 40 (loads) and 232 (128 sums; 3 x TF32: 40 of factors).
// Sizes: one group, nhwc; what TMA asks of strides, windows and pads (tensor_map.h).
#ifndef LAMINA_KERNELS_CUDA_SM90_GEMM_CUH_
#define LAMINA_KERNELS_CUDA_SM90_GEMM_CUH_

#include "kernels/cuda/core/swizzle.h"
#include "kernels/cuda/device/ring.cuh"
#include "kernels/cuda/sm90/wgmma_epilogue.cuh"
#include "kernels/cuda/sm90_gemm.h"

namespace lamina::cuda {

template <Math kMath, int kM, int kN, WgmmaForm kForm>
class WgmmaGemm {
 public:
  using Shape = WgmmaShape<kMath, kM, kN, kForm>;
  using Shared = typename Shape::Shared;

  __device__ __forceinline__ WgmmaGemm(const WgmmaGemmArgs& args, Shared& shared)
      : a_(args.gemm),
        args_(args),
        shared_(shared),
        ring_(shared.barriers),
        m_tiles_(static_cast<int>(DivUp(args.gemm.rows, kM))),
        n_tiles_(static_cast<int>(DivUp(args.gemm.n, kN))),
        channel_steps_(static_cast<int>(DivUp(args.gemm.channels, kStepElements))),
        steps_(args.gemm.kh * args.gemm.kw * channel_steps_) {}

  __device__ __forceinline__ void Run() {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) {
      if constexpr (kKeeps) InitBarrier(&shared_.kept.full, 1);
      if constexpr (Shape::kTurns) {
        for (uint64_t& turn : shared_.turns) InitBarrier(&turn, 1);
      }
      ring_.Init(Shape::kReaders * (kWarpgroup / kReleases));
    }
    __syncthreads();
    AwaitEarlierKernels();
    if (thread < kWarpgroup) {
      DecreaseRegisters<40>();
      if (thread < 32 && ElectOne()) LoadAll();
    } else {
      IncreaseRegisters<232>();
      MultiplyAll(thread / kWarpgroup - 1, thread % kWarpgroup);
    }
  }

 private:
  using T = ElementOf<kMath>;
  using Position = typename Ring<Shape::kStages>::Position;
  static constexpr int kStepElements = Shape::kStepBytes / static_cast<int>(sizeof(T));
  static constexpr bool kSplits = kMath == Math::kTf32x3;
  // Threads for whom one lets go of a stage: what wgmma has read of shared memory, it has for all of a warpgroup.
  static constexpr int kReleases = kSplits ? 32 : kWarpgroup;
  static constexpr bool kKeeps = Shape::kKeeps;

  // Calls with the first row and column of every tile that is this block's, and with its part of k.
  template <class F>
  __device__ __forceinline__ void ForEachTile(const F& f) {
    for (int i = static_cast<int>(blockIdx.x); i < m_tiles_ * n_tiles_ * a_.splits; i += static_cast<int>(gridDim.x)) {
      const Tile tile = TileOf(i, m_tiles_, n_tiles_);  // the parts come one after the other, as groups would
      f(tile.m * kM, tile.n * kN, tile.group);
    }
  }

  // Where a step of k lies: the tap, as row, column and number, and its first channel.
  struct StepPlace {
    int r, s, tap, channel;
  };
  template <class F>
  __device__ __forceinline__ void ForEachStep(const StepRange& steps, const F& f) {
    const int tap = steps.first / channel_steps_, step = steps.first % channel_steps_;
    StepPlace at{tap / a_.kw, tap % a_.kw, tap, step * kStepElements};
    for (int i = steps.first; i < steps.last; ++i) {
      f(at);
      if ((at.channel += kStepElements) < a_.channels) continue;
      at.channel = 0, ++at.tap;
      if (++at.s == a_.kw) at.s = 0, ++at.r;
    }
  }

  __device__ __forceinline__ void LoadAll() {
    PrefetchMap(args_.x);
    PrefetchMap(args_.w);
    if constexpr (kKeeps) {
      uint64_t* full = &shared_.kept.full;
      ArriveExpecting(full, steps_ * Shape::kWeightBytes);
      unsigned char(*to)[Shape::kWeightBytes] = shared_.kept.b;
      ForEachStep({0, steps_}, [&](const StepPlace& k) { LoadTile(*to++, args_.w, full, k.channel, k.tap, 0); });
    }
    Position at;
    ForEachTile([&](int row, int column, int part) {
      const auto image = static_cast<int>(a_.pixels.Quotient(static_cast<uint32_t>(row)));
      const uint32_t pixel = static_cast<uint32_t>(row) - static_cast<uint32_t>(image) * a_.pixels.divisor;
      const auto oh = static_cast<int>(a_.ow.Quotient(pixel)), ow = static_cast<int>(a_.ow.Remainder(pixel));
      const int h = oh * a_.stride_h - a_.pad_top, w = ow * a_.stride_w - a_.pad_left;
      ForEachStep(StepsOf(steps_, part, a_.splits), [&](const StepPlace& k) {
        typename Shape::Stage& stage = shared_.stages[at.stage];
        uint64_t* full = ring_.Fill(at, Shape::kStageBytes);
        if (args_.matrix) {
          LoadTile(stage.a, args_.x, full, k.channel, row);
        } else {
          LoadIm2col(stage.a, args_.x, full, k.channel, w, h, image, k.s * a_.dilation_w, k.r * a_.dilation_h);
        }
        if constexpr (kSplits) {
          LoadTile(stage.b, args_.w, full, k.channel, k.tap, column, 0);
        } else if constexpr (!kKeeps) {
          LoadTile(stage.b, args_.w, full, k.channel, k.tap, column);
        }
        at.Advance();
      });
    });
  }

  // `warpgroup`: which one; `thread` of it.
  __device__ __forceinline__ void MultiplyAll(int warpgroup, int thread) {
    if constexpr (kKeeps) WaitBarrier(&shared_.kept.full, 0);
    const int half = Shape::kTurns ? 0 : warpgroup;  // which of the tile's rows
    int tile = 0;
    Position at, done;
    ForEachTile([&](int row, int column, int part) {
      const StepRange range = StepsOf(steps_, part, a_.splits);
      const int steps = range.last - range.first;
      if constexpr (Shape::kTurns) {
        const int turn = tile++;
        if (turn % 2 != warpgroup) {
          at.Skip(steps);
          done = at;
          return;
        }
        // Behind the stages of the tile before: a barrier tells a stage's round from the next, but not from the one
        // after.
        WaitBarrier(&shared_.turns[warpgroup], (turn / 2 + warpgroup + 1) % 2);
      }
      float sums[Shape::kSums];
      [[maybe_unused]] SplitRows split;  // of the group under way, too, which ends after the call that began it
      for (int step = 0; step < steps; ++step, at.Advance()) {
        ring_.AwaitFull(at);
        if constexpr (kSplits) {
          MultiplySplit(sums, split, half, thread, at.stage, step > 0, done);
        } else {
          Multiply(sums, half, at.stage, step);
          WgmmaWait<1>();  // the step before this one has been read
          if (step > 0) Release(done, thread);
        }
      }
      WgmmaWait<0>();
      Release(done, thread);
      if (Shape::kTurns && thread == 0) Arrive(&shared_.turns[1 - warpgroup]);
      Finish(sums, row + half * Shape::kRows + thread / 32 * 16, column, part, warpgroup * 4 + thread / 32,
             thread % 32);
    });
  }

  __device__ __forceinline__ void Release(Position& done, int thread) {
    if (thread % kReleases == 0) ring_.Release(done);
    done.Advance();
  }

  static constexpr int kBlocks = Shape::kRows / 64;  // of rows, each of which a wgmma multiplies
  // The sums of a block, which are kN / 2 behind the block's before it.
  using BlockSums = float[kN / 2];
  __device__ __forceinline__ static BlockSums& Block(float (&sums)[Shape::kSums], int block) {
    return reinterpret_cast<BlockSums&>(sums[block * (kN / 2)]);
  }

  struct SplitRows {
    uint32_t high[2][kBlocks][4], low[2][kBlocks][4];
  };

  // Where the weights of a step lie.
  __device__ __forceinline__ uint64_t Weights(int stage, int step) {
    if constexpr (kKeeps) {
      return Step(KMajor128(SharedAddress(shared_.kept.b)), step * Shape::kWeightBytes);
    } else {
      return Step(KMajor128(SharedAddress(shared_.stages[0].b)), stage * Shape::kStageBytes);
    }
  }

  // Starts the products of a step.
  __device__ __forceinline__ void Multiply(float (&sums)[Shape::kSums], int half, int stage, int step) {
    const uint64_t a = Step(KMajor128(SharedAddress(shared_.stages[0].a) + half * Shape::kRows * Shape::kStepBytes),
                            stage * Shape::kStageBytes);
    const uint64_t b = Weights(stage, step);
    WgmmaFence();
#pragma unroll
    for (int k = 0; k < Shape::kStepBytes; k += 32) {
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        Wgmma<kMath, kN>(Block(sums, block), Step(a, block * 64 * Shape::kStepBytes + k), Step(b, k), step + k > 0);
      }
    }
    WgmmaCommit();
  }

  // Factors as two TF32 numbers each, up to 2^-22 of them: x = high + low, rounded here on the way from shared memory
  // to registers, w as TMA brings it (wgmma reads its upper bits) and the rest, which the host has split off. Of the
  // four products low x rest is left out; the small ones come first, where they still count. While a quarter of a step
  // is multiplied, the next one is split: its registers are those of the quarter before, which has been read then.
  __device__ __forceinline__ void MultiplySplit(float (&sums)[Shape::kSums], SplitRows& split, int half, int thread,
                                                int stage, bool accumulate, Position& done) {
    const uint64_t b = Weights(stage, 0);
    const unsigned char* rows = shared_.stages[stage].a;
    const int first = half * Shape::kRows + thread / 32 * 16 + thread % 16, chunk = thread % 32 / 16;
    auto& [high, low] = split;
#pragma unroll
    for (int k = 0; k < Shape::kStepBytes / 32; ++k) {
      uint32_t x[kBlocks][4];
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        LoadMatrix4(x[block], rows + Swizzle128(first + 64 * block, 2 * k + chunk));
      }
      WgmmaWait<1>();
      if (k == 1 && accumulate) Release(done, thread);  // the step before this one has been read
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          high[k % 2][block][i] = RoundTf32(__uint_as_float(x[block][i]));
          low[k % 2][block][i] = __float_as_uint(__uint_as_float(x[block][i]) - __uint_as_float(high[k % 2][block][i]));
        }
        Pin(high[k % 2][block]);
        Pin(low[k % 2][block]);
      }
      WgmmaFence();
      const uint64_t w = Step(b, 32 * k), rest = Step(w, kN * Shape::kStepBytes);
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        Wgmma<Math::kTf32, kN>(Block(sums, block), low[k % 2][block], w, accumulate || k > 0);
        Wgmma<Math::kTf32, kN>(Block(sums, block), high[k % 2][block], rest, true);
        Wgmma<Math::kTf32, kN>(Block(sums, block), high[k % 2][block], w, true);
      }
      WgmmaCommit();
    }
  }

  // A warp's 16 rows of every block.
  __device__ __forceinline__ void Finish(const float (&sums)[Shape::kSums], int first_row, int first_column, int part,
                                         int warp, int lane) {
    const Epilogue& e = a_.epilogue;
    ForEachQuadOfRows(sums, shared_.slabs[warp], lane, [&](const float* slab, int in_warp, int in_sums) {
      const int row = first_row + in_warp + in_sums / kN * 64, column = first_column + in_sums % kN;
      if (a_.splits > 1) return StorePart(slab, part, row, column);
      FinishQuadOfRows<T>(e, slab, row * e.y_strides.pixel, row * e.residual_strides.pixel, a_.rows - row, column,
                          a_.n - column, [&](int i) {
                            const auto image = static_cast<int>(a_.pixels.Quotient(static_cast<uint32_t>(row + i)));
                            return ImagePixel{image, row + i - image * static_cast<int>(a_.pixels.divisor)};
                          });
    });
  }

  // Four columns of four rows of a part's sums, as gemm_reduce.cuh adds them up.
  __device__ __forceinline__ void StorePart(const float* slab, int part, int row, int column) {
    if (column >= a_.n) return;
    const float4 bias =
        part == 0 ? *reinterpret_cast<const float4*>(a_.epilogue.bias + column) : make_float4(0, 0, 0, 0);
    const int64_t pitch = a_.epilogue.y_strides.pixel;
    float* to = static_cast<float*>(a_.epilogue.y) + (int64_t{part} * a_.rows + row) * pitch + column;
#pragma unroll
    for (int i = 0; i < 4; ++i, to += pitch) {
      if (row + i >= a_.rows) return;
      const float4 sum = *reinterpret_cast<const float4*>(slab + i * WgmmaSlab::kPitch);
      Store4(make_float4(sum.x + bias.x, sum.y + bias.y, sum.z + bias.z, sum.w + bias.w), to);
    }
  }

  const GemmArgs& a_;
  const WgmmaGemmArgs& args_;
  Shared& shared_;
  Ring<Shape::kStages> ring_;
  int m_tiles_, n_tiles_, channel_steps_, steps_;
};

template <Math kMath, int kM, int kN, WgmmaForm kForm>
__global__ void __launch_bounds__(WgmmaShape<kMath, kM, kN, kForm>::kThreads, 1)
    WgmmaGemmKernel(const __grid_constant__ WgmmaGemmArgs a) {
  using Gemm = WgmmaGemm<kMath, kM, kN, kForm>;
  Gemm(a, SharedMemory<typename Gemm::Shared>()).Run();
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_GEMM_CUH_
