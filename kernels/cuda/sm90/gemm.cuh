// The matrix product of core/gemm.h on sm_90a: convolution as implicit GEMM, fully connected, 1x1.
//   A block stays on its multiprocessor and takes tiles of 128 x kN outputs in turn. One thread of the first warpgroup
//   loads: for each step of k (128 bytes of channels of one tap) a box of 128 rows of x and one of kN rows of w by TMA,
//   swizzled as wgmma reads them, into a ring of stages. Two warpgroups multiply, 64 rows each, their sums in
//   registers, one group of wgmma under way while the next stage is awaited; then each warp turns its sums to rows
//   through a slab of shared memory and ends the layer. Meanwhile the loads of the next tile have begun.
//   x is a matrix (one row per pixel), or an image of which TMA walks the windows (im2col): padding, strides, dilation,
//   the last rows and the last channels are its zeros.
// Budget: 192 KiB of stages, 20 KiB of slabs; registers 40 (loads) and 232 (128 sums at kN = 256) per thread.
// Sizes: one group, nhwc; what TMA asks of strides, windows and pads (tensor_map.h).
#ifndef LAMINA_KERNELS_CUDA_SM90_GEMM_CUH_
#define LAMINA_KERNELS_CUDA_SM90_GEMM_CUH_

#include "kernels/cuda/device/ring.cuh"
#include "kernels/cuda/sm90/wgmma_epilogue.cuh"
#include "kernels/cuda/sm90_gemm.h"

namespace lamina::cuda {

template <Math kMath, int kN>
class WgmmaGemm {
 public:
  using Shape = WgmmaShape<kN>;
  using Shared = typename Shape::Shared;

  __device__ __forceinline__ WgmmaGemm(const WgmmaGemmArgs& args, Shared& shared)
      : a_(args.gemm),
        args_(args),
        shared_(shared),
        ring_(shared.barriers),
        m_tiles_(static_cast<int>(DivUp(args.gemm.rows, Shape::kM))),
        n_tiles_(static_cast<int>(DivUp(args.gemm.n, kN))),
        channel_steps_(static_cast<int>(DivUp(args.gemm.channels, kStepElements))) {}

  __device__ __forceinline__ void Run() {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) ring_.Init(Shape::kConsumers);
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
  static constexpr int kStepElements = Shape::kStepBytes / static_cast<int>(sizeof(T));

  // Calls with the first row and column of every tile that is this block's.
  template <class F>
  __device__ __forceinline__ void ForEachTile(const F& f) {
    for (int i = static_cast<int>(blockIdx.x); i < m_tiles_ * n_tiles_; i += static_cast<int>(gridDim.x)) {
      const Tile tile = TileOf(i, m_tiles_, n_tiles_);
      f(tile.m * Shape::kM, tile.n * kN);
    }
  }

  __device__ __forceinline__ void LoadAll() {
    PrefetchMap(args_.x);
    PrefetchMap(args_.w);
    typename Ring<Shape::kStages>::Position at;
    ForEachTile([&](int row, int column) {
      const auto image = static_cast<int>(a_.pixels.Quotient(static_cast<uint32_t>(row)));
      const uint32_t pixel = static_cast<uint32_t>(row) - static_cast<uint32_t>(image) * a_.pixels.divisor;
      const auto oh = static_cast<int>(a_.ow.Quotient(pixel)), ow = static_cast<int>(a_.ow.Remainder(pixel));
      const int h = oh * a_.stride_h - a_.pad_top, w = ow * a_.stride_w - a_.pad_left;
      for (int r = 0; r < a_.kh; ++r) {
        for (int s = 0; s < a_.kw; ++s) {
          for (int step = 0; step < channel_steps_; ++step) {
            typename Shape::Stage& stage = shared_.stages[at.stage];
            uint64_t* full = ring_.Fill(at, Shape::kStageBytes);
            const int c = step * kStepElements;
            if (args_.matrix) {
              LoadTile(stage.a, args_.x, full, c, row);
            } else {
              LoadIm2col(stage.a, args_.x, full, c, w, h, image, s * a_.dilation_w, r * a_.dilation_h);
            }
            LoadTile(stage.b, args_.w, full, c, r * a_.kw + s, column);
            at.Advance();
          }
        }
      }
    });
  }

  // `half`: which 64 rows of the tile; `thread` of the warpgroup.
  __device__ __forceinline__ void MultiplyAll(int half, int thread) {
    const uint64_t a0 = KMajor128(SharedAddress(shared_.stages[0].a) + half * 64 * Shape::kStepBytes);
    const uint64_t b0 = KMajor128(SharedAddress(shared_.stages[0].b));
    const int steps = a_.kh * a_.kw * channel_steps_;
    typename Ring<Shape::kStages>::Position at, done;
    ForEachTile([&](int row, int column) {
      float sums[kN / 2];
      for (int step = 0; step < steps; ++step) {
        ring_.AwaitFull(at);
        const uint64_t a = Step(a0, at.stage * Shape::kStageBytes), b = Step(b0, at.stage * Shape::kStageBytes);
        WgmmaFence();
#pragma unroll
        for (int k = 0; k < Shape::kStepBytes; k += 32) Wgmma<kMath, kN>(sums, Step(a, k), Step(b, k), step + k > 0);
        WgmmaCommit();
        at.Advance();
        WgmmaWait<1>();  // the step before this one has been read
        if (step > 0) Release(done, thread);
      }
      WgmmaWait<0>();
      Release(done, thread);
      Finish(sums, row + half * 64 + thread / 32 * 16, column, half * 4 + thread / 32, thread % 32);
    });
  }

  __device__ __forceinline__ void Release(typename Ring<Shape::kStages>::Position& done, int thread) {
    if (thread == 0) ring_.Release(done);
    done.Advance();
  }

  // A warp's 16 rows of sums.
  __device__ __forceinline__ void Finish(const float (&sums)[kN / 2], int first_row, int first_column, int warp,
                                         int lane) {
    const Epilogue& e = a_.epilogue;
    ForEachQuadOfRows(sums, shared_.slabs[warp], lane, [&](const float* slab, int in_warp, int in_tile) {
      const int row = first_row + in_warp, column = first_column + in_tile;
      FinishQuadOfRows<T>(e, slab, row * e.y_strides.pixel, row * e.residual_strides.pixel, a_.rows - row, column,
                          a_.n - column, [&](int i) {
                            const auto image = static_cast<int>(a_.pixels.Quotient(static_cast<uint32_t>(row + i)));
                            return ImagePixel{image, row + i - image * static_cast<int>(a_.pixels.divisor)};
                          });
    });
  }

  const GemmArgs& a_;
  const WgmmaGemmArgs& args_;
  Shared& shared_;
  Ring<Shape::kStages> ring_;
  int m_tiles_, n_tiles_, channel_steps_;
};

template <Math kMath, int kN>
__global__ void __launch_bounds__(WgmmaShape<kN>::kThreads, 1)
    WgmmaGemmKernel(const __grid_constant__ WgmmaGemmArgs a) {
  WgmmaGemm<kMath, kN>(a, SharedMemory<typename WgmmaGemm<kMath, kN>::Shared>()).Run();
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_GEMM_CUH_
