// Picks one SIMD target's entry out of a table that HWY_EXPORT made, from Context::isa and not from global state, so
// that two contexts with different targets can be used side by side.
//
//   HWY_EXPORT(Choose);
//   const GemmKernel& ChooseGemm(Isa isa) { return LAMINA_DISPATCH(Choose, isa)(); }
#ifndef LAMINA_KERNELS_CPU_DISPATCH_H_
#define LAMINA_KERNELS_CPU_DISPATCH_H_

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "lamina/context.h"

namespace lamina::cpu {

constexpr int64_t HighwayTarget(Isa isa) {
  switch (isa) {
    case Isa::kSse4: return HWY_SSE4;
    case Isa::kAvx2: return HWY_AVX2;
    case Isa::kAvx3: return HWY_AVX3;
    default: return HWY_STATIC_TARGET;  // the baseline: scalar with GCC 12.2, EMU128 with clang
  }
}

inline size_t TableIndex(Isa isa) {
  if constexpr ((HWY_TARGETS & (HWY_TARGETS - 1)) == 0) return 0;  // one target compiled: a table of one
  const int64_t target = HighwayTarget(isa);
  if (target == HWY_STATIC_TARGET) return HWY_MAX_DYNAMIC_TARGETS + 1;
  return hwy::Num0BitsBelowLS1Bit_Nonzero64(static_cast<uint64_t>(HWY_CHOSEN_TARGET_SHIFT(target)));
}

}  // namespace lamina::cpu

#define LAMINA_DISPATCH(FUNC, isa) (HWY_DISPATCH_TABLE(FUNC)[::lamina::cpu::TableIndex(isa)])

#endif  // LAMINA_KERNELS_CPU_DISPATCH_H_
