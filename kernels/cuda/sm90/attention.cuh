// Attention on sm_90a, after FlashAttention-3 (Shah et al. 2024): o = softmax(q kT) v in tiles of 128 queries, with a
// running softmax over tiles of keys.
//   A block stays on its multiprocessor and takes tiles of queries in turn. One thread of the first warpgroup loads q
//   once and k and v tile by tile by TMA into rings of stages. Two warpgroups have 64 queries each: scores by wgmma of
//   two operands in shared memory; their softmax in registers, where four lanes have a row; and o += weights * v with
//   the weights as wgmma's register operand, for the sums of one product are laid out as the factor of the next, two
//   neighbours to a word. The scores of the next tile are under way with the product of this one, so that exponentials
//   find the tensor cores busy.
//   Only tiles that some key is to be left out of look at the rules. Tiles that no query keeps a key of are not read.
//   Weight 0 times NaN is NaN: rows of v from the key length on are made zero, and where NaN reaches o, but not the sum
//   of the weights, the row is computed once more (portable/attention_query.cuh).
// Budget: shared memory 96 KiB (64 channels), 160 KiB (128), 192 KiB (256); registers 24 (loads) and 240 per thread:
// o has channels / 2 of them, scores keys / 2, weights keys / 4.
// Sizes: head_dim = value_dim = 64, 128 or 256 elements of 16 bits; what TMA asks of strides (tensor_map.h).
#ifndef LAMINA_KERNELS_CUDA_SM90_ATTENTION_CUH_
#define LAMINA_KERNELS_CUDA_SM90_ATTENTION_CUH_

#include "kernels/cuda/core/attention_schedule.h"
#include "kernels/cuda/core/fragment.h"
#include "kernels/cuda/device/ring.cuh"
#include "kernels/cuda/portable/attention_query.cuh"
#include "kernels/cuda/sm90_attention.h"

namespace lamina::cuda {

// Lanes of a quad have word `lane` of four pieces; then lane i has the four words of piece i.
__device__ __forceinline__ void QuadTranspose(uint32_t (&x)[4], int lane) {
#pragma unroll
  for (int step = 1; step <= 2; step *= 2) {
    const bool high = (lane & step) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & step) != 0) continue;
      const uint32_t got = __shfl_xor_sync(kAllLanes, high ? x[i] : x[i + step], step);
      x[i] = high ? got : x[i];
      x[i + step] = high ? x[i + step] : got;
    }
  }
}

template <Math kMath, int kD>
class FlashWgmma {
 public:
  using Shape = WgmmaAttentionShape<kD>;
  using Shared = typename Shape::Shared;

  __device__ __forceinline__ FlashWgmma(const WgmmaAttentionArgs& args, Shared& shared)
      : a_(args.attention),
        args_(args),
        shared_(shared),
        q_ring_(shared.q_barriers),
        k_ring_(shared.k_barriers),
        v_ring_(shared.v_barriers) {}

