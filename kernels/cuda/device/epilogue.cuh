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

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_DEVICE_EPILOGUE_CUH_
