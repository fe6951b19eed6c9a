// The plan of attention on Hopper (sm90/attention.cuh): tiles, rings of stages, shared memory, and the order of tiles.
#ifndef LAMINA_KERNELS_CUDA_CORE_ATTENTION_SCHEDULE_H_
#define LAMINA_KERNELS_CUDA_CORE_ATTENTION_SCHEDULE_H_

#include "kernels/cuda/core/attention.h"
#include "kernels/cuda/core/schedule.h"

namespace lamina::cuda {

// Tiles of 128 queries, half of them to each of two warpgroups, and kKeys keys, of rows with kChannels channels. TMA
// brings 64 channels of a tile's rows at a time: a box, each row of it one swizzled row of 128 bytes.
template <int kChannels>
struct WgmmaAttentionShape {
  static constexpr int kD = kChannels;
  static constexpr int kRows = 128, kKeys = kD == 256 ? 64 : 128;
  static constexpr int kConsumers = 2;  // warpgroups, beside the one that loads
  static constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
  static constexpr int kStages = 2;
  static constexpr int kBoxChannels = 64, kBoxRowBytes = 128, kBoxes = kD / kBoxChannels;

  template <int kBoxRows>
  struct alignas(1024) Boxes {
    unsigned char box[kBoxes][kBoxRows * kBoxRowBytes];
  };
  using Queries = Boxes<kRows>;
  using Keys = Boxes<kKeys>;
  struct Shared {
    Queries q;
    Keys k[kStages], v[kStages];
    RingBarriers<1> q_barriers;
    RingBarriers<kStages> k_barriers, v_barriers;
  };
  static_assert(kD == 64 || kD == 128 || kD == 256, "device/hopper.cuh has these widths of wgmma");
  static_assert(sizeof(Shared) <= kMostSharedBytes, "a block's shared memory");
  static_assert(sizeof(Queries) == kRows * kD * 2 && sizeof(Keys) == kKeys * kD * 2, "boxes lie one after the other");
};

// 128 queries of a head, from `row` on.
struct HeadTile {
  int b, head, row;
};
constexpr int64_t HeadTiles(const AttentionArgs& a, int rows) {
  return int64_t{a.batch} * a.num_heads * DivUp(a.seqlen_q, rows);
}
// Tile number `index` in the order in which blocks take them. Under a causal rule every head's last tiles come first,
// for they are the longest; else those of one head follow each other and share its keys in L2.
LAMINA_HD HeadTile HeadTileAt(const AttentionArgs& a, int index, int rows) {
  const auto tiles = static_cast<int>(DivUp(a.seqlen_q, rows));
  const int heads = a.batch * a.num_heads;
  const bool longest_first = a.rule.right >= 0;
  const int in_all = longest_first ? index % heads : index / tiles;
  const int tile = longest_first ? tiles - 1 - index / heads : index % tiles;
  return {in_all / a.num_heads, in_all % a.num_heads, tile * rows};
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_ATTENTION_SCHEDULE_H_