  __device__ __forceinline__ void Run() {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) {
      q_ring_.Init(Shape::kConsumers);
      k_ring_.Init(Shape::kConsumers);
      v_ring_.Init(Shape::kConsumers);
    }
    __syncthreads();
    AwaitEarlierKernels();
    if (thread < kWarpgroup) {
      DecreaseRegisters<24>();
      if (thread < 32 && ElectOne()) LoadAll();
    } else {
      IncreaseRegisters<240>();
      AttendAll(thread / kWarpgroup - 1, thread % kWarpgroup);
    }
  }

 private:
  using T = ElementOf<kMath>;
  using QRing = Ring<1>;
  using KvRing = Ring<Shape::kStages>;
  static constexpr int kKeys = Shape::kKeys, kSums = kKeys / 2;  // scores of a thread
  static constexpr int kWarpgroupRows = Shape::kRows / Shape::kConsumers;
  static constexpr int kStepKeys = 16;  // that one wgmma multiplies by

  // Calls with every tile of queries that is this block's, the keys that it needs, and how many there are.
  template <class F>
  __device__ __forceinline__ void ForEachTile(const F& f) {
    const auto tiles = static_cast<int>(HeadTiles(a_, Shape::kRows));
    for (int i = static_cast<int>(blockIdx.x); i < tiles; i += static_cast<int>(gridDim.x)) {
      const HeadTile tile = HeadTileAt(a_, i, Shape::kRows);
      const int length = KeyLengthOf(a_, tile.b);
      f(tile, a_.rule.OfAny(tile.row, min(tile.row + Shape::kRows, a_.seqlen_q) - 1, length), length);
    }
  }

  template <class Boxes>
  __device__ __forceinline__ static void LoadBoxes(Boxes& to, const TensorMap& map, uint64_t* full, int row, int head,
                                                   int b) {
#pragma unroll
    for (int i = 0; i < Shape::kBoxes; ++i) LoadTile(to.box[i], map, full, i * Shape::kBoxChannels, row, head, b);
  }

  __device__ __forceinline__ void LoadAll() {
    PrefetchMap(args_.q);
    PrefetchMap(args_.k);
    PrefetchMap(args_.v);
    typename QRing::Position q_at;
    typename KvRing::Position at;
    ForEachTile([&](const HeadTile& tile, const KeyRange& keys, int) {
      if (keys.begin >= keys.end) return;
      LoadBoxes(shared_.q, args_.q, q_ring_.Fill(q_at, sizeof(shared_.q)), tile.row, tile.head, tile.b);
      q_at.Advance();
      const auto head = static_cast<int>(a_.group.Quotient(static_cast<uint32_t>(tile.head)));
      for (int j = keys.begin; j < keys.end; j += kKeys, at.Advance()) {
        LoadBoxes(shared_.k[at.stage], args_.k, k_ring_.Fill(at, sizeof(shared_.k[0])), j, head, tile.b);
        LoadBoxes(shared_.v[at.stage], args_.v, v_ring_.Fill(at, sizeof(shared_.v[0])), j, head, tile.b);
      }
    });
  }

  // A thread's part of two rows of queries, lane / 4 and the eighth behind it.
  struct Rows {
    float o[kD / 2];
    float scores[kSums];
    uint32_t weights[kKeys / kStepKeys][4];
    SoftmaxStats stats[2];
  };
  // Which of the two rows a thread's score or sum is of, and which column but for those that come with the lane.
  LAMINA_HD static int RowOfSum(int i) { return WgmmaPosition(0, i).row / 8; }
  LAMINA_HD static int ColumnOfSum(int i) { return WgmmaPosition(0, i).column; }

  // `half`: which 64 rows of the tile; `thread` of the warpgroup.
  __device__ __forceinline__ void AttendAll(int half, int thread) {
    typename QRing::Position q_at;
    typename KvRing::Position k_at, v_at;
    ForEachTile([&](const HeadTile& tile, const KeyRange& keys, int length) {
      const int first = tile.row + half * kWarpgroupRows;  // the warpgroup's; the thread's is:
      const int row = first + thread / 32 * 16 + thread % 32 / 4;
      const KeyRange all = a_.rule.OfAll(first, min(first + kWarpgroupRows, a_.seqlen_q) - 1, length);
      const auto soften = [&](Rows& rows, int j, float(&rescale)[2]) {
        if (j < all.begin || j + kKeys > all.end) LeaveOut(rows, row, j, thread % 4 * 2, length);
        Soften(rows, rescale);
      };
      Rows rows;
      rows.stats[0] = rows.stats[1] = {-INFINITY, 0};
      if (keys.begin < keys.end) {
        float rescale[2];
        q_ring_.AwaitFull(q_at);
        k_ring_.AwaitFull(k_at);
        WgmmaFence();
        MultiplyKeys(rows, half, k_at.stage);
        WgmmaWait<0>();
        Release(k_ring_, k_at, thread);
        Pin(rows.scores);
        soften(rows, keys.begin, rescale);
        PackWeights(rows);
        int j = keys.begin + kKeys;
#pragma unroll 1
        for (; j < keys.end; j += kKeys) {
          k_ring_.AwaitFull(k_at);
          v_ring_.AwaitFull(v_at);
          Fence(rows);
          MultiplyKeys(rows, half, k_at.stage);
          WgmmaFence();
          MultiplyValues(rows, v_at.stage, j > keys.begin + kKeys);
          WgmmaWait<1>();  // scores
          Release(k_ring_, k_at, thread);
          Pin(rows.scores);
          soften(rows, j, rescale);
          WgmmaWait<0>();  // o, and the weights have been read
          Release(v_ring_, v_at, thread);
          Pin(rows.o);
          Rescale(rows, rescale);
          PackWeights(rows);
        }
        Release(q_ring_, q_at, thread);
        v_ring_.AwaitFull(v_at);
        if (length < a_.seqlen_kv && length < j) ZeroValues(v_at.stage, length - (j - kKeys), half, thread);
        Fence(rows);
        MultiplyValues(rows, v_at.stage, j > keys.begin + kKeys);
        WgmmaWait<0>();
        Release(v_ring_, v_at, thread);
        Pin(rows.o);
      } else {
#pragma unroll
        for (float& x : rows.o) x = 0;
      }
      Finish(rows, tile, row, keys, length, thread % 32);
    });
  }

  template <class AnyRing, class Position>
  __device__ __forceinline__ static void Release(AnyRing& ring, Position& at, int thread) {
    if (thread == 0) ring.Release(at);
    at.Advance();
  }

  // Behind what has computed o and weights, before products with them.
  __device__ __forceinline__ static void Fence(Rows& rows) {
    Pin(rows.o);
#pragma unroll
    for (auto& words : rows.weights) Pin(words);
    WgmmaFence();
  }

  // scores = q kT.
  __device__ __forceinline__ void MultiplyKeys(Rows& rows, int half, int stage) {
    const uint64_t q = KMajor128(SharedAddress(shared_.q.box[0]) + half * kWarpgroupRows * Shape::kBoxRowBytes);
    const uint64_t k =
        Step(KMajor128(SharedAddress(shared_.k[0].box[0])), stage * static_cast<int>(sizeof(shared_.k[0])));
#pragma unroll
    for (int box = 0; box < Shape::kBoxes; ++box) {
#pragma unroll
      for (int byte = 0; byte < Shape::kBoxRowBytes; byte += 32) {
        Wgmma<kMath, kKeys>(rows.scores, Step(q, box * static_cast<int>(sizeof(shared_.q.box[0])) + byte),
                            Step(k, box * static_cast<int>(sizeof(shared_.k[0].box[0])) + byte), box + byte > 0);
      }
    }
    WgmmaCommit();
  }

  // o += weights * v; v's rows are of k, its channels neighbours: a box has 64 of them.
  __device__ __forceinline__ void MultiplyValues(Rows& rows, int stage, bool accumulate) {
    const uint64_t v = Step(
        Pack({SharedAddress(shared_.v[0].box[0]), sizeof(shared_.v[0].box[0]), 8 * Shape::kBoxRowBytes, Swizzle::k128}),
        stage * static_cast<int>(sizeof(shared_.v[0])));
#pragma unroll
    for (int i = 0; i < kKeys / kStepKeys; ++i) {
      Wgmma<kMath, kD, Major::kMn>(rows.o, rows.weights[i], Step(v, i * kStepKeys * Shape::kBoxRowBytes),
                                   accumulate || i > 0);
    }
    WgmmaCommit();
  }

  // Scores of keys that a row does not keep, of those from `key` on, become -inf. `column`: the lane's first one.
  __device__ __forceinline__ void LeaveOut(Rows& rows, int row, int key, int column, int length) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const KeyRange kept = a_.rule.Of(row + 8 * r, length);
      const int begin = kept.begin - key - column, end = kept.end - key - column;
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        if (RowOfSum(i) != r) continue;
        if (ColumnOfSum(i) < begin || ColumnOfSum(i) >= end) rows.scores[i] = -INFINITY;
      }
    }
  }

  // Scores become weights, relative to the maximum so far; `rescale` is for what was summed before.
  __device__ __forceinline__ void Soften(Rows& rows, float (&rescale)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float seen = -INFINITY;
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        if (RowOfSum(i) == r) seen = fmaxf(seen, rows.scores[i]);
      }
      SoftmaxStats& stats = rows.stats[r];
      rescale[r] = Raise(stats.max, MaxOverLanes<4>(seen) * a_.scale_log2);
      const float shift = ShiftOf(stats.max);
      float sum = 0;  // of this lane's columns: lanes are added at the end
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        if (RowOfSum(i) != r) continue;
        rows.scores[i] = FastExp2(fmaf(rows.scores[i], a_.scale_log2, -shift));
        sum += rows.scores[i];
      }
      stats.sum = fmaf(stats.sum, rescale[r], sum);
    }
  }

  __device__ __forceinline__ static void Rescale(Rows& rows, const float (&rescale)[2]) {
    if (!__any_sync(kAllLanes, rescale[0] != 1 || rescale[1] != 1)) return;
#pragma unroll
    for (int i = 0; i < kD / 2; ++i) rows.o[i] *= rescale[RowOfSum(i)];
  }

  // Eight sums of 16 keys, as the four words of a factor.
  __device__ __forceinline__ static void PackWeights(Rows& rows) {
#pragma unroll
    for (int i = 0; i < kSums; i += 2) {
      rows.weights[i / 8][i % 8 / 2] = PackPair(rows.scores[i], rows.scores[i + 1], T{});
    }
  }

  // Makes a tile of values zero from row `first` on, which lies behind the key length: it may be NaN. Either warpgroup
  // does it all and waits for itself: what the other one reads meanwhile is zero already.
  __device__ __forceinline__ void ZeroValues(int stage, int first, int half, int thread) {
#pragma unroll 1
    for (int i = first * 8 + thread; i < kKeys * 8; i += kWarpgroup) {
#pragma unroll
      for (int box = 0; box < Shape::kBoxes; ++box) {
        reinterpret_cast<uint4*>(shared_.v[stage].box[box])[i] = uint4{0, 0, 0, 0};
      }
    }
    FenceSharedStores();
    SyncNamed(1 + half, kWarpgroup);
  }

  // o leaves divided, 16 bytes to a lane at a time.
  __device__ __forceinline__ void Finish(Rows& rows, const HeadTile& tile, int row, const KeyRange& keys, int length,
                                         int lane) {
    uint32_t leaks = 0;  // a bit for each of the warp's rows
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      SoftmaxStats& stats = rows.stats[r];
      stats.sum = SumOverLanes<4>(stats.sum);
      const float inverse = InverseOf(stats.sum);
      const bool exists = row + 8 * r < a_.seqlen_q;
      T* to = OutputOf(tile, row + 8 * r) + lane % 4 * 8;
      bool nan = false;
#pragma unroll
      for (int c = 0; c < kD; c += 32) {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int sum = (c / 8 + i) * 4 + 2 * r;
          const float x = rows.o[sum] * inverse, y = rows.o[sum + 1] * inverse;
          nan |= x != x || y != y;
          words[i] = PackPair(x, y, T{});
        }
        QuadTranspose(words, lane);
        if (exists) *reinterpret_cast<uint4*>(to + c) = uint4{words[0], words[1], words[2], words[3]};
      }
      if (exists && lane % 4 == 0 && a_.lse != nullptr) {
        a_.lse[a_.FlatRow(tile.b, tile.head, row + 8 * r)] = LogSumExp(stats.max, stats.sum);
      }
      const uint32_t lanes = __ballot_sync(kAllLanes, exists && nan && stats.sum == stats.sum);
