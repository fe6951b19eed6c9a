// From sums to y: bias, residual, activation, rounding. One copy for every kernel that ends a layer.
#ifndef LAMINA_KERNELS_CUDA_DEVICE_EPILOGUE_CUH_
#define LAMINA_KERNELS_CUDA_DEVICE_EPILOGUE_CUH_

#include <type_traits>

#include "kernels/cuda/core/gemm.h"
#include "kernels/cuda/device/activation.cuh"
#include "kernels/cuda/device/vec.cuh"

namespace lamina::cuda {

// Elements from the tensor's begin to channel 0 of a row.
__device__ __forceinline__ int64_t RowOffset(const RowStrides& s, int image, int pixel) {
  return image * s.image + pixel * s.pixel;
}

// Four neighbouring channels, the first of them at `channel`; those below `channels_left` exist.
struct Quad {
  int image, pixel;
  int64_t channel;
  int channels_left;
  bool aligned;  // all four exist, side by side, at a multiple of their size
};

template <class T>
__device__ __forceinline__ void LoadQuad(const void* tensor, const RowStrides& s, const Quad& q, float (&v)[4]) {
  const T* row = static_cast<const T*>(tensor) + RowOffset(s, q.image, q.pixel);
  if (q.aligned) {
    const float4 four = Load4(row + q.channel);
    v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < q.channels_left) v[i] = ToFloat(row[(q.channel + i) * s.channel]);
    }
  }
}
template <class T>
__device__ __forceinline__ void StoreQuad(const float (&v)[4], const RowStrides& s, const Quad& q, void* tensor) {
  T* row = static_cast<T*>(tensor) + RowOffset(s, q.image, q.pixel);
  if (q.aligned) {
    Store4(make_float4(v[0], v[1], v[2], v[3]), row + q.channel);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < q.channels_left) FromFloat(v[i], row[(q.channel + i) * s.channel]);
    }
  }
}

// Four sums become outputs. T: the factors' elements.
template <class T>
__device__ __forceinline__ void FinishQuad(const Epilogue& e, float4 sum, float4 bias, int image, int pixel,
                                           int64_t channel, int channels_left) {
  const bool f32 = std::is_same_v<T, float> || e.f32;
  const Quad q{image, pixel, channel, channels_left, e.quads && channels_left >= 4};
  float v[4] = {sum.x + bias.x, sum.y + bias.y, sum.z + bias.z, sum.w + bias.w};
  float residual[4] = {};
  if (e.residual_kind != Residual::kNone) {
    f32 ? LoadQuad<float>(e.residual, e.residual_strides, q, residual)
        : LoadQuad<T>(e.residual, e.residual_strides, q, residual);
  }
  const bool before = e.residual_kind == Residual::kBeforeActivation;
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] += before ? residual[i] : 0.0f;
  ActivateAll(e.activation, v);
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] += before ? 0.0f : residual[i];
  f32 ? StoreQuad<float>(v, e.y_strides, q, e.y) : StoreQuad<T>(v, e.y_strides, q, e.y);
}

// Sums, bias included, of the same kChannels channels of neighbouring pixels; `e.quads` holds. `y` and `residual` are
// the elements of the first, the first `pixels_left` of them exist.
template <class T, int kPixels, int kChannels = 4>
__device__ __forceinline__ void FinishPixels(const Epilogue& e, float (&v)[kChannels * kPixels], int64_t y,
                                             int64_t residual, int pixels_left) {
  const auto add_residual = [&](Residual kind) {
    if (e.residual_kind != kind) return;
    const T* from = static_cast<const T*>(e.residual) + residual;
#pragma unroll
    for (int i = 0; i < kPixels; ++i, from += e.residual_strides.pixel) {
      if (i >= pixels_left) continue;
      float r[kChannels];
      LoadVector(from, r);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) v[kChannels * i + c] += r[c];
    }
  };
  add_residual(Residual::kBeforeActivation);
  ActivateAll(e.activation, v);
  add_residual(Residual::kAfterActivation);
  T* to = static_cast<T*>(e.y) + y;
#pragma unroll
  for (int i = 0; i < kPixels; ++i, to += e.y_strides.pixel) {
    if (i >= pixels_left) continue;
    float of_pixel[kChannels];
#pragma unroll
    for (int c = 0; c < kChannels; ++c) of_pixel[c] = v[kChannels * i + c];
    StoreVector(of_pixel, to);
  }
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_DEVICE_EPILOGUE_CUH_
