// What both attention kernels do to scores and weights. Read again for every target.
#if defined(LAMINA_KERNELS_CPU_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_ATTENTION_INL_H_
#undef LAMINA_KERNELS_CPU_ATTENTION_INL_H_
#else
#define LAMINA_KERNELS_CPU_ATTENTION_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/exp2-inl.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

// The weight of a pair that is not kept: -0 where 2^x gives +0 at least.
inline constexpr uint32_t kDroppedBits = 0x80000000u;

HWY_INLINE V SoftCap(D d, float cap, V s) { return hn::Mul(hn::Set(d, cap), Tanh(s)); }

// 2^(score - maximum); -0 for a score of -inf, which is a pair that is not kept.
HWY_INLINE V MarkedWeight(D d, V score, V maximum) {
  const V dropped = hn::BitCast(d, hn::Set(hn::RebindToUnsigned<D>(), kDroppedBits));
  return hn::IfThenElse(hn::Eq(score, hn::Set(d, kMinusInfinity)), dropped, Exp2(d, hn::Sub(score, maximum)));
}

HWY_INLINE hn::Mask<D> IsDropped(D d, V weight) {
  const hn::RebindToUnsigned<D> du;
  return hn::RebindMask(d, hn::Eq(hn::BitCast(du, weight), hn::Set(du, kDroppedBits)));
}

// Whether rows x columns floats hold neither NaN nor infinity: 0 times such a number is NaN, which sticks in a sum.
HWY_INLINE bool AllFinite(const float* p, ptrdiff_t stride, size_t rows, size_t columns) {
  const D d;
  const size_t N = hn::Lanes(d);
  V sum[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};  // which do not wait for each other
  for (size_t r = 0; r < rows; ++r, p += stride) {
    size_t c = 0;
    for (; c + 4 * N <= columns; c += 4 * N) {
      Unroll<4>([&](auto i) LAMINA_INLINE { sum[i] = hn::MulAdd(hn::LoadU(d, p + c + i * N), hn::Zero(d), sum[i]); });
    }
    for (; c < columns; c += N) sum[0] = hn::MulAdd(LoadUpTo(d, p + c, columns - c), hn::Zero(d), sum[0]);
  }
  const V all = hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3]));
  return hn::AllTrue(d, hn::Eq(all, hn::Zero(d)));
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
