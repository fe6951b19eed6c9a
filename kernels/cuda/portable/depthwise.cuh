// Depthwise convolution by fused multiply-adds, on any GPU: core/depthwise.h has the formula and the order of threads.
//   DepthwiseWalk   k x k windows of one stride, dense, one output for an input channel, all in quads. A thread holds
//                   its quad's weights and walks down kColumns columns of y: each row of x is read once and goes into
//                   the sums of all the rows of y that see it, the oldest of which is then complete.
//   DepthwiseRow    larger windows of the kind: a thread has kColumns outputs of one row of y, and goes through the
//                   rows of the window with one row of weights and of x in registers.
//   DepthwiseQuad   every other window, layout and multiplier: one pixel's quad at a time, taps outside x skipped.
// Budget: 168 registers and three blocks to an SM (3 x 3), 255 and two (5 x 5), 128 and four (7 x 7); no shared memory.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_DEPTHWISE_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_DEPTHWISE_CUH_

#include "kernels/cuda/core/depthwise.h"
#include "kernels/cuda/device/epilogue.cuh"

namespace lamina::cuda {

__device__ __forceinline__ void MultiplyAdd(float4 x, float4 w, float4& sum) {
  sum.x = fmaf(x.x, w.x, sum.x);
  sum.y = fmaf(x.y, w.y, sum.y);
  sum.z = fmaf(x.z, w.z, sum.z);
  sum.w = fmaf(x.w, w.w, sum.w);
}

// Sums, bias included, of neighbouring columns of `row`.
template <class T, int kColumns>
__device__ __forceinline__ void FinishColumns(const DepthwiseArgs& a, const float4 (&sum)[kColumns],
                                              const WalkBegin& begin, int row) {
  float v[4 * kColumns];
#pragma unroll
  for (int t = 0; t < kColumns; ++t) {
    v[4 * t] = sum[t].x, v[4 * t + 1] = sum[t].y, v[4 * t + 2] = sum[t].z, v[4 * t + 3] = sum[t].w;
  }
  const int ow = static_cast<int>(a.ow.divisor), pixel = row * ow + begin.column, channel = 4 * begin.quad;
  FinishPixels<T, kColumns>(a.epilogue, v, RowOffset(a.epilogue.y_strides, begin.image, pixel) + channel,
                            RowOffset(a.epilogue.residual_strides, begin.image, pixel) + channel, ow - begin.column);
}

template <class T, int kK, int kStride>
__global__ void __launch_bounds__(kDepthwiseThreads, kK == 3 ? 3 : 2)
    DepthwiseWalk(const __grid_constant__ DepthwiseArgs a) {
  AwaitEarlierKernels();
  using Window = DepthwiseWindow<kK, kStride>;
  constexpr int kColumns = Window::kColumns, kSlots = Window::kSlots;
  const uint32_t walk = blockIdx.x * kDepthwiseThreads + threadIdx.x;
  if (walk >= a.walks.count) return;
  const WalkBegin begin = BeginOf(a.walks, walk, blockIdx.y, kColumns);
  const int channel = 4 * begin.quad;
  if (channel >= a.channels) return;

  float4 w[kK][kK];
#pragma unroll
  for (int r = 0; r < kK; ++r) {
#pragma unroll
    for (int s = 0; s < kK; ++s) w[r][s] = Load4(a.w + (r * kK + s) * int64_t{a.channels_padded} + channel);
  }
  const float4 bias = Load4(a.epilogue.bias + channel);

  const int first_h = begin.row * kStride - a.pad_top, first_w = begin.column * kStride - a.pad_left;
  const T* x = static_cast<const T*>(a.x) + begin.image * a.x_image + first_w * a.x_pixel + channel;
  bool inside_w[Window::kInputs];
#pragma unroll
  for (int i = 0; i < Window::kInputs; ++i) {
    inside_w[i] = static_cast<unsigned>(first_w + i) < static_cast<unsigned>(a.iw);
  }

  // sum[j] is of row `row` + j; a row is complete when its last kStride rows of x have been added. Those before the
  // band's first see only the rows of x that the first ones share with them, and are dropped.
  float4 sum[kSlots][kColumns];
#pragma unroll
  for (int j = 0; j < kSlots; ++j) {
#pragma unroll
    for (int t = 0; t < kColumns; ++t) sum[j][t] = bias;
  }
  const int end = min(begin.row + a.walks.rows, a.oh);
#pragma unroll 1
  for (int row = begin.row - (kSlots - 1); row < end; ++row) {
#pragma unroll
    for (int d = kK - kStride; d < kK; ++d) {
      const int h = row * kStride - a.pad_top + d;
      const bool inside_h = h >= first_h && static_cast<unsigned>(h) < static_cast<unsigned>(a.ih);
      float4 in[Window::kInputs];
#pragma unroll
      for (int i = 0; i < Window::kInputs; ++i) {
        in[i] = inside_h && inside_w[i] ? Load4(x + h * a.x_row + i * a.x_pixel) : make_float4(0, 0, 0, 0);
      }
#pragma unroll
      for (int j = 0; j < kSlots; ++j) {
        const int r = d - j * kStride;
        if (r < 0) continue;
#pragma unroll
        for (int t = 0; t < kColumns; ++t) {
#pragma unroll
          for (int s = 0; s < kK; ++s) MultiplyAdd(in[t * kStride + s], w[r][s], sum[j][t]);
        }
      }
    }
    if (row >= begin.row) FinishColumns<T>(a, sum[0], begin, row);
#pragma unroll
    for (int j = 0; j < kSlots; ++j) {
#pragma unroll
      for (int t = 0; t < kColumns; ++t) sum[j][t] = j + 1 < kSlots ? sum[j + 1][t] : bias;
    }
  }
}

template <class T, int kK, int kStride>
__global__ void __launch_bounds__(kDepthwiseThreads, 4) DepthwiseRow(const __grid_constant__ DepthwiseArgs a) {
  AwaitEarlierKernels();
  using Window = DepthwiseWindow<kK, kStride>;
  constexpr int kColumns = Window::kColumns;
  const uint32_t walk = blockIdx.x * kDepthwiseThreads + threadIdx.x;
  if (walk >= a.walks.count) return;
  const WalkBegin begin = BeginOf(a.walks, walk, blockIdx.y, kColumns);  // walks of one row each
  const int channel = 4 * begin.quad;
  if (channel >= a.channels) return;

  const int first_h = begin.row * kStride - a.pad_top, first_w = begin.column * kStride - a.pad_left;
  const T* x = static_cast<const T*>(a.x) + begin.image * a.x_image + first_w * a.x_pixel + channel;
  const float4 bias = Load4(a.epilogue.bias + channel);
  float4 sum[kColumns];
#pragma unroll
  for (float4& s : sum) s = bias;
#pragma unroll 1
  for (int r = 0; r < kK; ++r) {
    const int h = first_h + r;
    if (static_cast<unsigned>(h) >= static_cast<unsigned>(a.ih)) continue;
    float4 w[kK], in[Window::kInputs];
#pragma unroll
    for (int s = 0; s < kK; ++s) w[s] = Load4(a.w + (r * kK + s) * int64_t{a.channels_padded} + channel);
#pragma unroll
    for (int i = 0; i < Window::kInputs; ++i) {
      const bool inside = static_cast<unsigned>(first_w + i) < static_cast<unsigned>(a.iw);
      in[i] = inside ? Load4(x + h * a.x_row + i * a.x_pixel) : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int t = 0; t < kColumns; ++t) {
#pragma unroll
      for (int s = 0; s < kK; ++s) MultiplyAdd(in[t * kStride + s], w[s], sum[t]);
    }
  }
  FinishColumns<T>(a, sum, begin, begin.row);
}

// Lanes along channels where these are neighbours in x, else along pixels.
template <class T>
__global__ void __launch_bounds__(kDepthwiseThreads) DepthwiseQuad(const __grid_constant__ DepthwiseArgs a) {
  AwaitEarlierKernels();
  const uint32_t item = blockIdx.x * kDepthwiseThreads + threadIdx.x;
  const auto quads = static_cast<uint32_t>(QuadsOf(a));
  const uint32_t rows = static_cast<uint32_t>(a.images) * a.pixels.divisor;
  if (item >= rows * quads) return;
  const uint32_t outer = a.inner.Quotient(item), inner = item - outer * a.inner.divisor;
  const bool by_channel = a.x_channel == 1;
  const uint32_t row = by_channel ? outer : inner;
  const int channel = 4 * static_cast<int>(by_channel ? inner : outer), left = a.channels - channel;

  const uint32_t image = a.pixels.Quotient(row), pixel = row - image * a.pixels.divisor, oh = a.ow.Quotient(pixel);
  const int first_h = static_cast<int>(oh) * a.stride_h - a.pad_top;
  const int first_w = static_cast<int>(pixel - oh * a.ow.divisor) * a.stride_w - a.pad_left;
  int64_t offset[4];  // of the channels that a quad reads; those beyond y's are the last one's
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    offset[i] = a.multiplier.Quotient(static_cast<uint32_t>(channel + min(i, left - 1))) * a.x_channel;
  }
  const T* x = static_cast<const T*>(a.x) + image * a.x_image;
  float4 sum = make_float4(0, 0, 0, 0);
  for (int r = 0; r < a.kh; ++r) {
    const int h = first_h + r * a.dilation_h;
    if (static_cast<unsigned>(h) >= static_cast<unsigned>(a.ih)) continue;
    const float* w = a.w + int64_t{r} * a.kw * a.channels_padded + channel;
    for (int s = 0; s < a.kw; ++s, w += a.channels_padded) {
      const int column = first_w + s * a.dilation_w;
      if (static_cast<unsigned>(column) >= static_cast<unsigned>(a.iw)) continue;
      const T* p = x + h * a.x_row + column * a.x_pixel;
      const float4 in = a.x_quads ? Load4(p + offset[0])
                                  : make_float4(ToFloat(p[offset[0]]), ToFloat(p[offset[1]]), ToFloat(p[offset[2]]),
                                                ToFloat(p[offset[3]]));
      MultiplyAdd(in, Load4(w), sum);
    }
  }
  FinishQuad<T>(a.epilogue, sum, Load4(a.epilogue.bias + channel), static_cast<int>(image), static_cast<int>(pixel),
                channel, left);
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_DEPTHWISE_CUH_
