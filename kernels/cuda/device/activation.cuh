// Activations in f32, as lamina/types.h defines them. NaN goes through every one.
#ifndef LAMINA_KERNELS_CUDA_DEVICE_ACTIVATION_CUH_
#define LAMINA_KERNELS_CUDA_DEVICE_ACTIVATION_CUH_

#include <cmath>

#include "kernels/cuda/device/ptx.cuh"
#include "lamina/types.h"

namespace lamina::cuda {

__device__ __forceinline__ float Clamp(float x, float low, float high) { return MinNan(MaxNan(x, low), high); }

// One branch on the kind for all values of a thread; the kind is the same for all threads. What most depthwise layers
// have is asked for first, the rest goes through a table of jumps.
template <int kCount>
__device__ __forceinline__ void ActivateAll(const Activation& a, float (&v)[kCount]) {
  const auto each = [&](const auto& f) {
#pragma unroll
    for (float& x : v) x = f(x);
  };
  const float alpha = a.alpha, beta = a.beta;
  if (a.kind == ActivationKind::kNone) return;
  if (a.kind == ActivationKind::kRelu) return each([](float x) { return MaxNan(x, 0); });
  switch (a.kind) {
    case ActivationKind::kNone:
    case ActivationKind::kRelu: return;
    case ActivationKind::kRelu6: return each([](float x) { return Clamp(x, 0, 6); });
    case ActivationKind::kClamp: return each([=](float x) { return Clamp(x, alpha, beta); });
    case ActivationKind::kLeakyRelu: return each([=](float x) { return x < 0 ? alpha * x : x; });
    case ActivationKind::kHardswish: return each([](float x) { return x * Clamp(x + 3, 0, 6) * (1.0f / 6); });
    case ActivationKind::kHardsigmoid: return each([=](float x) { return Clamp(alpha * x + beta, 0, 1); });
    case ActivationKind::kSigmoid: return each([](float x) { return FastReciprocal(1 + expf(-x)); });
    case ActivationKind::kSilu: return each([](float x) { return x * FastReciprocal(1 + expf(-x)); });
    case ActivationKind::kGeluErf: return each([](float x) { return 0.5f * x * (1 + erff(x * 0.70710678118654752f)); });
    case ActivationKind::kGeluTanh:
      return each([](float x) { return 0.5f * x * (1 + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x))); });
    case ActivationKind::kTanh: return each([](float x) { return tanhf(x); });
    case ActivationKind::kElu: return each([=](float x) { return x < 0 ? alpha * expm1f(x) : x; });
  }
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_DEVICE_ACTIVATION_CUH_
