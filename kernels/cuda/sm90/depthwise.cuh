// Depthwise convolution on sm_90a by TMA and fused multiply-adds: core/depthwise_strips.h has the words.
//   Warps work by themselves: each loads the boxes of its own walks by TMA, some boxes ahead, into a ring of its own,
//   and walks down them. A lane has the weights of its four channels in registers. Each row of x is read from shared
//   memory and widened once, and goes into the sums of all the rows of y that see it: the sums move up by a row as a
//   side effect of their first multiply-add, and the oldest ones are then complete. Padding, and whatever a box has
//   beyond the image, the last channel or the last image, are the zeros of TMA: no tap asks where it is, and every load
//   from shared memory has its offset in the instruction.
// Budget: 255 registers, 112 KiB of boxes a block, two blocks to a multiprocessor.
// Sizes: 3 x 3 and 5 x 5, strides 1 and 2, dense; nhwc, one output to an input channel, y in quads, what TMA asks of x.
#ifndef LAMINA_KERNELS_CUDA_SM90_DEPTHWISE_CUH_
#define LAMINA_KERNELS_CUDA_SM90_DEPTHWISE_CUH_

#include "kernels/cuda/device/epilogue.cuh"
#include "kernels/cuda/device/hopper.cuh"
#include "kernels/cuda/sm90_depthwise.h"

namespace lamina::cuda {

template <class T, int kK, int kStride>
class StripWalker {
 public:
  using Shape = StripShape<static_cast<int>(sizeof(T)), kK, kStride>;
  using Shared = typename Shape::Shared;

  __device__ __forceinline__ StripWalker(const TmaDepthwiseArgs& args, Shared& shared, int warp, int lane)
      : a_(args.depthwise),
        walks_(args.walks),
        x_(args.x),
        boxes_(shared.boxes[warp]),
        full_(shared.full[warp]),
        loads_(shared.loads[warp]),
        lane_(lane),
        first_walk_(blockIdx.x + gridDim.x * static_cast<unsigned>(warp)) {}

  __device__ __forceinline__ void Run() {
    if (lane_ == 0) {
      for (uint64_t& full : full_) InitBarrier(&full, 1);
      FenceBarrierInit();
      PrefetchMap(x_);
    }
    AwaitEarlierKernels();
    if (lane_ == 0) StartLoads();
    __syncwarp();  // the barriers are made
    for (uint32_t walk = first_walk_; walk < walks_.count; walk += NextWalk()) Walk(BeginOf(walks_, walk));
  }

 private:
  // Neighbouring walks are of different multiprocessors, so that few of them still keep all busy.
  __device__ __forceinline__ static uint32_t NextWalk() { return gridDim.x * Shape::kWarps; }
  __device__ __forceinline__ int RowsLeft(int row) const { return min(walks_.rows, a_.oh - row); }
  __device__ __forceinline__ int RowBytes() const {
    return BoxColumns(Shape::kColumns, kK, kStride, walks_.images) * Shape::kPixelBytes;
  }

  // By the first lane: as many boxes as the ring holds.
  __device__ __forceinline__ void StartLoads() {
    loads_ = LoadsOf(first_walk_);
#pragma unroll 1
    for (int stage = 0; stage < Shape::kStages; ++stage) LoadNext(stage);
  }
  __device__ __forceinline__ typename Shape::Loads LoadsOf(uint32_t walk) const {
    const StripBegin b = BeginOf(walks_, walk);
    const int lead = walks_.Lead(b.row);
    return {walk,
            lead + RowsLeft(b.row),
            b.group * kStripChannels,
            b.tile * (3 - walks_.images) * Shape::kColumns * kStride - a_.pad_left,
            (b.row - lead) * kStride - a_.pad_top + kK - kStride,
            b.image};
  }
  __device__ __forceinline__ void LoadNext(int stage) {
    typename Shape::Loads next = loads_;
    if (next.walk >= walks_.count) return;
    ArriveExpecting(&full_[stage], walks_.images * Shape::kBoxRows * RowBytes());
    LoadTile(boxes_[stage], x_, &full_[stage], next.c, next.w, next.h, next.n);
    next.h += Shape::kBoxRows;
    next.steps_left -= Shape::kSteps;
    loads_ = next.steps_left > 0 ? next : LoadsOf(next.walk + NextWalk());
  }

