// One warp and one query: scores of 32 keys at a time, a key to a lane, in f32. What is rare is computed so, without
// tiles: the weights that attention hands out on request, and the outputs of rows that NaN may have leaked into.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_ATTENTION_QUERY_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_ATTENTION_QUERY_CUH_

#include "kernels/cuda/core/attention.h"
#include "kernels/cuda/device/lanes.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/device/vec.cuh"

namespace lamina::cuda {

// The keys that batch element b has.
__device__ __forceinline__ int KeyLengthOf(const AttentionArgs& a, int b) {
  return a.key_lengths == nullptr ? a.key_length : max(0, min(a.key_lengths[b], a.seqlen_kv));
}

template <class T>
__device__ __forceinline__ const T* RowOf(const void* data, const HeadStrides& s, int b, int row, int head) {
  return static_cast<const T*>(data) + b * s.batch + row * s.row + head * s.head;
}

// softcap(scale * product), times log2(e).
__device__ __forceinline__ float ScaledScore(const AttentionArgs& a, float product) {
  return a.cap > 0 ? a.cap * kLog2E * tanhf(product * a.scale_by_cap) : product * a.scale_log2;
}
// What is added to it for key j.
__device__ __forceinline__ float WithBias(float score, float bias) { return fmaf(bias, kLog2E, score); }
__device__ __forceinline__ float WithAlibi(float score, float slope, int j, int origin) {
  return fmaf(slope * kLog2E, static_cast<float>(j - origin), score);
}

// The row of a mask's or bias's plane.
__device__ __forceinline__ int64_t PlaneRow(const HeadStrides& s, const Query& at) {
  return at.b * s.batch + at.head * s.head + at.i * s.row;
}

// The score of key j; -inf where it is not kept, whose key is not read.
template <class T>
__device__ __forceinline__ float ScoreOf(const AttentionArgs& a, const Query& at, int j) {
  if (j < at.keys.begin || j >= at.keys.end) return -INFINITY;
  if (a.mask != nullptr && !a.mask[PlaneRow(a.mask_strides, at) + j]) return -INFINITY;
  const T* q = RowOf<T>(a.q, a.q_strides, at.b, at.i, at.head);
  const T* k = RowOf<T>(a.k, a.k_strides, at.b, j, at.kv_head);
  float sum = 0;
  if (a.q_chunks && a.k_chunks) {
#pragma unroll 4
    for (int c = 0; c < a.head_dim; c += 4) {
      const float4 x = Load4(q + c), y = Load4(k + c);
      sum = fmaf(x.x, y.x, sum);
      sum = fmaf(x.y, y.y, sum);
      sum = fmaf(x.z, y.z, sum);
      sum = fmaf(x.w, y.w, sum);
    }
  } else {
#pragma unroll 4
    for (int c = 0; c < a.head_dim; ++c) sum = fmaf(ToFloat(q[c]), ToFloat(k[c]), sum);
  }
  float score = ScaledScore(a, sum);
  if (a.bias != nullptr) score = WithBias(score, a.bias[PlaneRow(a.bias_strides, at) + j]);
  if (a.alibi_slopes != nullptr) score = WithAlibi(score, a.alibi_slopes[at.head], j, at.origin);
  return score;
}

// o[c] = inverse * sum of exp2(score - max) * v[c] over the kept ones of 32 keys from every `step`th of `keys` on, with
// nothing multiplied that is not kept; store(channel, value) gets every channel once.
template <class T, class Store>
__device__ __forceinline__ void RecomputeRow(const AttentionArgs& a, const Query& at, KeyRange keys, int step,
                                             float max, float inverse, int lane, const Store& store) {
#pragma unroll 1
  for (int c0 = 0; c0 < a.value_dim; c0 += 32) {
    const int c = c0 + lane;
    float sum = 0;
#pragma unroll 1
    for (int j0 = keys.begin; j0 < keys.end; j0 += step) {
      const float score = j0 + lane < keys.end ? ScoreOf<T>(a, at, j0 + lane) : -INFINITY;
      const float p = FastExp2(score - ShiftOf(max));
#pragma unroll 1
      for (int i = 0; i < 32; ++i) {
        const float p_i = __shfl_sync(kAllLanes, p, i);
        const bool kept = __shfl_sync(kAllLanes, score, i) != -INFINITY;
        if (kept && c < a.value_dim)
          sum = fmaf(p_i, ToFloat(RowOf<T>(a.v, a.v_strides, at.b, j0 + i, at.kv_head)[c]), sum);
      }
    }
    if (c < a.value_dim) store(c, sum * inverse);
  }
}

// weights[row, j] = exp(score - lse), from the row's maximum and sum. A warp has a row; neighbouring warps' rows share
// the keys that one of them has brought into the first cache.
inline constexpr int kWeightsWarps = 8;
template <class T>
__global__ void __launch_bounds__(32 * kWeightsWarps) AttentionWeightsKernel(const __grid_constant__ AttentionArgs a) {
  AwaitEarlierKernels();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t row = blockIdx.x * kWeightsWarps + threadIdx.x / 32;
  if (row >= static_cast<uint32_t>(a.batch * a.num_heads * a.seqlen_q)) return;
  const auto in_all = static_cast<int>(row), of_unit = in_all / a.rows(), b = of_unit / a.units();
  const Query at = QueryOf(a, b, of_unit - b * a.units(), in_all - of_unit * a.rows(), KeyLengthOf(a, b));
  const SoftmaxStats stats = a.stats[row];
  const float inverse = InverseOf(stats.sum);
  float* weights = a.weights + int64_t{row} * a.seqlen_kv;
  for (int j = lane; j < a.seqlen_kv; j += 32) {
    const float score = ScoreOf<T>(a, at, j);
    weights[j] = score == -INFINITY ? 0.0f : FastExp2(score - ShiftOf(stats.max)) * inverse;
  }
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_ATTENTION_QUERY_CUH_
