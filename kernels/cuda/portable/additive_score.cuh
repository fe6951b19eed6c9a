// Scores of additive attention, queries x keys, each from a row of c A and a row of E (additive_term.cuh): per element
// of the sum over units 3 floating-point operations, a minimum and a quarter of a reciprocal; tiles leave out the
// minimum where their largest exponentials show that it does nothing.
//   tiles   64 queries x 64 keys to a block, 4 x 4 to a thread; 32 units at a time of both operands through two stages
//           of shared memory. For many queries.
//   rows    1 or 4 queries x 4 keys to a warp, whose lanes share out the units; keys straight from global memory,
//           queries as exponentials in shared memory, 1024 units at a time. For decoder steps and small problems: many
//           blocks, and each key row is read once for its queries.
// Both then compute the scores of keys that are far by the direct formula, which trained models do not need.
// Budget: tiles 33 KB of shared memory, 80 registers, three blocks to an SM; rows 8 or 20 KB, 128 registers at most.
// Any sizes.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_ADDITIVE_SCORE_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_ADDITIVE_SCORE_CUH_

#include "kernels/cuda/core/swizzle.h"
#include "kernels/cuda/portable/additive_term.cuh"

namespace lamina::cuda {

inline constexpr int kScoreThreads = 256, kScoreWarps = kScoreThreads / 32;
inline constexpr int kScoreTile = 64;   // queries and keys of a tile
inline constexpr int kKeysPerWarp = 4;  // of rows
inline constexpr int kKeysPerBlock = kKeysPerWarp * kScoreWarps;
inline constexpr int kUnitsPerPass = 1024;
static_assert(kScoreTile == kMostBand);

// `query` counts within the band.
__device__ __forceinline__ void StoreScore(const AdditiveArgs& a, const Band& band, int query, int key, float score) {
  const bool* mask = MaskRow(a, band.batch, band.first + query);
  a.scores[(band.score_row + query) * a.score_stride + key] = mask != nullptr && !mask[key] ? -INFINITY : score;
}

struct ScoreStage {
  unsigned char query[kScoreTile * 128], key[kScoreTile * 128];  // rows of 32 units, swizzled
  float4 c[kUnitChunk / 4];
};

// The block's rows of a stage: 8 chunks of 16 bytes each, rows that do not exist as zeros.
__device__ __forceinline__ void LoadScoreStage(const AdditiveArgs& a, const float* query, int queries, const float* key,
                                               int keys, int unit, int thread, ScoreStage& stage) {
  const int chunk = thread % 8;
#pragma unroll
  for (int i = 0; i < kScoreTile * 8 / kScoreThreads; ++i) {
    const int row = thread / 8 + i * (kScoreThreads / 8);
    const int64_t at = int64_t{row} * a.unit_stride + unit + 4 * chunk;
    CopyAsync16(stage.query + Swizzle128(row, chunk), query + (row < queries ? at : 0), row < queries);
    CopyAsync16(stage.key + Swizzle128(row, chunk), key + (row < keys ? at : 0), row < keys);
  }
  if (thread < 8) CopyAsync16(&stage.c[thread], a.vectors.c + unit + 4 * thread, true);
  CopyAsyncCommit();
}

// A stage's part of 4 x 4 sums: of queries query_row + 16 i, keys key_column + 16 j.
template <bool kCapped>
__device__ __forceinline__ void AddChunk(const ScoreStage& stage, int query_row, int key_column, float (&sum)[4][4]) {
#pragma unroll 1
  for (int u = 0; u < kUnitChunk / 4; ++u) {
    const float4 c = stage.c[u];
    float4 q[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      q[i] = *reinterpret_cast<const float4*>(stage.query + Swizzle128(query_row + 16 * i, u));
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float4 k = *reinterpret_cast<const float4*>(stage.key + Swizzle128(key_column + 16 * j, u));
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i][j] = ReciprocalQuad<kCapped>(c, q[i], k, sum[i][j]);
    }
  }
}

// A block's tile: queries of a band, keys of its batch element.
struct ScoreTile {
  Band band;
  int first_key, keys;

  __device__ __forceinline__ int64_t query_row(const AdditiveArgs& a) const {
    return int64_t{band.batch} * a.queries + band.first;
  }
  __device__ __forceinline__ int64_t key_row(const AdditiveArgs& a) const {
    return int64_t{band.batch} * a.keys + first_key;
  }
};

struct TilesShared {
  ScoreStage stages[2];
  ScoreTile tile;
};

