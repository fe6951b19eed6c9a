// How Hopper's kernels lie in a multiprocessor: the ring of stages, tiles of the matrix product (sm90/gemm.cuh), shared
// memory.
#ifndef LAMINA_KERNELS_CUDA_CORE_SCHEDULE_H_
#define LAMINA_KERNELS_CUDA_CORE_SCHEDULE_H_

#include <cstdint>
#include <type_traits>

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
  LAMINA_HD void Skip(int count) {
    phase ^= (stage + count) / kStages % 2;
    stage = (stage + count) % kStages;
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
  alignas(16) float sums[kRows * kPitch];
};

// What two warpgroups make of a block's tiles.
//   kHalves  half the rows of each tile are a warpgroup's
//   kKeeps   so they are, and the weights of all steps, at most kKeptSteps of them, lie in shared memory for as long as
//            the block runs
//   kTurns   every other tile is a warpgroup's: one multiplies while the other ends its layer
enum class WgmmaForm { kHalves, kKeeps, kTurns };
inline constexpr int kKeptSteps = 18;  // 3 x 3 x 128 channels of 16 bits

// Tiles of kM x kN outputs; k in steps of one swizzled row of 128 bytes.
template <Math kMath, int kTileM, int kTileN, WgmmaForm kForm = WgmmaForm::kHalves>
struct WgmmaShape {
  static constexpr bool kKeeps = kForm == WgmmaForm::kKeeps, kTurns = kForm == WgmmaForm::kTurns;
  static constexpr int kM = kTileM, kN = kTileN;
  static constexpr int kStepBytes = 128;
  static constexpr int kConsumers = 2;  // warpgroups, beside the one that loads
  static constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
  static constexpr int kReaders = kTurns ? 1 : kConsumers;  // of a tile
  static constexpr int kRows = kM / kReaders;               // of a tile that are a warpgroup's
  static constexpr int kSums = kRows * kN / kWarpgroup;     // of a thread
  static constexpr int kParts = WeightParts(kMath);
  static constexpr int kWeightBytes = kParts * kN * kStepBytes;  // of a step
  static constexpr int kStageBytes = kM * kStepBytes + (kKeeps ? 0 : kWeightBytes);
  static constexpr int kStages = (192 * 1024 - (kKeeps ? kKeptSteps * kWeightBytes : 0)) / kStageBytes;

  struct Both {
    unsigned char a[kM * kStepBytes], b[kWeightBytes];
  };
  struct Rows {
    unsigned char a[kM * kStepBytes];
  };
  struct alignas(1024) Stage : std::conditional_t<kKeeps, Rows, Both> {};
  struct Kept {
    alignas(1024) unsigned char b[kKeptSteps][kWeightBytes];
    uint64_t full;  // its barrier
  };
  struct None {};
  struct Shared {
    Stage stages[kStages];
    WgmmaSlab slabs[kConsumers * kWarpgroup / 32];
    RingBarriers<kStages> barriers;
    uint64_t turns[kConsumers];  // kTurns: barriers, for the tile before a warpgroup's has been multiplied
    std::conditional_t<kKeeps, Kept, None> kept;
  };
  static_assert(kRows % 64 == 0, "a wgmma has 64 rows");
  static_assert(kTileN == 64 || kTileN == 128 || kTileN == 256, "device/hopper.cuh has these widths of wgmma");
  static_assert(kSums <= 128, "a thread's registers");
  static_assert(sizeof(Shared) <= kMostSharedBytes, "a block's shared memory");
  static_assert(sizeof(Stage) == kStageBytes, "stages lie one after the other at multiples of 1024");
};

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_SCHEDULE_H_
