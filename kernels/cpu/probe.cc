// The roofs of a machine: multiply-adds without memory, reads without arithmetic to speak of.
//
// multiply_add: kChains independent sums. Two FMA ports of 4 cycles want 8; 12 leave room for a slower port and fit,
// with the 2 constants and SSE4's product, 15 of 16 registers. read: 8 sums, two loads each a round, so that two loads
// a cycle are never held up by an addition's 4 cycles.
#include "kernels/cpu/probe.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/probe.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kChains = 12, kSums = 8;

float MultiplyAdd(size_t rounds) {
  const D d;
  // Read through volatile, so that nothing is computed at compile time; the sums settle at 0.1, far from denormals.
  volatile float factor = 0.999f, term = 1e-4f;
  const V f = hn::Set(d, factor), t = hn::Set(d, term);
  V sum[kChains];
  Unroll<kChains>([&](auto i) LAMINA_INLINE { sum[i] = hn::Set(d, 0.01f * static_cast<float>(i)); });
  for (size_t r = 0; r < rounds; ++r) {
    Unroll<kChains>([&](auto i) LAMINA_INLINE { sum[i] = hn::MulAdd(sum[i], f, t); });
  }
  Unroll<kChains - 1>([&](auto i) LAMINA_INLINE { sum[0] = hn::Add(sum[0], sum[i + 1]); });
  return hn::GetLane(sum[0]);
}

float Read(const float* HWY_RESTRICT data, size_t count) {
  const D d;
  const size_t N = hn::Lanes(d);
  V sum[kSums];
  Unroll<kSums>([&](auto i) LAMINA_INLINE { sum[i] = hn::Zero(d); });
  for (size_t at = 0; at < count; at += 2 * kSums * N) {
    Unroll<kSums>([&](auto i) LAMINA_INLINE { sum[i] = hn::Add(sum[i], hn::LoadU(d, data + at + i * N)); });
    Unroll<kSums>([&](auto i) LAMINA_INLINE { sum[i] = hn::Add(sum[i], hn::LoadU(d, data + at + (kSums + i) * N)); });
  }
  Unroll<kSums - 1>([&](auto i) LAMINA_INLINE { sum[0] = hn::Add(sum[0], sum[i + 1]); });
  return hn::GetLane(sum[0]);
}

const RoofProbe& Choose() {
  static_assert(kReadBlock % (2 * kSums * hn::MaxLanes(D())) == 0, "a block must be whole rounds");
  static const RoofProbe probe{&MultiplyAdd, 2 * kChains * hn::Lanes(D()), &Read};
  return probe;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {
HWY_EXPORT(Choose);
const RoofProbe& GetRoofProbe(Isa isa) { return LAMINA_DISPATCH(Choose, isa)(); }
}  // namespace lamina::cpu
#endif
