// Where the elements of image tensors lie, and which accesses their strides and addresses allow.
#ifndef LAMINA_KERNELS_CUDA_IMAGE_H_
#define LAMINA_KERNELS_CUDA_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "kernels/cuda/core/gemm.h"

namespace lamina::cuda {

// Strides of an image tensor, of which `asked` is from pixel to pixel (nhwc) or from image to image (nchw), 0 = dense.
constexpr RowStrides StridesOf(Layout layout, int64_t channels, int64_t pixels, int64_t asked) {
  if (layout == Layout::kNhwc) {
    const int64_t pixel = asked ? asked : channels;
    return {pixels * pixel, pixel, 1};
  }
  return {asked ? asked : channels * pixels, 1, pixels};
}

// The input of GemmArgs or DepthwiseArgs, whose rows of pixels are dense.
template <class Args>
void DescribeInput(Args& a, const RowStrides& x, int64_t iw) {
  a.x_image = x.image;
  a.x_row = iw * x.pixel;
  a.x_pixel = x.pixel;
  a.x_channel = x.channel;
}

// The product of every row of x, `rows` to an image, with weights [n, channels], but for weights, pointers and what
// ends it: a fully connected layer, or a 1x1 convolution whose pixels are the rows.
inline GemmArgs RowsProduct(int64_t images, int64_t rows, int64_t channels, int64_t n, const RowStrides& x,
                            const RowStrides& y) {
  GemmArgs a;
  DescribeInput(a, x, rows);
  a.iw = static_cast<int>(rows);
  a.rows = static_cast<int>(images * rows);
  a.pixels = a.ow = Divider::Of(static_cast<uint32_t>(rows > 0 ? rows : 1));
  a.channels = a.k = static_cast<int>(channels);
  a.n = static_cast<int>(n);
  a.epilogue.y_strides = y;
  return a;
}

constexpr bool Multiples(int64_t of, std::initializer_list<int64_t> values) {
  for (const int64_t v : values) {
    if (v % of != 0) return false;
  }
  return true;
}

inline bool Aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

// Whether `count` dense channels are aligned to as many elements wherever the first one's index is a multiple of them.
inline bool TakesVectors(int64_t count, const RowStrides& s, const void* data, size_t element) {
  return s.channel == 1 && Multiples(count, {s.image, s.pixel}) && Aligned(data, static_cast<size_t>(count) * element);
}

// Whether an epilogue may go through its tensors in quads of channels.
inline bool TakesQuads(const Epilogue& e, size_t element) {
  return TakesVectors(4, e.y_strides, e.y, element) &&
         (e.residual_kind == Residual::kNone || TakesVectors(4, e.residual_strides, e.residual, element));
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_IMAGE_H_
