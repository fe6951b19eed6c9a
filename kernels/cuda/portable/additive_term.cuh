// The terms of a score of additive attention, as kernels/operators/additive_fold.h derives them.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_ADDITIVE_TERM_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_ADDITIVE_TERM_CUH_

#include "kernels/cuda/core/additive.h"
#include "kernels/cuda/device/activation.cuh"
#include "kernels/cuda/device/lanes.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/device/vec.cuh"
#include "kernels/operators/additive_fold.h"

namespace lamina::cuda {

// Exponentials of projections in the range where the reciprocal form holds; NaN stays NaN.
__device__ __forceinline__ float QueryExponential(float a, float factor) {
  return factor * expf(2 * Clamp(a, -additive::kQueryLimit, additive::kQueryLimit));
}
__device__ __forceinline__ float KeyExponential(float b) { return expf(2 * b); }

// Where products (c A) E are at most this, x needs no cap: c is at most as much, or there is no product.
inline constexpr float kUncappedProduct = additive::kReciprocalCap / 2;

// c + query * key, at most kReciprocalCap; it is known to be where not `kCapped`.
template <bool kCapped>
__device__ __forceinline__ float Denominator(float c, float query, float key) {
  const float x = fmaf(query, key, c);
  return kCapped ? MinNan(x, additive::kReciprocalCap) : x;
}

// sum + 1/x0 - 1/x1 + 1/x2 - 1/x3 of four units with x = c + (c A) E: 12 operations, 4 minima and one reciprocal. The
// product of the four is at most 2^124, whose reciprocal is a normal number.
template <bool kCapped>
__device__ __forceinline__ float ReciprocalQuad(const float4& c, const float4& query, const float4& key, float sum) {
  const float x0 = Denominator<kCapped>(c.x, query.x, key.x), x1 = Denominator<kCapped>(c.y, query.y, key.y);
  const float x2 = Denominator<kCapped>(c.z, query.z, key.z), x3 = Denominator<kCapped>(c.w, query.w, key.w);
  const float n0 = x1 - x0, d0 = x0 * x1, n1 = x3 - x2, d1 = x2 * x3;
  return fmaf(fmaf(n0, d1, n1 * d0), FastReciprocal(d0 * d1), sum);
}

// v / (1 + exp(2 (a + b))) for any a and b.
__device__ __forceinline__ float DirectTerm(float v, float a, float b) {
  return v * FastReciprocal(1 + FastExp2(2 * kLog2E * (a + b)));
}

// The score of a key that is far, by one warp; all lanes get it.
__device__ __forceinline__ float DirectScore(const AdditiveArgs& a, const float* query, const float* key, int lane) {
  float sum = 0;
  for (int u = lane; u < a.units; u += 32) sum += DirectTerm(a.vectors.v[u], query[u], key[u]);
  return a.vectors.direct_scale * SumOverLanes<32>(sum);
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_ADDITIVE_TERM_CUH_
