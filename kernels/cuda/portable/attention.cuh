// Attention over tiles of keys with a running softmax (Dao, "FlashAttention-2", 2023), for any GPU from sm_80 on.
//   A block has kRows rows of one unit (core/attention.h). For each tile of keys: q kT by WarpTile, the rules and
//   biases of the scores, weights exp2(score - maximum), and o += weights * v. v arrives while scores are formed, the
//   next k while o is. Tiles that no row keeps a key of are never read, keys behind them read as zeros. A key that a
//   row does not keep has weight 0, and 0 * NaN is NaN: where such a value reaches o, but not the sum of the weights,
//   the row is computed once more without it (attention_query.cuh).
//   flash: kRowWarps warps, each with its own rows and all keys; o leaves divided.
//   split_kv, for few rows: warps share them and have keys of their own; a grid's dimension has other keys again. What
//   each warp saw (maximum, sum, o) goes to workspace, where AttentionMergeKernel puts it together.
// Shared memory: q + k + v, at most 96 KiB. Registers: o and scores, kWarpM * (kD + kWarpKeys) / 32 of at most 255.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_ATTENTION_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_ATTENTION_CUH_

#include "kernels/cuda/portable/attention_query.cuh"
#include "kernels/cuda/portable/attention_tile.cuh"

namespace lamina::cuda {

// Of products kOf and rows padded to kChannels channels.
template <Math kOf, int kChannels, bool kOfKeys>
struct AttentionShape {
  static constexpr Math kMath = kOf;
  static constexpr int kD = kChannels;
  static constexpr bool kSplit = kOfKeys;
  using T = ElementOf<kMath>;
  static constexpr int kRowBytes = kD * static_cast<int>(sizeof(T));
  static constexpr int kWarpM = kSplit || kD == 256 || kMath == Math::kF32 ? 16 : 32;
  static constexpr int kRowWarps = kSplit ? 1 : kRowBytes == 1024 ? 2 : 4;
  static constexpr int kKeyWarps = !kSplit || kRowBytes == 1024 ? 1 : kRowBytes == 512 ? 2 : 4;
  static constexpr int kWarpKeys = kSplit || kMath == Math::kF32 || kD == 128 ? 32 : 64;
  static constexpr int kRows = kWarpM * kRowWarps, kKeys = kWarpKeys * kKeyWarps;
  static constexpr int kThreads = 32 * kRowWarps * kKeyWarps;
  struct Shared {
    AttentionTile<T, kRows, kD> q;
    AttentionTile<T, kKeys, kD> k, v;
    SoftmaxStats stats[kRowWarps * kKeyWarps][kWarpM];
  };
  static constexpr int kSharedBytes = static_cast<int>(sizeof(Shared));
  static_assert(kSharedBytes <= 99 * 1024, "what a block of any GPU can have");
};

// What a block works on. Blocks start with a unit's tiles, so that those which run at one time share its keys in L2;
// the last first, for under a causal rule they are the longest.
struct AttentionPlace {
  int b, unit, split, tile;
};
LAMINA_HD AttentionPlace PlaceOf(const AttentionArgs& a, int block, int tiles) {
  const int split = block / tiles, unit = split / a.splits;
  return {unit / a.units(), unit % a.units(), split % a.splits, tiles - 1 - block % tiles};
}

template <class T>
__device__ __forceinline__ T* OutputRow(const AttentionArgs& a, const Query& at) {
  return static_cast<T*>(a.o) + at.b * a.o_strides.batch + at.i * a.o_strides.row + at.head * a.o_strides.head;
}

// Scores from products where more is to them than a factor: softcap, biases, rules. `first` is the row of the unit that
// the warp's first is, `key` the warp's first key.
template <class Scores>
__device__ __forceinline__ void ShapeScores(const AttentionArgs& a, const AttentionPlace& at, int first, int key,
                                            int length, bool cut, int lane, Scores& s) {
  if (!a.plain()) {
#pragma unroll
    for (int r = 0; r < Scores::kRows; ++r) {
#pragma unroll
      for (int c = 0; c < Scores::kColumns; ++c) s.At(r, c) = ScaledScore(a, s.At(r, c));
    }
  }
  if (!cut && a.mask == nullptr && a.bias == nullptr && a.alibi_slopes == nullptr) return;
#pragma unroll
  for (int r = 0; r < Scores::kRows; ++r) {
    const Query query = QueryOf(a, at.b, at.unit, first + 8 * r + lane / 4, length);
    const auto each = [&](const auto& f) {
#pragma unroll
      for (int c = 0; c < Scores::kColumns; ++c) {
        const int j = key + Scores::Column(lane, c);
        f(s.At(r, c), j, j >= query.keys.begin && j < query.keys.end);
      }
    };
    if (a.bias != nullptr) {
      const float* bias = a.bias + PlaneRow(a.bias_strides, query);
      each([&](float& x, int j, bool kept) { x = kept ? WithBias(x, bias[j]) : x; });
    }
    if (a.alibi_slopes != nullptr) {
      const float slope = query.keys.begin < query.keys.end ? a.alibi_slopes[query.head] : 0.0f;
      each([&](float& x, int j, bool) { x = WithAlibi(x, slope, j, query.origin); });
    }
    if (a.mask != nullptr) {
      const bool* mask = a.mask + PlaneRow(a.mask_strides, query);
      each([&](float& x, int j, bool kept) { x = kept && mask[j] ? x : -INFINITY; });
    } else {
      each([&](float& x, int, bool kept) { x = kept ? x : -INFINITY; });
    }
  }
}

// Scores (times `factor`, still) become weights; o and the sums of before are rescaled where a maximum grew.
template <class Scores, class Output>
__device__ __forceinline__ void RunningSoftmax(float factor, Scores& s, SoftmaxStats (&stats)[Scores::kRows],
                                               Output& o) {
  float rescale[Scores::kRows];
  bool grew = false;
#pragma unroll
  for (int r = 0; r < Scores::kRows; ++r) {
    float seen = s.At(r, 0);
#pragma unroll
    for (int c = 1; c < Scores::kColumns; ++c) seen = fmaxf(seen, s.At(r, c));
    rescale[r] = Raise(stats[r].max, MaxOverLanes<4>(seen) * factor);
    grew |= rescale[r] != 1;
    const float shift = ShiftOf(stats[r].max);
    float sum = 0;  // of this lane's columns: lanes are added at the end
#pragma unroll
    for (int c = 0; c < Scores::kColumns; ++c) {
      const float weight = FastExp2(fmaf(s.At(r, c), factor, -shift));
      s.At(r, c) = weight;
      sum += weight;
    }
    stats[r].sum = fmaf(stats[r].sum, rescale[r], sum);
  }
  if (__any_sync(kAllLanes, grew)) {
#pragma unroll
    for (int r = 0; r < Scores::kRows; ++r) {
#pragma unroll
      for (int n = 0; n < Output::kPieces; ++n) {
#pragma unroll
        for (int e = 0; e < Output::kPiece; ++e) o.At(r, n, e) *= rescale[r];
      }
    }
  }
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1) AttentionKernel(const __grid_constant__ AttentionArgs a) {
  AwaitEarlierKernels();
  constexpr bool kSplit = Shape::kSplit;
  using T = typename Shape::T;
  using Scores = WarpTile<Shape::kMath, Shape::kWarpM, Shape::kWarpKeys>;
  using Output = WarpOutput<Shape::kMath, Shape::kWarpM, Shape::kD>;
  auto& shared = SharedMemory<typename Shape::Shared>();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const AttentionPlace at = PlaceOf(a, static_cast<int>(blockIdx.x), static_cast<int>(DivUp(a.rows(), Shape::kRows)));
  const int length = KeyLengthOf(a, at.b),
            kv_head = static_cast<int>(a.group.Quotient(static_cast<uint32_t>(at.unit * a.stack)));
  const int first = at.tile * Shape::kRows, rows = min(Shape::kRows, a.rows() - first);
  const KeyRange queries = QueriesOf(a, first, first + rows - 1);
  const KeyRange all = a.rule.OfAll(queries.begin, queries.end, length);
  const KeyRange keys = SplitOf(a.rule.OfAny(queries.begin, queries.end, length), Shape::kKeys, a.splits, at.split);

  const auto load_k = [&](int j) {
    shared.k.template Load<Shape::kThreads>(keys.end - j, a.head_dim, a.k_chunks, Opaque(thread), [&](int row) {
      return RowOf<T>(a.k, a.k_strides, at.b, j + row, kv_head);
    });
  };
  shared.q.template Load<Shape::kThreads>(rows, a.head_dim, a.q_chunks, thread, [&](int row) {
    const auto in_unit = static_cast<int>(a.queries.Quotient(static_cast<uint32_t>(first + row)));
    return RowOf<T>(a.q, a.q_strides, at.b, first + row - in_unit * a.seqlen_q, at.unit * a.stack + in_unit);
  });
  if (keys.begin < keys.end) load_k(keys.begin);
  CopyAsyncCommit();

  const int warp_row = warp / Shape::kKeyWarps * Shape::kWarpM, warp_key = warp % Shape::kKeyWarps * Shape::kWarpKeys;
  Output o;
  SoftmaxStats stats[Scores::kRows];
#pragma unroll
  for (SoftmaxStats& s : stats) s = {-INFINITY, 0};
#pragma unroll 1
  for (int j = keys.begin; j < keys.end; j += Shape::kKeys) {
    CopyAsyncWait<0>();
    __syncthreads();  // k has arrived for all, and all are done with v
    shared.v.template Load<Shape::kThreads>(keys.end - j, a.value_dim, a.v_chunks, Opaque(thread), [&](int row) {
      return RowOf<T>(a.v, a.v_strides, at.b, j + row, kv_head);
    });
    CopyAsyncCommit();
    Scores s;
    s.Clear();
#pragma unroll 1
    for (int slab = 0; slab < Shape::kRowBytes / kStepBytes; ++slab) {
      s.Step(shared.q.Slab(slab), warp_row, shared.k.Slab(slab), warp_key, lane);
    }
    ShapeScores(a, at, Opaque(first + warp_row), j + warp_key, length, j < all.begin || j + Shape::kKeys > all.end,
                lane, s);
    RunningSoftmax(a.plain() ? a.scale_log2 : 1.0f, s, stats, o);
    CopyAsyncWait<0>();
    __syncthreads();  // v has arrived for all, and all are done with k
    if (j + Shape::kKeys < keys.end) load_k(j + Shape::kKeys);
    CopyAsyncCommit();
    o.Add(s, shared.v, warp_key, lane);
  }
  CopyAsyncWait<0>();

  const int part = at.split * Shape::kKeyWarps + warp % Shape::kKeyWarps;
  const auto part_channels = static_cast<int>(PartChannels(a.value_dim));
  uint32_t leaks = 0;  // a bit for each of the warp's rows
#pragma unroll
  for (int r = 0; r < Scores::kRows; ++r) {
    stats[r].sum = SumOverLanes<4>(stats[r].sum);
    const int in_warp = 8 * r + lane / 4, row = first + warp_row + in_warp;
    const float inverse = kSplit ? 1.0f : InverseOf(stats[r].sum);
    const bool exists = row < a.rows();
    const int64_t flat = a.FlatRow(at.b, at.unit, row);
    const Query query = QueryOf(a, at.b, at.unit, row, length);
    T* to = OutputRow<T>(a, query);
    bool nan = false;
#pragma unroll
    for (int n = 0; n < Output::kPieces; ++n) {
      float piece[Output::kPiece];
#pragma unroll
      for (int e = 0; e < Output::kPiece; ++e) {
        piece[e] = o.At(r, n, e) * inverse;
        nan |= piece[e] != piece[e];
      }
      if (!exists) continue;
      const int channel = Output::Channel(lane, n);
      if constexpr (kSplit) {
        StorePiece(piece, a.part_o + (flat * a.parts + part) * part_channels, channel, part_channels, true);
      } else {
        StorePiece(piece, to, channel, a.value_dim, a.o_pieces);
      }
    }
    if (lane % 4 == 0) {
      shared.stats[warp][in_warp] = stats[r];
      if (exists && kSplit) a.part_stats[flat * a.parts + part] = stats[r];
      if (exists && !kSplit && a.lse != nullptr) a.lse[flat] = LogSumExp(stats[r].max, stats[r].sum);
      if (exists && !kSplit && a.stats != nullptr) a.stats[flat] = stats[r];
    }
    const uint32_t lanes = __ballot_sync(kAllLanes, exists && nan && stats[r].sum == stats[r].sum);
#pragma unroll
    for (int i = 0; i < 8; ++i) leaks |= (lanes >> 4 * i & 15) != 0 ? 1u << (8 * r + i) : 0;
  }
  if (leaks == 0) return;
  __syncwarp();  // stats, and o before it is written again
#pragma unroll 1
  for (int i = 0; i < Shape::kWarpM; ++i) {
    if ((leaks >> i & 1) == 0) continue;
    const int row = first + warp_row + i;
    const Query query = QueryOf(a, at.b, at.unit, row, length);
    const SoftmaxStats seen = shared.stats[warp][i];
    if constexpr (kSplit) {
      float* to = a.part_o + (a.FlatRow(at.b, at.unit, row) * a.parts + part) * part_channels;
      static_assert(!kSplit || Shape::kWarpKeys == 32, "of every tile, this warp's keys");
      RecomputeRow<T>(a, query, {keys.begin + warp_key, keys.end}, Shape::kKeys, seen.max, 1.0f, lane,
                      [&](int c, float x) { to[c] = x; });
    } else {
      T* to = OutputRow<T>(a, query);
      RecomputeRow<T>(a, query, keys, 32, seen.max, InverseOf(seen.sum), lane,
                      [&](int c, float x) { FromFloat(x, to[c]); });
    }
  }
}

// Puts together what `parts` warps saw of a row, a block to a row: warps take parts in turn, lanes channels.
inline constexpr int kMergeWarps = 8;
struct MergeShared {
  float o[kMergeWarps][256];
};
template <class T>
__global__ void __launch_bounds__(32 * kMergeWarps) AttentionMergeKernel(const __grid_constant__ AttentionArgs a) {
  AwaitEarlierKernels();
  auto& shared = SharedMemory<MergeShared>();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const auto flat = static_cast<int>(blockIdx.x);
  const SoftmaxStats* seen = a.part_stats + int64_t{flat} * a.parts;
  SoftmaxStats stats = {-INFINITY, 0};
  for (int p = lane; p < a.parts; p += 32) stats.max = fmaxf(stats.max, seen[p].max);
  stats.max = MaxOverLanes<32>(stats.max);
  const float shift = ShiftOf(stats.max);
  for (int p = lane; p < a.parts; p += 32) stats.sum = fmaf(FastExp2(seen[p].max - shift), seen[p].sum, stats.sum);
  stats.sum = SumOverLanes<32>(stats.sum);

  const auto channels = static_cast<int>(PartChannels(a.value_dim));
  const float* o = a.part_o + int64_t{flat} * a.parts * channels;
  for (int c = 4 * lane; c < channels; c += 128) {
    float4 sum = {};
#pragma unroll 4
    for (int p = warp; p < a.parts; p += kMergeWarps) {
      const float weight = FastExp2(seen[p].max - shift);
      const float4 x = Load4(o + int64_t{p} * channels + c);
      sum.x = fmaf(weight, x.x, sum.x);
      sum.y = fmaf(weight, x.y, sum.y);
      sum.z = fmaf(weight, x.z, sum.z);
      sum.w = fmaf(weight, x.w, sum.w);
    }
    Store4(sum, shared.o[warp] + c);
  }
  __syncthreads();
  const int row_unit = flat / a.rows(), b = row_unit / a.units();
  const Query query = QueryOf(a, b, row_unit - b * a.units(), flat - row_unit * a.rows(), 0);
  T* to = OutputRow<T>(a, query);
  const float inverse = InverseOf(stats.sum);
  for (int c = thread; c < a.value_dim; c += 32 * kMergeWarps) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kMergeWarps; ++w) sum += shared.o[w][c];
    FromFloat(sum * inverse, to[c]);
  }
  if (thread == 0 && a.lse != nullptr) a.lse[flat] = LogSumExp(stats.max, stats.sum);
  if (thread == 0 && a.stats != nullptr) a.stats[flat] = stats;
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_ATTENTION_CUH_
