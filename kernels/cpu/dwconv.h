// The micro-kernels of depthwise convolution: a vector of channels and a few output rows at a time.
//
// `slide` walks along the rows with every live sum in registers, or tile by tile where that needs fewer of them; it
// reads an image where it lies (or a copy) and knows its borders. `taps` serves every other kernel size, stride and
// dilation; it reads a copy that holds the padding too. Weights are packed [kh * kw][lanes], the bias [lanes] behind
// them, per vector of channels.
//
// A sum's terms are added in one order for all rows and columns of one kernel, so results do not depend on how an image
// is cut. Padding is skipped, but what lies above and below is multiplied as zeros by the larger slides: a weight that
// is infinite or NaN may make NaN there too.
#ifndef LAMINA_KERNELS_CPU_DWCONV_H_
#define LAMINA_KERNELS_CPU_DWCONV_H_

#include <cstddef>
#include <cstdint>

#include "lamina/context.h"

namespace lamina::cpu {

inline constexpr size_t kMaxDwConvLanes = 16;
inline constexpr size_t kMaxDwConvRows = 4;        // output rows of one call
inline constexpr size_t kMaxDwConvInputRows = 16;  // input rows that they need

// Output element (r, o) of the vector lies at y + r * y_row + o * y_col, its residual likewise.
struct DwConvOutput {
  float* y = nullptr;
  ptrdiff_t y_row = 0, y_col = 0;
  const float* residual = nullptr;  // null: none
  ptrdiff_t residual_row = 0, residual_col = 0;
  bool residual_after = false;  // min(max(sum, lo), hi) + residual instead of min(max(sum + residual, lo), hi)
  float lo = 0, hi = 0;
  size_t rows = 0, columns = 0;
};

struct DwConvRows {
  const float* const* x = nullptr;  // [(rows - 1) * stride + k]: each row's first column; null: a row of padding
  ptrdiff_t x_col = 0;              // floats from column to column
  const float* w = nullptr;
  size_t vectors = 1;   // of channels, side by side in x, y and the residual
  bool tiles = false;   // tile by tile, if the slide has `tiles`
  size_t channels = 0;  // live lanes of each; all of them unless the kernel's `tails` is true
  int64_t iw = 0, pad_left = 0;
  // By how many of the slide's steps over channels stores to y lag behind, fewer than there are steps; 0 in tiles, and
  // unless the slide `lags` and `vectors` is a multiple of its step: for images that lie so that the loads of the next
  // columns have the stores' addresses modulo 4096, which the CPU takes for the same ones.
  size_t lag = 0;
  float* ring = nullptr;  // lag * columns * rows * step floats, aligned; unread unless lag > 0
  DwConvOutput out;       // rows: the slide's
  // What the next rows will want of x and of y. The call brings it to L2 line by line while it works, as much as its
  // own outputs stand for: its loads and stores lie a pixel apart, which no prefetcher follows. Any address will do.
  const float* ahead_x = nullptr;
  const float* ahead_y = nullptr;
};

struct DwConvTaps {
  const float* x = nullptr;            // the first tap of output (0, 0)
  ptrdiff_t x_row = 0, x_col = 0;      // floats from one output row or column to the next
  ptrdiff_t tap_row = 0, tap_col = 0;  // floats from tap to tap
  size_t kh = 0, kw = 0;
  const float* w = nullptr;
  DwConvOutput out;  // any rows. x is readable as if columns were a multiple of kDwConvTapColumns
};
inline constexpr size_t kDwConvTapColumns = 8;

struct DwConvSlide {
  int64_t k = 0, stride = 0;  // of both axes; dilation 1
  int64_t step = 1;           // vectors of channels at a time, but in tiles
  bool tiles = false;         // adds terms in another order in tiles: which of both is for the problem alone to say
  bool lags = false;
  size_t rows = 0;                                          // at most
  void (*run[kMaxDwConvRows + 1])(const DwConvRows&) = {};  // by the number of rows
};

struct DwConvKernel {
  size_t lanes;
  bool tails;  // slide takes channels < lanes
  DwConvSlide slides[7];
  void (*taps)(const DwConvTaps&);
  // block[p][l] = x[p * pixel + lane[l]], 0 where lane[l] >= channels; x may be the block itself. [pixels][lanes]
  void (*load_block)(const float* x, ptrdiff_t pixel, size_t pixels, size_t channels, const int32_t* lane,
                     float* block);
  // y[p * pixel + l] = block[p][l] for l < channels.
  void (*store_block)(const float* block, size_t pixels, size_t channels, float* y, ptrdiff_t pixel);
};
const DwConvKernel& GetDwConvKernel(Isa isa);

// The slide for that problem, or null.
inline const DwConvSlide* FindSlide(const DwConvKernel& kernel, int64_t kh, int64_t kw, int64_t stride_h,
                                    int64_t stride_w, int64_t dilation_h, int64_t dilation_w) {
  if (kh != kw || stride_h != stride_w || dilation_h != 1 || dilation_w != 1) return nullptr;
  for (const DwConvSlide& slide : kernel.slides) {
    if (slide.k == kh && slide.stride == stride_h) return &slide;
  }
  return nullptr;
}

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_DWCONV_H_
