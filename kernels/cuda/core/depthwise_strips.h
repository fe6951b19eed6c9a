// Depthwise convolution on sm_90a (sm90/depthwise.cuh): what lanes and warps do, what a block's shared memory holds,
// and how warps share the outputs.
//   strip  neighbouring columns of y, of four channels or two: a lane's
//   walk   a warp's way down a band of rows of y: lanes along 64 channels; where 16 are enough for them, of two strips
//          each, side by side in one image, or one in each of two images
//   step   from one row of y to the next: the stride's rows of x
//   box    the rows of x of some steps, of all that the warp reads: one load by TMA
#ifndef LAMINA_KERNELS_CUDA_CORE_DEPTHWISE_STRIPS_H_
#define LAMINA_KERNELS_CUDA_CORE_DEPTHWISE_STRIPS_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/core/depthwise.h"
#include "kernels/cuda/core/schedule.h"

namespace lamina::cuda {

inline constexpr int kWalkChannels = 64;

struct StripSizes {
  int channels, columns;  // of a strip
  int slots;              // rows of y whose sums are under way at one time
  int steps;              // of a box
  constexpr int strips() const { return 32 * channels / kWalkChannels; }  // of a walk
};

// Seven columns where 36 weights and the sums of three rows leave registers for them: they divide 7, 14, 28, 56 and
// 112. 49 weights leave registers for two channels.
constexpr StripSizes StripSizesOf(int element, int kernel, int stride) {
  return {kernel == 7 ? 2 : 4, kernel == 3 && stride == 1 ? 7 : 4, static_cast<int>(DivUp(kernel, stride)),
          8 / (element * stride)};
}

// Columns of x that `columns` of y see.
LAMINA_HD int InputColumns(int columns, int kernel, int stride) { return (columns - 1) * stride + kernel; }

// Of a window of kK x kK taps with one stride, and elements of kBytes.
template <int kBytes, int kK, int kStride>
struct StripShape {
  static constexpr StripSizes kSizes = StripSizesOf(kBytes, kK, kStride);
  static constexpr int kChannels = kSizes.channels, kColumns = kSizes.columns, kSlots = kSizes.slots;
  static constexpr int kStrips = kSizes.strips(), kSteps = kSizes.steps;
  static constexpr int kInputs = InputColumns(kColumns, kK, kStride);  // of a row of x
  static constexpr int kWarps = kDepthwiseThreads / 32;
  static constexpr int kBlocks = 2;  // to a multiprocessor
  static constexpr int kBoxRows = kSteps * kStride;
  static constexpr int kPixelBytes = kWalkChannels * kBytes;
  static constexpr int kBoxBytes = kStrips * kBoxRows * kInputs * kPixelBytes;  // of an image to a strip: the most
  static constexpr int kStages = 112 * 1024 / kWarps / kBoxBytes;

  // Which box is loaded next: by a warp's first lane, which alone reads and writes it.
  struct Loads {
    uint32_t walk;
    int steps_left;  // of the walk
    int c, w, h, n;
  };
  struct alignas(1024) Shared {
    unsigned char boxes[kWarps][kStages][kBoxBytes];
    uint64_t full[kWarps][kStages];
    Loads loads[kWarps];
  };
  static_assert(kStages >= 2 && kBoxBytes % 128 == 0);
  static_assert(kBlocks * sizeof(Shared) <= kMostSharedBytes - 1024, "the system takes 1024 bytes of each block's");
};

// Walks are numbered with the groups of channels innermost, then tiles of columns, bands of rows, images or pairs of
// them: warps that run at one time read what lies together.
struct StripWalks {
  Divider groups = {}, tiles = {}, bands = {};
  int images = 1;                       // of a walk
  int rows = 1;                         // of a band
  int lead = 0, top_lead = 0;           // steps before a band's first row; before y's first
  uint32_t count = 0;                   // of walks
  int64_t y_row = 0, residual_row = 0;  // elements from one row of pixels to the next
  LAMINA_HD int Lead(int row) const { return row == 0 ? top_lead : lead; }
};

struct StripBegin {
  int group, tile, row, image;  // `image`: of the walk's first one
};
LAMINA_HD StripBegin BeginOf(const StripWalks& w, uint32_t walk) {
  const uint32_t outer = w.groups.Quotient(walk), band = w.tiles.Quotient(outer), image = w.bands.Quotient(band);
  return {static_cast<int>(walk - outer * w.groups.divisor), static_cast<int>(outer - band * w.tiles.divisor),
          static_cast<int>(band - image * w.bands.divisor) * w.rows, static_cast<int>(image) * w.images};
}

// Steps of all walks of one warp, if every warp has as many walks: the device's time. Beginning one costs about a step.
constexpr int64_t StripSteps(const StripWalks& w, int64_t warps) {
  return DivUp(w.count, warps) * (w.rows + w.lead + 1);
}

inline constexpr int kMostStripRows = 64;  // of a band; the rows before it are few beside these

// The walks with the fewest steps; of equal ones the longest, which read the fewest rows twice, in one image, whose
// strips share columns.
constexpr StripWalks StripWalksOf(const StripSizes& sizes, int kernel, int stride, int64_t images, int64_t oh,
                                  int64_t ow, int64_t channels, int pad_top, int64_t warps) {
  StripWalks best;
  int64_t least = INT64_MAX;
  for (int of_images = 1; of_images <= sizes.strips(); ++of_images) {
    const int64_t groups = DivUp(channels, kWalkChannels);
    const int64_t tiles = DivUp(ow, sizes.columns * (sizes.strips() / of_images));
    for (int64_t rows = std::min<int64_t>(oh, kMostStripRows); rows >= 1; --rows) {
      const int64_t bands = DivUp(oh, rows);
      if (DivUp(oh, bands) != rows) continue;
      StripWalks w;
      w.groups = Divider::Of(static_cast<uint32_t>(groups));
      w.tiles = Divider::Of(static_cast<uint32_t>(tiles));
      w.bands = Divider::Of(static_cast<uint32_t>(bands));
      w.images = of_images;
      w.rows = static_cast<int>(rows);
      w.lead = (kernel - 1) / stride;
      // Rows of x above the image add nothing: the first walks begin with the step that sees the image's first row.
      w.top_lead = std::max(0, kernel - 1 - pad_top) / stride;
      w.count = static_cast<uint32_t>(DivUp(images, of_images) * groups * tiles * bands);
      if (const int64_t steps = StripSteps(w, warps); steps < least) {
        least = steps;
        best = w;
      }
    }
  }
  return best;
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_DEPTHWISE_STRIPS_H_
