// From projections to what the scores are made of: a warp a row, four units a lane.
//   keys      b becomes E = exp(2b) in place, with 1 in the padding; a row with a unit beyond kKeyLimit stays as it is
//             and is marked kFar. Rows behind a length are neither read nor written.
//   queries   c A = c exp(2a), in a tensor of its own, with 0 in the padding
// Budget: a row is read twice (the second time from L1); any sizes.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_ADDITIVE_EXPONENTIALS_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_ADDITIVE_EXPONENTIALS_CUH_

#include "kernels/cuda/portable/additive_term.cuh"

namespace lamina::cuda {

inline constexpr int kExponentialThreads = 256;

// f(unit, value) of four units; those behind the last get `padding`.
template <class F>
__device__ __forceinline__ float4 MapUnits(const float4& x, int unit, int units, float padding, const F& f) {
  return make_float4(unit < units ? f(unit, x.x) : padding, unit + 1 < units ? f(unit + 1, x.y) : padding,
                     unit + 2 < units ? f(unit + 2, x.z) : padding, unit + 3 < units ? f(unit + 3, x.w) : padding);
}

__global__ void __launch_bounds__(kExponentialThreads) AdditiveKeysKernel(const __grid_constant__ AdditiveKeysArgs a) {
  AwaitEarlierKernels();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int keys = static_cast<int>(a.keys.divisor);
  if (blockIdx.x == 0) {
    if (thread == 0) *a.prepared = a.head;
    auto* lengths = reinterpret_cast<int32_t*>(a.prepared + 1);
    for (int b = thread; b < a.head.batch; b += kExponentialThreads) {
      const auto all = static_cast<int>(a.head.keys);
      lengths[b] = a.key_lengths == nullptr ? all : Clamped(a.key_lengths[b], all);
    }
  }
  const int row = static_cast<int>(blockIdx.x) * (kExponentialThreads / 32) + thread / 32;
  if (row >= a.rows) return;
  const auto batch = static_cast<int>(a.keys.Quotient(static_cast<uint32_t>(row)));
  if (a.key_lengths != nullptr && row - batch * keys >= a.key_lengths[batch]) return;
  float* key = a.key + int64_t{row} * a.unit_stride;
  float least = 0, most = -INFINITY;  // NaN is neither: it stays NaN
  for (int u = lane; u < a.units; u += 32) {
    least = fminf(least, key[u]);
    most = fmaxf(most, key[u]);
  }
  most = MaxOverLanes<32>(most);
  const bool far = most > additive::kKeyLimit || MaxOverLanes<32>(-least) > additive::kKeyLimit;
  if (lane == 0) a.peak[row] = far ? kFar : KeyExponential(most);
  for (int u = 4 * lane; u < a.unit_stride && !far; u += 128) {
    Store4(MapUnits(Load4(key + u), u, a.units, 1, [](int, float b) { return KeyExponential(b); }), key + u);
  }
}

__global__ void __launch_bounds__(kExponentialThreads)
    AdditiveQueriesKernel(const __grid_constant__ AdditiveQueriesArgs a) {
  AwaitEarlierKernels();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int row = static_cast<int>(blockIdx.x) * (kExponentialThreads / 32) + thread / 32;
  if (row >= a.rows) return;
  const int64_t first = int64_t{row} * a.unit_stride;
  float most = 0;
  for (int u = 4 * lane; u < a.unit_stride; u += 128) {
    const float4 x = MapUnits(Load4(a.query + first + u), u, a.units, 0,
                              [&](int unit, float value) { return QueryExponential(value, a.factor[unit]); });
    Store4(x, a.exponential + first + u);
    most = fmaxf(fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w)), most);
  }
  most = MaxOverLanes<32>(most);
  if (lane == 0) a.peak[row] = most;
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_ADDITIVE_EXPONENTIALS_CUH_