  __device__ __forceinline__ void Walk(const StripBegin& b) {
    const int quad = lane_ % kStripLanes, half = lane_ / kStripLanes;
    const bool apart = walks_.images == 2;  // the two strips are of two images
    const int row_bytes = Opaque(RowBytes());
    const int half_bytes = apart ? Shape::kBoxRows * row_bytes : Shape::kColumns * kStride * Shape::kPixelBytes;
    const int lane_bytes = half * half_bytes + quad * 4 * static_cast<int>(sizeof(T));
    const int channel = b.group * kStripChannels + quad * 4, image = apart ? b.image + half : b.image;
    const int column = (apart ? b.tile : 2 * b.tile + half) * Shape::kColumns;
    const int ow = static_cast<int>(a_.ow.divisor);
    const int columns_left = channel < a_.channels && image < a_.images ? ow - column : 0;

    // Lanes beyond the last channel compute with another's weights and store nothing.
    const int weights = channel < a_.channels ? channel : 0;
    float4 w[kK][kK];
#pragma unroll
    for (int r = 0; r < kK; ++r) {
#pragma unroll
      for (int s = 0; s < kK; ++s) w[r][s] = Load4(a_.w + (r * kK + s) * a_.channels_padded + weights);
    }
    const float4 bias = Load4(a_.epilogue.bias + weights);

    Sums sum;  // sum[j]: of row `row` + j of the band
#pragma unroll
    for (auto& of_row : sum) {
#pragma unroll
      for (float4& v : of_row) v = bias;
    }
    const int first = b.row * ow + column, rows = RowsLeft(b.row);
    int64_t y = RowOffset(a_.epilogue.y_strides, image, first) + channel;
    int64_t residual = RowOffset(a_.epilogue.residual_strides, image, first) + channel;
    int row = -walks_.Lead(b.row);
#pragma unroll 1
    while (row < rows) {
      WaitBarrier(&full_[at_.stage], at_.phase);
      const unsigned char* in = boxes_[at_.stage] + lane_bytes;
      const int end = min(row + Shape::kSteps, rows);
#pragma unroll 1
      for (; row < end; ++row) {
#pragma unroll
        for (int d = kK - kStride; d < kK; ++d, in += row_bytes) AddRow(in, w, d, sum);
        if (row >= 0) {
          Finish(sum[0], y, residual, columns_left);
          y += walks_.y_row;
          residual += walks_.residual_row;
        }
#pragma unroll
        for (int j = 0; j < Shape::kSlots; ++j) {
#pragma unroll
          for (int t = 0; t < Shape::kColumns; ++t) sum[j][t] = j + 1 < Shape::kSlots ? sum[j + 1][t] : bias;
        }
      }
      __syncwarp();  // all lanes have read the box
      if (lane_ == 0) LoadNext(at_.stage);
      at_.Advance();
    }
  }

  using Sums = float4[Shape::kSlots][Shape::kColumns];

  // A row of x, the d-th that sum[0]'s row of y sees.
  __device__ __forceinline__ static void AddRow(const unsigned char* in, const float4 (&w)[kK][kK], int d, Sums& sum) {
#pragma unroll
    for (int i = 0; i < Shape::kInputs; ++i) {
      const float4 x = Load4(reinterpret_cast<const T*>(in + i * Shape::kPixelBytes));
#pragma unroll
      for (int j = 0; j < Shape::kSlots; ++j) {
#pragma unroll
        for (int t = 0; t < Shape::kColumns; ++t) {
          const int r = d - j * kStride, s = i - t * kStride;
          if (r >= 0 && s >= 0 && s < kK) MultiplyAdd(x, w[r][s], sum[j][t]);
        }
      }
    }
  }

  __device__ __forceinline__ void Finish(const float4 (&sum)[Shape::kColumns], int64_t y, int64_t residual,
                                         int columns_left) const {
    float v[4 * Shape::kColumns];
#pragma unroll
    for (int t = 0; t < Shape::kColumns; ++t) {
      v[4 * t] = sum[t].x, v[4 * t + 1] = sum[t].y, v[4 * t + 2] = sum[t].z, v[4 * t + 3] = sum[t].w;
    }
    FinishPixels<T, Shape::kColumns>(a_.epilogue, v, y, residual, columns_left);
  }

  const DepthwiseArgs& a_;
  const StripWalks& walks_;
  const TensorMap& x_;
  unsigned char (&boxes_)[Shape::kStages][Shape::kBoxBytes];
  uint64_t (&full_)[Shape::kStages];
  typename Shape::Loads& loads_;
  int lane_;
  uint32_t first_walk_;
  RingPosition<Shape::kStages> at_;
};

template <class T, int kK, int kStride>
__global__ void __launch_bounds__(kDepthwiseThreads, StripShape<static_cast<int>(sizeof(T)), kK, kStride>::kBlocks)
    TmaDepthwiseKernel(const __grid_constant__ TmaDepthwiseArgs a) {
  using Walker = StripWalker<T, kK, kStride>;
  const int thread = static_cast<int>(threadIdx.x);
  Walker(a, SharedMemory<typename Walker::Shared>(), thread / 32, thread % 32).Run();
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_DEPTHWISE_CUH_