// Peaks of rows `lane` and `lane + 32` of a tile.
struct Peaks {
  __device__ __forceinline__ Peaks(const float* peaks, int rows, int lane)
      : low(lane < rows ? peaks[lane] : 0), high(lane + 32 < rows ? peaks[lane + 32] : 0) {}
  __device__ __forceinline__ float largest() const { return MaxOverLanes<32>(fmaxf(low, high)); }
  // A bit for each key that is far.
  __device__ __forceinline__ uint64_t far_bits() const {
    const uint32_t low_bits = __ballot_sync(kAllLanes, low == kFar), high_bits = __ballot_sync(kAllLanes, high == kFar);
    return low_bits | uint64_t{high_bits} << 32;
  }
  float low, high;
};

__device__ __forceinline__ void StoreTile(const AdditiveArgs& a, const ScoreTile& t, const float (&sum)[4][4],
                                          int query_row, int key_column, int lane, int warp) {
  const uint64_t far_bits = Peaks(a.key_peak + t.key_row(a), t.keys, lane).far_bits();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = query_row + 16 * i;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int column = key_column + 16 * j;
      if (row >= t.band.queries || column >= t.keys || (far_bits >> column & 1)) continue;
      StoreScore(a, t.band, row, t.first_key + column, a.vectors.quad_scale * sum[i][j]);
    }
  }
  for (int column = 0; column < t.keys && far_bits != 0; ++column) {
    if (!(far_bits >> column & 1)) continue;
    for (int row = warp; row < t.band.queries; row += kScoreWarps) {
      const float score = DirectScore(a, a.query + (t.query_row(a) + row) * a.unit_stride,
                                      a.key + (t.key_row(a) + column) * a.unit_stride, lane);
      if (lane == 0) StoreScore(a, t.band, row, t.first_key + column, score);
    }
  }
}

__global__ void __launch_bounds__(kScoreThreads, 3) AdditiveTilesKernel(const __grid_constant__ AdditiveArgs a) {
  AwaitEarlierKernels();
  TilesShared& shared = SharedMemory<TilesShared>();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const auto key_tiles = static_cast<int>(DivUp(a.keys, kScoreTile)), block = static_cast<int>(blockIdx.x);
  ScoreTile t = {BandOf(a, block / key_tiles), block % key_tiles * kScoreTile, 0};
  t.keys = min(LiveKeys(a, t.band.batch) - t.first_key, kScoreTile);
  if (t.keys <= 0) return;
  if (thread == 0) shared.tile = t;  // for the end, so that no register holds it meanwhile
  const float* query = a.query_exponential + t.query_row(a) * a.unit_stride;
  const float* key = a.key + t.key_row(a) * a.unit_stride;
  LoadScoreStage(a, query, t.band.queries, key, t.keys, 0, thread, shared.stages[0]);
  // Every warp finds the same.
  const float largest = Peaks(a.query_peak + t.query_row(a), t.band.queries, lane).largest() *
                        Peaks(a.key_peak + t.key_row(a), t.keys, lane).largest();
  const bool capped = !(largest <= kUncappedProduct);

  // This thread's queries: row % 16 == thread / 16, keys: row % 16 == thread % 16.
  float sum[4][4] = {};
  const int chunks = a.unit_stride / kUnitChunk;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    CopyAsyncWait<0>();
    __syncthreads();  // this chunk has arrived for all, and all are done with the one before
    if (chunk + 1 < chunks) {
      LoadScoreStage(a, query, t.band.queries, key, t.keys, (chunk + 1) * kUnitChunk, thread,
                     shared.stages[(chunk + 1) % 2]);
    }
    const ScoreStage& stage = shared.stages[chunk % 2];
    capped ? AddChunk<true>(stage, thread / 16, thread % 16, sum)
           : AddChunk<false>(stage, thread / 16, thread % 16, sum);
  }
  StoreTile(a, shared.tile, sum, thread / 16, thread % 16, lane, thread / 32);
}

template <int kQueries>
struct RowsShared {
  float4 c[kUnitsPerPass / 4], query[kQueries][kUnitsPerPass / 4];
  float largest[kScoreWarps];  // of the queries' exponentials, as each warp has seen them
};

// A pass's part of a warp's sums, [query][key], keys from their first unit of the pass on.
template <bool kCapped, int kQueries>
__device__ __forceinline__ void AddPass(const RowsShared<kQueries>& shared, int quads,
                                        const float* const (&key)[kKeysPerWarp], int first_unit, int lane,
                                        float (&sum)[kQueries * kKeysPerWarp]) {
#pragma unroll 1
  for (int i = lane; i < quads; i += 32) {
    float4 e[kKeysPerWarp];
#pragma unroll
    for (int k = 0; k < kKeysPerWarp; ++k) e[k] = Load4(key[k] + first_unit + 4 * i);
    const float4 c = shared.c[i];
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      const float4 x = shared.query[q][i];
#pragma unroll
      for (int k = 0; k < kKeysPerWarp; ++k) {
        float& s = sum[q * kKeysPerWarp + k];
        s = ReciprocalQuad<kCapped>(c, x, e[k], s);
      }
    }
  }
}

