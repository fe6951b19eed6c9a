// Softmax of rows of scores and what it weighs: context = sum over keys of p value, weights = p.
//   A block has 1, 4 or 16 queries of a band and 64 columns of the values. It reads its queries' scores for their
//   maxima, then 256 keys at a time for p = exp2(score - max), which goes through shared memory to 16 groups of
//   threads, each with every 16th key: 4 columns x all queries to a thread, values straight from global memory. The
//   groups' sums are added in a fixed order. Blocks of the first columns write the weights.
// A masked key has p = -1: its values are not read or, where masks differ between queries, not multiplied.
// Budget: 32 KB of shared memory (16 queries) or 8; 64 sums, 16 values: 128 registers at most, two blocks to an SM.
// Any sizes.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_ADDITIVE_CONTEXT_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_ADDITIVE_CONTEXT_CUH_

#include <type_traits>

#include "kernels/cuda/core/additive.h"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/device/vec.cuh"

namespace lamina::cuda {

inline constexpr int kContextThreads = 256, kContextWarps = kContextThreads / 32;
inline constexpr int kContextColumns = 64, kContextKeys = 256;
inline constexpr int kColumnQuads = kContextColumns / 4, kKeyGroups = kContextThreads / kColumnQuads;

template <int kQueries>
struct ContextShared {
  // 4 floats more than 16 put neighbouring keys on different banks.
  static constexpr int kPitch = kQueries == 16 ? 20 : kQueries;
  union {
    alignas(16) float p[kContextKeys][kPitch];
    float4 sum[kContextWarps][kQueries][kColumnQuads];
  };
  float partial[kContextWarps], inverse[kQueries];
};

// op over the kThreads neighbouring threads that share a row, for each of them to have. All threads of the block.
template <int kThreads, class Op>
__device__ __forceinline__ float OverRow(float x, float* partial, int thread, const Op& op) {
#pragma unroll
  for (int step = 1; step < (kThreads < 32 ? kThreads : 32); step *= 2) {
    x = op(x, __shfl_xor_sync(kAllLanes, x, step));
  }
  if constexpr (kThreads > 32) {
    __syncthreads();
    if (thread % 32 == 0) partial[thread / 32] = x;
    __syncthreads();
    const float* mine = partial + thread / kThreads * (kThreads / 32);
    x = mine[0];
#pragma unroll
    for (int i = 1; i < kThreads / 32; ++i) x = op(x, mine[i]);
  }
  return x;
}

// Adds up to kContextKeys keys' values, rows `stride` apart of which this thread has four columns.
template <bool kOwnMasks, bool kQuads, class T, int kQueries>
__device__ __forceinline__ void AddValues(const ContextShared<kQueries>& shared, int keys, const T* value,
                                          int64_t stride, int columns_left, int group, float4 (&sum)[kQueries]) {
  constexpr int kAhead = kQueries == 16 ? 2 : 4;  // rows of values that are under way together
#pragma unroll 1
  for (int first = group; first < keys; first += kAhead * kKeyGroups) {
    float4 v[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int key = first + i * kKeyGroups;
      const T* row = value + key * stride;
      const bool live = key < keys && (kOwnMasks || !(shared.p[key][0] < 0));
      v[i] = make_float4(0, 0, 0, 0);
      if (kQuads) {
        if (live && columns_left > 0) v[i] = Load4(row);
      } else if (live) {
        if (columns_left > 0) v[i].x = ToFloat(row[0]);
        if (columns_left > 1) v[i].y = ToFloat(row[1]);
        if (columns_left > 2) v[i].z = ToFloat(row[2]);
        if (columns_left > 3) v[i].w = ToFloat(row[3]);
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const float* p = shared.p[first + i * kKeyGroups];
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        if (kOwnMasks && p[q] < 0) continue;
        sum[q].x = fmaf(p[q], v[i].x, sum[q].x);
        sum[q].y = fmaf(p[q], v[i].y, sum[q].y);
        sum[q].z = fmaf(p[q], v[i].z, sum[q].z);
        sum[q].w = fmaf(p[q], v[i].w, sum[q].w);
      }
    }
  }
}

template <class T, int kQueries>
__global__ void __launch_bounds__(kContextThreads, 2) AdditiveContextKernel(const __grid_constant__ AdditiveArgs a) {
  AwaitEarlierKernels();
  using Shared = ContextShared<kQueries>;
  Shared& shared = SharedMemory<Shared>();
  constexpr int kPerRow = kContextThreads / kQueries;  // threads that share a row of scores
  const int thread = static_cast<int>(threadIdx.x);
  const auto column_blocks = static_cast<int>(DivUp(a.dim, kContextColumns));
  const auto groups = static_cast<int>(DivUp(a.band, kQueries));  // of a band's queries
  const int block = static_cast<int>(blockIdx.x);
  const Band band = BandOf(a, block / column_blocks / groups);
  const int first = block / column_blocks % groups * kQueries, queries = min(band.queries - first, kQueries);
  if (queries <= 0) return;
  const int column = block % column_blocks * kContextColumns + thread % kColumnQuads * 4,
            keys = LiveKeys(a, band.batch);
  const int64_t first_row = int64_t{band.batch} * a.queries + band.first + first;

  const int row = thread / kPerRow, in_row = thread % kPerRow;
  const float* scores = a.scores + (band.score_row + first + row) * a.score_stride;
  const int row_keys = row < queries ? keys : 0;
  float max = -INFINITY;
  for (int j = in_row; j < row_keys; j += kPerRow) max = fmaxf(max, scores[j]);
  max = OverRow<kPerRow>(max, shared.partial, thread, [](float x, float y) { return fmaxf(x, y); });
  const float shift = ShiftOf(max);

  float row_sum = 0;
  float4 sum[kQueries] = {};
  const bool own_masks = a.mask != nullptr && a.mask_queries > 1;
  const T* values = static_cast<const T*>(a.values) + int64_t{band.batch} * a.keys * a.value_stride + column;
  for (int first_key = 0; first_key < keys; first_key += kContextKeys) {
    __syncthreads();  // all are done with the keys before
    for (int j = in_row; j < kContextKeys; j += kPerRow) {
      const float score = first_key + j < row_keys ? scores[first_key + j] : -INFINITY;
      const float p = score == -INFINITY ? -1 : FastExp2(score - shift);
      row_sum += p < 0 ? 0 : p;
      shared.p[j][row] = p;
    }
    __syncthreads();
    const auto add = [&](auto own, auto quads) {
      AddValues<own.value, quads.value>(shared, min(keys - first_key, kContextKeys),
                                        values + first_key * a.value_stride, a.value_stride, a.dim - column,
                                        thread / kColumnQuads, sum);
    };
    using std::false_type, std::true_type;
    if (own_masks) {
      a.value_quads ? add(true_type(), true_type()) : add(true_type(), false_type());
    } else {
      a.value_quads ? add(false_type(), true_type()) : add(false_type(), false_type());
    }
  }
  row_sum = OverRow<kPerRow>(row_sum, shared.partial, thread, [](float x, float y) { return x + y; });
  const float inverse = InverseOf(row_sum);
  if (a.weights != nullptr && block % column_blocks == 0 && row < queries) {
    float* weights = a.weights + (first_row + row) * a.keys;
    for (int j = in_row; j < a.keys; j += kPerRow) {
      const float score = j < keys ? scores[j] : -INFINITY;
      weights[j] = score == -INFINITY ? 0 : FastExp2(score - shift) * inverse;
    }
  }

  __syncthreads();  // all are done with p, whose place the groups' sums take
  if (in_row == 0) shared.inverse[row] = inverse;
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {  // the two groups of a warp
    sum[q].x += __shfl_xor_sync(kAllLanes, sum[q].x, 16);
    sum[q].y += __shfl_xor_sync(kAllLanes, sum[q].y, 16);
    sum[q].z += __shfl_xor_sync(kAllLanes, sum[q].z, 16);
    sum[q].w += __shfl_xor_sync(kAllLanes, sum[q].w, 16);
    if (thread % 32 < kColumnQuads) shared.sum[thread / 32][q][thread % kColumnQuads] = sum[q];
  }
  __syncthreads();
  const int q = thread / kColumnQuads;
  if (q >= queries || column >= a.dim) return;
  float4 total = shared.sum[0][q][thread % kColumnQuads];
#pragma unroll
  for (int warp = 1; warp < kContextWarps; ++warp) {
    const float4 other = shared.sum[warp][q][thread % kColumnQuads];
    total.x += other.x, total.y += other.y, total.z += other.z, total.w += other.w;
  }
  const float scale = shared.inverse[q];
  const float out[4] = {total.x * scale, total.y * scale, total.z * scale, total.w * scale};
  T* context = static_cast<T*>(a.context) + (first_row + q) * a.context_stride + column;
  if (a.context_quads) {
    Store4(make_float4(out[0], out[1], out[2], out[3]), context);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (column + i < a.dim) FromFloat(out[i], context[i]);
    }
  }
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_ADDITIVE_CONTEXT_CUH_
