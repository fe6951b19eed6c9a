// The plan of depthwise and pointwise convolution in one kernel on Hopper (sm90/fused_dw_pw.cuh): what its blocks'
// shared memory holds, and which pixels make a tile.
//   unit    8 neighbouring pixels of one row of the depthwise output: 8 rows of the product, a swizzle's period
//   strip   what one of the kWarps depthwise warps computes: kUnitRows units one above the other
//   tile    kWarps strips: as many images, rows and columns of them as their tiling says
//   patch   the pixels of x that a tile sees, as TMA brings them
// A tile may reach beyond the image: TMA reads zeros there, and nothing is stored.
#ifndef LAMINA_KERNELS_CUDA_CORE_FUSED_SCHEDULE_H_
#define LAMINA_KERNELS_CUDA_CORE_FUSED_SCHEDULE_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/core/fused_dw_pw.h"
#include "kernels/cuda/core/schedule.h"

namespace lamina::cuda {

inline constexpr int kUnitColumns = 8;
inline constexpr int kLogStrips = 2;  // of a tile

// Windows of kTaps x kTaps of one stride; tiles of kM x kTileN outputs; channels in steps of 128 bytes.
template <int kTaps, int kStep, int kTileN>
struct FusedWgmmaShape {
  static constexpr int kK = kTaps, kStride = kStep, kN = kTileN;
  static constexpr int kStepBytes = 128;
  static constexpr int kWarps = 1 << kLogStrips, kConsumers = 2;  // of the depthwise step; warpgroups that multiply
  static constexpr int kThreads = 32 * kWarps + kConsumers * kWarpgroup;
  static constexpr int kUnitRows = kK == 3 && kStride == 1 ? 4 : 2;  // else weights or inputs take the registers
  static constexpr int kM = kWarps * kUnitRows * kUnitColumns;
  static constexpr int kInputRows = (kUnitRows - 1) * kStride + kK;  // of x, that a strip sees
  static constexpr int kInputs = (kUnitColumns - 1) * kStride + kK;  // of each of them
  // The warpgroups that multiply share out a tile's rows, or else its columns.
  static constexpr int kColumns = kM == 128 ? kN : kN / 2;
  static constexpr int kProducerRegisters = 136, kConsumerRegisters = 184;  // of the 168 each that a block begins with
  static constexpr int kStages = kN == 256 ? 2 : 3;
  static constexpr int kPatches = kStride == 1 ? 4 : kK == 3 ? 3 : 2;
  struct alignas(1024) Stage {
    unsigned char a[kM * kStepBytes], b[kN * kStepBytes];
  };
  static constexpr int kPatchesBytes = kMostSharedBytes - kStages * static_cast<int>(sizeof(Stage)) -
                                       kConsumers * 4 * static_cast<int>(sizeof(WgmmaSlab)) - 1024;
  static constexpr int kPatchPixels = kPatchesBytes / kPatches / kStepBytes;  // the most
  struct Shared {
    Stage stages[kStages];
    unsigned char patches[kPatches][kPatchPixels * kStepBytes];
    WgmmaSlab slabs[kConsumers * 4];
    RingBarriers<kStages> stage_barriers;
    RingBarriers<kPatches> patch_barriers;
  };
  static_assert(sizeof(Shared) <= kMostSharedBytes, "a block's shared memory");
};

// Calls f(shape) with the kernel's for a window and a width of tile: the one list of what there is.
template <class F>
constexpr auto WithFusedShape(int k, int stride, int tile_n, const F& f) {
  const auto with_n = [&]<int kK, int kStride>() {
    return tile_n == 128 ? f(FusedWgmmaShape<kK, kStride, 128>{}) : f(FusedWgmmaShape<kK, kStride, 256>{});
  };
  if (k == 3) return stride == 1 ? with_n.template operator()<3, 1>() : with_n.template operator()<3, 2>();
  return stride == 1 ? with_n.template operator()<5, 1>() : with_n.template operator()<5, 2>();
}

// The strips of a tile: 2^log_across side by side, 2^log_down one above the other, the rest of them in as many images.
struct FusedTiling {
  int log_across = 0, log_down = 0;
  int tiles = 0;                   // of all images
  Divider across = {}, down = {};  // tiles of one row, rows of tiles of one image

