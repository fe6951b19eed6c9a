// Depthwise convolution on sm_90a by TMA and fused multiply-adds: core/depthwise_strips.h has the words.
//   Warps work by themselves: each loads the boxes of its own walks by TMA, some boxes ahead, into a ring of its own,
//   and walks down them. A lane has the weights of its channels in registers. Each row of x is read from shared
//   memory and widened once, and goes into the sums of all the rows of y that see it: the sums move up by a row as a
//   side effect of their first multiply-add, and the oldest ones are then complete. Padding, and whatever a box has
//   beyond the image, the last channel or the last image, are the zeros of TMA: no tap asks where it is, and every load
//   from shared memory has its offset in the instruction.
// Budget: 255 registers, 112 KiB of boxes a block, two blocks to a multiprocessor.
// Sizes: 3 x 3 and 5 x 5, strides 1 and 2, 7 x 7, stride 1, dense; nhwc, one output to an input channel, y in quads,
// what TMA asks of x.
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
  __device__ __forceinline__ int SideBySide() const { return Shape::kStrips / walks_.images; }
  __device__ __forceinline__ int RowBytes() const {
    return InputColumns(SideBySide() * Shape::kColumns, kK, kStride) * Shape::kPixelBytes;
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
            b.group * kWalkChannels,
            b.tile * SideBySide() * Shape::kColumns * kStride - a_.pad_left,
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
    constexpr int kLanes = 32 / Shape::kStrips;  // along channels
    const int in_group = lane_ % kLanes * Shape::kChannels, strip = lane_ / kLanes;
    const bool apart = walks_.images > 1;  // the strips are of an image each
    const int row_bytes = Opaque(RowBytes());
    const int strip_bytes = apart ? Shape::kBoxRows * row_bytes : Shape::kColumns * kStride * Shape::kPixelBytes;
    const int lane_bytes = strip * strip_bytes + in_group * static_cast<int>(sizeof(T));
    const int channel = b.group * kWalkChannels + in_group, image = apart ? b.image + strip : b.image;
    const int column = (apart ? b.tile : Shape::kStrips * b.tile + strip) * Shape::kColumns;
    const int ow = static_cast<int>(a_.ow.divisor);
    const int columns_left = channel < a_.channels && image < a_.images ? ow - column : 0;

    // Lanes beyond the last channel compute with another's weights and store nothing.
    const int weights = channel < a_.channels ? channel : 0;
    Channels w[kK][kK], bias;
#pragma unroll
    for (int r = 0; r < kK; ++r) {
#pragma unroll
      for (int s = 0; s < kK; ++s) LoadVector(a_.w + (r * kK + s) * a_.channels_padded + weights, w[r][s]);
    }
    LoadVector(a_.epilogue.bias + weights, bias);

    Sums sum;  // sum[j]: of row `row` + j of the band
#pragma unroll
    for (Columns& of_row : sum) SetAll(of_row, bias);
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
        MoveUp(sum);
        SetAll(sum[Shape::kSlots - 1], bias);
      }
      __syncwarp();  // all lanes have read the box
      if (lane_ == 0) LoadNext(at_.stage);
      at_.Advance();
    }
  }

  using Channels = float[Shape::kChannels];
  using Columns = Channels[Shape::kColumns];
  using Sums = Columns[Shape::kSlots];

  __device__ __forceinline__ static void SetAll(Columns& sum, const Channels& bias) {
#pragma unroll
    for (Channels& of_column : sum) {
#pragma unroll
      for (int c = 0; c < Shape::kChannels; ++c) of_column[c] = bias[c];
    }
  }
  __device__ __forceinline__ static void MoveUp(Sums& sum) {
#pragma unroll
    for (int j = 0; j + 1 < Shape::kSlots; ++j) {
#pragma unroll
      for (int t = 0; t < Shape::kColumns; ++t) {
#pragma unroll
        for (int c = 0; c < Shape::kChannels; ++c) sum[j][t][c] = sum[j + 1][t][c];
      }
    }
  }

  // A row of x, the d-th that sum[0]'s row of y sees.
  __device__ __forceinline__ static void AddRow(const unsigned char* in, const Channels (&w)[kK][kK], int d,
                                                Sums& sum) {
#pragma unroll
    for (int i = 0; i < Shape::kInputs; ++i) {
      Channels x;
      LoadVector(reinterpret_cast<const T*>(in + i * Shape::kPixelBytes), x);
#pragma unroll
      for (int j = 0; j < Shape::kSlots; ++j) {
#pragma unroll
        for (int t = 0; t < Shape::kColumns; ++t) {
          const int r = d - j * kStride, s = i - t * kStride;
          if (r < 0 || s < 0 || s >= kK) continue;
#pragma unroll
          for (int c = 0; c < Shape::kChannels; ++c) sum[j][t][c] = fmaf(x[c], w[r][s][c], sum[j][t][c]);
        }
      }
    }
  }

  __device__ __forceinline__ void Finish(const Columns& sum, int64_t y, int64_t residual, int columns_left) const {
    float v[Shape::kChannels * Shape::kColumns];
#pragma unroll
    for (int t = 0; t < Shape::kColumns; ++t) {
#pragma unroll
      for (int c = 0; c < Shape::kChannels; ++c) v[Shape::kChannels * t + c] = sum[t][c];
    }
    FinishPixels<T, Shape::kColumns, Shape::kChannels>(a_.epilogue, v, y, residual, columns_left);
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