template <int kQueries>
__global__ void __launch_bounds__(kScoreThreads, 2) AdditiveRowsKernel(const __grid_constant__ AdditiveArgs a) {
  AwaitEarlierKernels();
  RowsShared<kQueries>& shared = SharedMemory<RowsShared<kQueries>>();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const auto key_blocks = static_cast<int>(DivUp(a.keys, kKeysPerBlock)), block = static_cast<int>(blockIdx.x);
  const auto groups = static_cast<int>(DivUp(a.band, kQueries));  // of a band's queries
  const Band band = BandOf(a, block / key_blocks / groups);
  const int first = block / key_blocks % groups * kQueries, queries = min(band.queries - first, kQueries);
  const int block_key = block % key_blocks * kKeysPerBlock, live = LiveKeys(a, band.batch);
  if (queries <= 0 || block_key >= live) return;
  const int first_key = block_key + warp * kKeysPerWarp, keys = min(live - first_key, kKeysPerWarp);
  const float* query = a.query + (int64_t{band.batch} * a.queries + band.first + first) * a.unit_stride;
  const int64_t key_row = int64_t{band.batch} * a.keys + first_key;
  const float* key[kKeysPerWarp];  // of a key that is not there: another's
#pragma unroll
  for (int k = 0; k < kKeysPerWarp; ++k) key[k] = a.key + (key_row + (k < keys ? k : 0)) * a.unit_stride;

  const float key_peak = lane < keys ? a.key_peak[key_row + lane] : 0;

  float sum[kQueries * kKeysPerWarp] = {};
  for (int first_unit = 0; first_unit < a.unit_stride; first_unit += kUnitsPerPass) {
    const int quads = min(a.unit_stride - first_unit, kUnitsPerPass) / 4;
    __syncthreads();  // all are done with the units before
    float most = 0;
    for (int i = thread; i < quads; i += kScoreThreads) {
      const int unit = first_unit + 4 * i;
      shared.c[i] = Load4(a.vectors.c + unit);
      const float4 factor = Load4(a.vectors.factor + unit);
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        if (q >= queries) continue;
        const float4 x = Load4(query + int64_t{q} * a.unit_stride + unit);
        const auto exponential = [&](int u, float value, float f) {
          return unit + u < a.units ? QueryExponential(value, f) : 0.0f;
        };
        const float4 e = make_float4(exponential(0, x.x, factor.x), exponential(1, x.y, factor.y),
                                     exponential(2, x.z, factor.z), exponential(3, x.w, factor.w));
        shared.query[q][i] = e;
        most = fmaxf(fmaxf(fmaxf(e.x, e.y), fmaxf(e.z, e.w)), most);
      }
    }
    most = MaxOverLanes<32>(most);
    if (lane == 0) shared.largest[warp] = most;
    __syncthreads();
    const float largest = MaxOverLanes<32>(lane < kScoreWarps ? shared.largest[lane] : 0);
    if (keys <= 0) continue;
    if (largest * MaxOverLanes<32>(key_peak) <= kUncappedProduct) {
      AddPass<false>(shared, quads, key, first_unit, lane, sum);
    } else {
      AddPass<true>(shared, quads, key, first_unit, lane, sum);
    }
  }
  if (keys <= 0) return;

  const uint32_t far_bits = __ballot_sync(kAllLanes, key_peak == kFar);
  constexpr int kLanesPerSum = 32 / (kQueries * kKeysPerWarp);
  const float score = a.vectors.quad_scale * SumEachOverLanes(sum, lane);
  const int mine = lane / kLanesPerSum, my_query = mine / kKeysPerWarp, my_key = mine % kKeysPerWarp;
  if (lane % kLanesPerSum == 0 && my_query < queries && my_key < keys && !(far_bits >> my_key & 1)) {
    StoreScore(a, band, first + my_query, first_key + my_key, score);
  }
  for (int k = 0; k < keys; ++k) {
    if (!(far_bits >> k & 1)) continue;
    for (int q = 0; q < queries; ++q) {
      const float direct =
          DirectScore(a, query + int64_t{q} * a.unit_stride, a.key + (key_row + k) * a.unit_stride, lane);
      if (lane == 0) StoreScore(a, band, first + q, first_key + k, direct);
    }
  }
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_ADDITIVE_SCORE_CUH_