#pragma unroll
      for (int i = 0; i < 8; ++i) leaks |= (lanes >> 4 * i & 15) != 0 ? 1u << (8 * r + i) : 0;
    }
    if (leaks == 0) return;
    __syncwarp();  // o before it is written again
    const int first = row - lane / 4;
#pragma unroll 1
    for (int i = 0; i < 16; ++i) {
      const float max = __shfl_sync(kAllLanes, i < 8 ? rows.stats[0].max : rows.stats[1].max, i % 8 * 4);
      const float sum = __shfl_sync(kAllLanes, i < 8 ? rows.stats[0].sum : rows.stats[1].sum, i % 8 * 4);
      if ((leaks >> i & 1) == 0) continue;
      T* to = OutputOf(tile, first + i);
      RecomputeRow<T>(a_, QueryOf(a_, tile.b, tile.head, first + i, length), keys, 32, max, InverseOf(sum), lane,
                      [&](int c, float x) { FromFloat(x, to[c]); });
    }
  }

  __device__ __forceinline__ T* OutputOf(const HeadTile& tile, int row) {
    const HeadStrides& s = a_.o_strides;
    return static_cast<T*>(a_.o) + tile.b * s.batch + row * s.row + tile.head * s.head;
  }

  const AttentionArgs& a_;
  const WgmmaAttentionArgs& args_;
  Shared& shared_;
  QRing q_ring_;
  KvRing k_ring_, v_ring_;
};

template <Math kMath, int kD>
__global__ void __launch_bounds__(WgmmaAttentionShape<kD>::kThreads, 1)
    FlashWgmmaKernel(const __grid_constant__ WgmmaAttentionArgs a) {
  FlashWgmma<kMath, kD>(a, SharedMemory<typename FlashWgmma<kMath, kD>::Shared>()).Run();
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_ATTENTION_CUH_
