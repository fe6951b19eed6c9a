// One image of a batch as drivers see it: nhwc, nchw, a slice of wider channels, or a ring of a few rows in scratch.
#ifndef LAMINA_KERNELS_CPU_IMAGE_VIEW_H_
#define LAMINA_KERNELS_CPU_IMAGE_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "lamina/types.h"

namespace lamina::cpu {

template <class T>
struct ImageView {
  T* data = nullptr;
  ptrdiff_t row = 0, pixel = 0, channel = 1;  // floats from one to the next
  int64_t slots = 1;                          // rows held: row h lies in slot (h - first_row) % slots
  int64_t channels = 0;  // of a pixel, that may be touched: the image's, or whole vectors in scratch
  bool nhwc = true;
  int64_t first_row = 0;

  T* at(int64_t h, int64_t w, int64_t c) const {
    h -= first_row;
    return data + (h < slots ? h : h % slots) * row + w * pixel + c * channel;  // divisions are rare and slow
  }
  ImageView<const T> read() const { return {data, row, pixel, channel, slots, channels, nhwc, first_row}; }
};

// Image n of a tensor [n, h, w, channels] or [n, channels, h, w], with a pixel's or image's stride of `stride` floats,
// 0 if dense.
template <class T>
ImageView<T> ImageOf(T* data, Layout layout, int64_t n, int64_t h, int64_t w, int64_t channels, int64_t stride) {
  if (data == nullptr) return {};
  if (layout == Layout::kNhwc) {
    const int64_t pixel = stride ? stride : channels;
    return {data + n * h * w * pixel, w * pixel, pixel, 1, h, channels, true};
  }
  return {data + n * (stride ? stride : channels * h * w), w, 1, h * w, h, channels, false};
}

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_IMAGE_VIEW_H_
