// From sums to y: bias, residual, activation, rounding. One copy for every kernel that ends a layer.
#ifndef LAMINA_KERNELS_CUDA_DEVICE_EPILOGUE_CUH_
#define LAMINA_KERNELS_CUDA_DEVICE_EPILOGUE_CUH_

#include "kernels/cuda/core/gemm.h"
#include "kernels/cuda/device/activation.cuh"
#include "kernels/cuda/device/vec.cuh"

namespace lamina::cuda {

// Elements from the tensor's begin to channel 0 of a row.
__device__ __forceinline__ int64_t RowOffset(const RowStrides& s, int image, int pixel) {
  return image * s.image + pixel * s.pixel;
}

// Four sums of neighbouring channels, the first of them at `channel`; those below `channels_left` exist.
template <class T>
__device__ __forceinline__ void FinishQuad(const Epilogue& e, float4 sum, float4 bias, int image, int pixel,
                                           int64_t channel, int channels_left) {
  float v[4] = {sum.x + bias.x, sum.y + bias.y, sum.z + bias.z, sum.w + bias.w};
  float residual[4] = {};
  const bool quad = e.quads && channels_left >= 4;
  if (e.residual_kind != Residual::kNone) {
    const T* r = static_cast<const T*>(e.residual) + RowOffset(e.residual_strides, image, pixel);
    if (quad) {
      const float4 four = Load4(r + channel);
      residual[0] = four.x, residual[1] = four.y, residual[2] = four.z, residual[3] = four.w;
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (i < channels_left) residual[i] = ToFloat(r[(channel + i) * e.residual_strides.channel]);
      }
    }
  }
  const bool before = e.residual_kind == Residual::kBeforeActivation;
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] += before ? residual[i] : 0.0f;
  ActivateAll(e.activation, v);
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] += before ? 0.0f : residual[i];
  T* y = static_cast<T*>(e.y) + RowOffset(e.y_strides, image, pixel);
  if (quad) {
    Store4(make_float4(v[0], v[1], v[2], v[3]), y + channel);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < channels_left) FromFloat(v[i], y[(channel + i) * e.y_strides.channel]);
    }
  }
}

// Quads of sums, bias included, of neighbouring pixels' same channels; `e.quads` holds. `y` and `residual` are the
// elements of the first, the first `pixels_left` of them exist.
template <class T, int kPixels>
__device__ __forceinline__ void FinishPixels(const Epilogue& e, float (&v)[4 * kPixels], int64_t y, int64_t residual,
                                             int pixels_left) {
  const auto add_residual = [&](Residual kind) {
    if (e.residual_kind != kind) return;
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      if (i >= pixels_left) continue;
      const float4 r = Load4(static_cast<const T*>(e.residual) + residual + i * e.residual_strides.pixel);
      v[4 * i] += r.x, v[4 * i + 1] += r.y, v[4 * i + 2] += r.z, v[4 * i + 3] += r.w;
    }
  };
  add_residual(Residual::kBeforeActivation);
  ActivateAll(e.activation, v);
  add_residual(Residual::kAfterActivation);
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    if (i >= pixels_left) continue;
    Store4(make_float4(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]),
           static_cast<T*>(e.y) + y + i * e.y_strides.pixel);
  }
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_DEVICE_EPILOGUE_CUH_