  LAMINA_HD int images() const { return 1 << (kLogStrips - log_across - log_down); }
};

// What a tile's patch is.
struct PatchSize {
  int columns, rows, images;
  LAMINA_HD int pixels() const { return columns * rows * images; }
};
template <class Shape>
LAMINA_HD PatchSize PatchOf(const FusedTiling& t) {
  return {((kUnitColumns << t.log_across) - 1) * Shape::kStride + Shape::kK,
          ((Shape::kUnitRows << t.log_down) - 1) * Shape::kStride + Shape::kK, t.images()};
}

// Where a strip lies in its tile.
struct StripPlace {
  int image, row, column;  // of the depthwise output
};
template <class Shape>
LAMINA_HD StripPlace PlaceOf(const FusedTiling& t, int strip) {
  return {strip >> (t.log_across + t.log_down), (strip >> t.log_across & ((1 << t.log_down) - 1)) * Shape::kUnitRows,
          (strip & ((1 << t.log_across) - 1)) * kUnitColumns};
}

// Where a tile begins.
template <class Shape>
LAMINA_HD StripPlace TileBegin(const FusedTiling& t, uint32_t tile) {
  const uint32_t row = t.across.Quotient(tile), image = t.down.Quotient(row);
  return {static_cast<int>(image) * t.images(),
          static_cast<int>(row - image * t.down.divisor) * (Shape::kUnitRows << t.log_down),
          static_cast<int>(tile - row * t.across.divisor) * (kUnitColumns << t.log_across)};
}

// The fewest tiles; of those with as many, that with the smallest patch.
template <class Shape>
constexpr FusedTiling TilingOf(int64_t images, int64_t oh, int64_t ow) {
  FusedTiling best;
  int64_t least = INT64_MAX;
  for (int log_across = 0; log_across <= kLogStrips; ++log_across) {
    for (int log_down = 0; log_across + log_down <= kLogStrips; ++log_down) {
      FusedTiling t{log_across, log_down};
      const PatchSize patch = PatchOf<Shape>(t);
      if (patch.pixels() > Shape::kPatchPixels) continue;
      const int64_t across = DivUp(ow, kUnitColumns << log_across), down = DivUp(oh, Shape::kUnitRows << log_down);
      const int64_t tiles = DivUp(images, t.images()) * across * down;
      const int64_t cost = tiles * 1024 + patch.pixels();
      if (cost >= least) continue;
      least = cost;
      t.tiles = static_cast<int>(tiles);
      t.across = Divider::Of(static_cast<uint32_t>(across));
      t.down = Divider::Of(static_cast<uint32_t>(down));
      best = t;
    }
  }
  return best;
}

// Clocks of a multiprocessor for one tile of pixels and `n` of kN outputs, of `steps` steps of channels,
// `lane_channels` of them to a lane: of the longest of four things that go on at a time.
template <class Shape>
constexpr int64_t FusedItemClocks(const PatchSize& patch, int64_t steps, int64_t n, int lane_channels) {
  const int64_t inputs = Shape::kInputRows * Shape::kInputs, taps = Shape::kK * Shape::kK;
  const int64_t sums = Shape::kUnitRows * kUnitColumns * lane_channels, columns = std::min<int64_t>(n, Shape::kN);
  // A depthwise warp has a scheduler to itself but for what multiplying takes, and issues four instructions in five
  // clocks: loads and conversions of inputs, multiply-adds and the end of each sum, weights, barriers.
  const int64_t instructions = inputs * (lane_channels == 1 ? 1 : 3) + sums * (taps + 4) + 2 * taps + 100;
  const int64_t depthwise = steps * instructions * 5 / 4;
  // 128 rows' products with an output take four clocks; the epilogue follows (wgmma_plan.h).
  const int64_t multiply = steps * 4 * Shape::kN * Shape::kM / 128 + Shape::kM * columns / 16 + 600;
  // Shared memory moves lines of 128 bytes: d and what it is made of, what TMA brings, what wgmma reads, the slabs.
  const int64_t lines = steps * (Shape::kWarps * inputs + Shape::kM + patch.pixels() + Shape::kN +
                                 Shape::kConsumers * (64 + Shape::kColumns)) +
                        Shape::kM * columns / 16;
  const int64_t loads = steps * (patch.pixels() + Shape::kN) * 128 / kL2BytesPerClock;
  return std::max({depthwise, multiply, lines, loads});
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_FUSED_SCHEDULE_H_
