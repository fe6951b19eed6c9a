// Which tile of the Hopper matrix product (sm90/gemm.cuh) suits a problem, and into how many parts its k is split: by
// clocks that follow from the data sheet's figures.
#ifndef LAMINA_KERNELS_CUDA_CORE_WGMMA_PLAN_H_
#define LAMINA_KERNELS_CUDA_CORE_WGMMA_PLAN_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/core/schedule.h"

namespace lamina::cuda {

struct WgmmaTile {
  int m = 0, n = 0;
  WgmmaForm form = WgmmaForm::kHalves;
  bool operator==(const WgmmaTile&) const = default;
};

// The tiles that kernels are made for: one with as many sums as a thread can have, and some with fewer. Of the two
// large ones, 3 x TF32 takes that with fewer columns, because a column brings two parts of its weights.
constexpr WgmmaTile LargeTile(Math math) { return math == Math::kTf32x3 ? WgmmaTile{256, 128} : WgmmaTile{128, 256}; }
inline constexpr WgmmaTile kKeepingTile{128, 64, WgmmaForm::kKeeps}, kTurnsTile{128, 128, WgmmaForm::kTurns};
inline constexpr WgmmaTile kSmallTiles[] = {{128, 128}, {256, 64}, {128, 64}, kKeepingTile, kTurnsTile};

// Rows of weights that a step brings to shared memory.
constexpr int64_t StepWeights(Math math, WgmmaTile tile) {
  return tile.form == WgmmaForm::kKeeps ? 0 : WeightParts(math) * tile.n;
}

// Clocks of a multiprocessor for a step of 128 bytes of k: what the tensor cores take for its products, or shared
// memory for the writing and reading of the operands, 128 bytes a clock.
constexpr int64_t MultiplyClocks(Math math, WgmmaTile tile) {
  const double flops = 2.0 * tile.m * tile.n * 128 / ElementBytes(math);
  const auto products = static_cast<int64_t>(flops / WgmmaFlopsPerClock(math));
  const int64_t times = math == Math::kTf32x3 ? 3 : 1;  // that weights are read
  const int64_t written = tile.m + StepWeights(math, tile), read = int64_t{tile.m} / 64 * (64 + times * tile.n);
  return std::max(products, written + read);
}
// The same for bringing them from L2. Rows that do not exist are not brought.
constexpr int64_t LoadClocks(Math math, WgmmaTile tile, int64_t rows) {
  return (std::min<int64_t>(tile.m, rows) + StepWeights(math, tile)) * 128 / kL2BytesPerClock;
}

// Of a warpgroup that ends a tile's layer, or half a tile's: about as long as a step of eight times its sums.
constexpr int64_t EpilogueClocks(WgmmaTile tile) {
  return int64_t{tile.m} * tile.n / (tile.form == WgmmaForm::kTurns ? 8 : 16) + 600;
}

// Of one of many tiles. Loads go on during the epilogue; products do where warpgroups take turns.
constexpr int64_t TileClocks(Math math, WgmmaTile tile, int64_t rows, int64_t steps) {
  const int64_t loads = steps * LoadClocks(math, tile, rows), products = steps * MultiplyClocks(math, tile);
  const int64_t one = products + EpilogueClocks(tile);  // of a warpgroup
  return std::max({loads, products, tile.form == WgmmaForm::kTurns ? one / 2 : one});
}

struct WgmmaPlan {
  WgmmaTile tile;
  int splits = 1;  // of k, over blocks
  int64_t clocks = INT64_MAX;
};

// With that tile, into as many parts of k as take the fewest clocks in all: waves of tiles over the multiprocessors,
// and where there are parts, a second launch that adds them up, for which they go through L2. Each part has four steps.
constexpr WgmmaPlan WgmmaPlanWith(WgmmaTile tile, Math math, int64_t rows, int64_t n, int64_t steps,
                                  int64_t multiprocessors) {
  constexpr int64_t kLeastSteps = 4, kMostSplits = 16, kLaunchClocks = 4400;
  const int64_t tiles = DivUp(rows, tile.m) * DivUp(n, tile.n);
  WgmmaPlan best{tile};
  if (tile.form != WgmmaForm::kHalves) {
    const bool keeps = tile.form == WgmmaForm::kKeeps;
    if (math == Math::kTf32x3 || (keeps && (n > tile.n || steps > kKeptSteps))) return best;  // that never ends
    // What nothing overlaps: loads before the first tile, an epilogue behind the last one.
    const int64_t alone = keeps ? steps * tile.n * 128 / kL2BytesPerClock
                                : (steps * MultiplyClocks(math, tile) + EpilogueClocks(tile)) / 2;
    best.clocks = DivUp(tiles, multiprocessors) * TileClocks(math, tile, rows, steps) + alone;
    return best;
  }
  for (int64_t splits = 1; splits == 1 || (splits <= kMostSplits && splits * kLeastSteps <= steps); ++splits) {
    const int64_t adding =
        splits == 1 ? 0 : kLaunchClocks + 8 * splits * rows * n / (kL2BytesPerClock * multiprocessors);
    const int64_t clocks =
        DivUp(tiles * splits, multiprocessors) * TileClocks(math, tile, rows, DivUp(steps, splits)) + adding;
    if (clocks < best.clocks) best.splits = static_cast<int>(splits), best.clocks = clocks;
  }
  return best;
}

// From the problem and the device alone, because the parts of k order the sums.
constexpr WgmmaPlan WgmmaPlanFor(Math math, int64_t rows, int64_t n, int64_t steps, int64_t multiprocessors) {
  WgmmaPlan best = WgmmaPlanWith(LargeTile(math), math, rows, n, steps, multiprocessors);
  for (const WgmmaTile& tile : kSmallTiles) {
    const WgmmaPlan plan = WgmmaPlanWith(tile, math, rows, n, steps, multiprocessors);
    if (plan.clocks < best.clocks) best = plan;
  }
  return best;
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_WGMMA_PLAN_H_
