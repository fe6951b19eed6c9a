// Which tile of the Hopper matrix product (sm90/gemm.cuh) suits a problem: clocks by the data sheet's figures.
#ifndef LAMINA_KERNELS_CUDA_CORE_WGMMA_PLAN_H_
#define LAMINA_KERNELS_CUDA_CORE_WGMMA_PLAN_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/core/schedule.h"

namespace lamina::cuda {

struct WgmmaTile {
  int m = 0, n = 0;
  bool operator==(const WgmmaTile&) const = default;
};

// The tiles that kernels are made for: one with as many sums as a thread can have, and three with fewer. Of the two
// large ones, 3 x TF32 takes that with fewer columns, because a column brings two parts of its weights.
constexpr WgmmaTile LargeTile(Math math) { return math == Math::kTf32x3 ? WgmmaTile{256, 128} : WgmmaTile{128, 256}; }
inline constexpr WgmmaTile kSmallTiles[] = {{128, 128}, {256, 64}, {128, 64}};

// Clocks of a multiprocessor for a step of 128 bytes of k: what the tensor cores take for its products, or shared
// memory for the writing and reading of the operands, 128 bytes a clock.
constexpr int64_t MultiplyClocks(Math math, WgmmaTile tile) {
  const double flops = 2.0 * tile.m * tile.n * 128 / ElementBytes(math);
  const auto products = static_cast<int64_t>(flops / WgmmaFlopsPerClock(math));
  const int64_t times = math == Math::kTf32x3 ? 3 : 1;  // that weights are read
  const int64_t written = tile.m + WeightParts(math) * tile.n, read = int64_t{tile.m} / 64 * (64 + times * tile.n);
  return std::max(products, written + read);
}
// The same for bringing them from L2: about 32 bytes a clock, half of what a multiprocessor's port is made for.
constexpr int64_t LoadClocks(Math math, WgmmaTile tile) {
  return (int64_t{tile.m} + WeightParts(math) * tile.n) * 128 / 32;
}

// Loads go on during the epilogue, products do not. It takes about as long as a step of four times its sums.
constexpr int64_t TileClocks(Math math, WgmmaTile tile, int64_t steps) {
  const int64_t epilogue = int64_t{tile.m} * tile.n / 16 + 600;
  return std::max(steps * LoadClocks(math, tile), steps * MultiplyClocks(math, tile) + epilogue);
}

// Clocks for all: waves of tiles over the multiprocessors.
constexpr int64_t WgmmaClocks(Math math, WgmmaTile tile, int64_t rows, int64_t n, int64_t steps,
                              int64_t multiprocessors) {
  return DivUp(DivUp(rows, tile.m) * DivUp(n, tile.n), multiprocessors) * TileClocks(math, tile, steps);
}

// The tile with the fewest.
constexpr WgmmaTile WgmmaTileFor(Math math, int64_t rows, int64_t n, int64_t steps, int64_t multiprocessors) {
  WgmmaTile best = LargeTile(math);
  for (const WgmmaTile& tile : kSmallTiles) {
    const auto clocks = [&](const WgmmaTile& t) { return WgmmaClocks(math, t, rows, n, steps, multiprocessors); };
    if (clocks(tile) < clocks(best)) best = tile;
  }
  return best;
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_WGMMA_PLAN_H_
