// The plan of the Hopper matrix product (sm90/gemm.cuh): tiles, the ring of stages, shared memory, and which width of
// tile suits a problem.
#ifndef LAMINA_KERNELS_CUDA_CORE_SCHEDULE_H_
#define LAMINA_KERNELS_CUDA_CORE_SCHEDULE_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/core/gemm.h"

namespace lamina::cuda {

inline constexpr int kMostSharedBytes = 232448;  // of a block, on sm_90
inline constexpr int kWarpgroup = 128;           // threads

// A ring of stages as its producer and its consumers walk it: each barrier's phase flips when the ring has gone round.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t phase = 0;
  LAMINA_HD void Advance() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// The barriers of a ring: `full` when a stage's bytes have arrived, `empty` when every reader has let go of it.
template <int kStages>
struct RingBarriers {
  uint64_t full[kStages], empty[kStages];
};

// Shared memory in which a warp turns its 16 rows of sums to rows, some columns at a time (sm90/wgmma_epilogue.cuh).
struct WgmmaSlab {
  static constexpr int kRows = 16, kColumns = 32;
  static constexpr int kPitch = kColumns + 8;  // floats; 8 more put the rows of one store on different banks
  float sums[kRows * kPitch];
};

// Tiles of 128 x kN outputs, half the rows to each of two warpgroups; k in steps of one swizzled row of 128 bytes.
template <int kTileN>
struct WgmmaShape {
  static constexpr int kM = 128, kN = kTileN;
  static constexpr int kStepBytes = 128;
  static constexpr int kConsumers = 2;  // warpgroups, beside the one that loads
  static constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
  static constexpr int kStageBytes = (kM + kN) * kStepBytes;
  static constexpr int kStages = 4 * 384 / (kM + kN);  // 192 KiB

  struct alignas(1024) Stage {
    unsigned char a[kM * kStepBytes], b[kN * kStepBytes];
  };
  struct Shared {
    Stage stages[kStages];
    WgmmaSlab slabs[kConsumers * kWarpgroup / 32];
    RingBarriers<kStages> barriers;
  };
  static_assert(kTileN == 64 || kTileN == 128 || kTileN == 256, "device/hopper.cuh has these widths of wgmma");
  static_assert(sizeof(Shared) <= kMostSharedBytes, "a block's shared memory");
  static_assert(sizeof(Stage) == kStageBytes, "stages lie one after the other at multiples of 1024");
};

// Clocks of a multiprocessor for a tile of 128 x tile_n: 2048 products of 16-bit elements or 1024 of TF32 each, and an
// epilogue that nothing overlaps. A narrow tile cannot read its operands as fast as it multiplies.
constexpr int64_t TileClocks(int tile_n, int64_t steps) {
  const int64_t step = tile_n == 64 ? 320 : int64_t{4} * tile_n;
  return steps * step + int64_t{8} * tile_n + 600;
}

// The width with the fewest clocks in all: waves of tiles over the multiprocessors.
constexpr int WgmmaTileN(int64_t rows, int64_t n, int64_t steps, int64_t multiprocessors) {
  int best = 0;
  int64_t least = INT64_MAX;
  for (const int tile_n : {256, 128, 64}) {
    const int64_t waves = DivUp(DivUp(rows, 128) * DivUp(n, tile_n), multiprocessors);
    const int64_t clocks = waves * TileClocks(tile_n, steps);
    if (clocks < least) {
      least = clocks;
      best = tile_n;
    }
  }
  return best;
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_SCHEDULE_H_
