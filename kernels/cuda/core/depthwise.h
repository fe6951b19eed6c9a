// Depthwise convolution on a GPU: what the host tells the kernels, and how threads share the outputs.
//   y[image, oh, ow, q] = act(bias[q] + sum_{r,s} x[tap(oh, ow, r, s), q / multiplier] * w[r, s, q])
// Threads compute quads of neighbouring channels, in one of three ways:
//   walk   a tile of columns down a band of rows, for the windows and layouts of most networks;
//   row    a tile of columns of one row, where the weights of a window are too many for registers;
//   quads  one pixel, for everything else.
#ifndef LAMINA_KERNELS_CUDA_CORE_DEPTHWISE_H_
#define LAMINA_KERNELS_CUDA_CORE_DEPTHWISE_H_

#include <cstdint>

#include "kernels/cuda/core/gemm.h"

namespace lamina::cuda {

inline constexpr int kDepthwiseThreads = 128;  // of a block

// A window of kK x kK taps with one stride, as a walking thread has it. Its sums are of kSlots rows of y at a time:
// those that share a row of x.
template <int kK, int kStride>
struct DepthwiseWindow {
  // Of y, side by side. All 36 weights of 3 x 3 leave more registers than the 100 of 5 x 5; of 7 x 7 a row is held.
  static constexpr int kColumns = kK == 5 ? 2 : 4;
  static constexpr int kInputs = (kColumns - 1) * kStride + kK;  // of a row of x
  static constexpr int kSlots = static_cast<int>(DivUp(kK, kStride));
};

// Walks are numbered with the quads of one group innermost, then tiles of columns, bands of rows, images: the lanes of
// a warp read neighbouring channels, and the walks of a block neighbouring pixels, which share their inputs in L1.
struct DepthwiseWalks {
  Divider lanes = {}, tiles = {}, bands = {};
  int rows = 1;        // of a band
  int64_t count = 0;   // of one group of quads
  int64_t groups = 0;  // of `lanes` quads each
};

inline constexpr int kMostWalkLanes = 32, kMostWalkRows = 16;

// Long walks read few rows twice, short ones keep a device busy: as long as `threads` of them are left.
constexpr DepthwiseWalks WalksOf(int64_t images, int64_t oh, int64_t ow, int64_t quads, int columns, int64_t threads) {
  const int64_t groups = DivUp(quads, kMostWalkLanes), lanes = DivUp(quads, groups), tiles = DivUp(ow, columns);
  const int64_t single = images * oh * tiles * quads;  // of one row each
  int64_t rows = single / threads;
  rows = rows < 1 ? 1 : rows > kMostWalkRows ? kMostWalkRows : rows;
  const int64_t bands = DivUp(oh, rows);
  DepthwiseWalks w;
  w.lanes = Divider::Of(static_cast<uint32_t>(lanes));
  w.tiles = Divider::Of(static_cast<uint32_t>(tiles));
  w.bands = Divider::Of(static_cast<uint32_t>(bands));
  w.rows = static_cast<int>(DivUp(oh, bands));
  w.count = images * bands * tiles * lanes;
  w.groups = groups;
  return w;
}

// Where a walk begins.
struct WalkBegin {
  int image, row, column, quad;
};
LAMINA_HD WalkBegin BeginOf(const DepthwiseWalks& w, uint32_t walk, uint32_t group, int columns) {
  const uint32_t pixel = w.lanes.Quotient(walk), band = w.tiles.Quotient(pixel), image = w.bands.Quotient(band);
  return {static_cast<int>(image), static_cast<int>(band - image * w.bands.divisor) * w.rows,
          static_cast<int>(pixel - band * w.tiles.divisor) * columns,
          static_cast<int>(group * w.lanes.divisor + walk - pixel * w.lanes.divisor)};
}

struct DepthwiseArgs {
  const void* x = nullptr;
  int64_t x_image = 0, x_row = 0, x_pixel = 0, x_channel = 0;  // elements
  int images = 0, ih = 1, iw = 1, oh = 1, kh = 1, kw = 1;
  int stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, pad_top = 0, pad_left = 0;
  Divider pixels = {}, ow = {};  // of one image of y; of one of its rows
  int channels = 0;              // of y
  Divider multiplier = {};
  const float* w = nullptr;  // [kh, kw, channels_padded]
  int channels_padded = 0;
  bool x_quads = false;  // x has four neighbouring channels aligned wherever y has
  Epilogue epilogue = {};
  DepthwiseWalks walks = {};
  Divider inner = {};  // single pixels: of quads where lanes go along channels, else of pixels of all images
};

// Whole chunks of 16-bit channels.
constexpr int PaddedChannels(int64_t channels) { return static_cast<int>(RoundUp(channels, 8)); }
LAMINA_HD int QuadsOf(const DepthwiseArgs& a) { return (a.channels + 3) / 4; }

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_DEPTHWISE_H_
