// 2^x for softmax, on the FMA pipes. Read again for every target.
#if defined(LAMINA_KERNELS_CPU_EXP2_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_EXP2_INL_H_
#undef LAMINA_KERNELS_CPU_EXP2_INL_H_
#else
#define LAMINA_KERNELS_CPU_EXP2_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

// 2^x for x <= 0 (a softmax's score less the maximum, with log2(e) folded into the scores): within 2.1 ulp, exactly 1
// at 0, exactly 0 below -125.5, so that no denormal slows the sums down; NaN stays NaN. For x > 0 right up to 127.
//
// x = n + f with n the nearest integer: adding 1.5 * 2^23 + 127 leaves n + 127 in the low bits of the sum, which
// shifted into the exponent are 2^n. 2^f on [-1/2, 1/2] is a polynomial of degree 5 with least relative error.
//
// Several vectors are taken together, step by step: one after the other they fill the schedulers with what waits for
// the 40 cycles of each (AVX2 on Zen 4: 6.5 -> 5.4 cycles a vector, 1% of attention).
template <size_t kCount>
HWY_INLINE void Exp2(D d, V (&x)[kCount]) {
  const hn::RebindToSigned<D> di;
  const V magic = hn::Set(d, 12582912.0f + 127.0f);
  V t[kCount], p[kCount];
  const auto each = [](const auto& f) LAMINA_INLINE { Unroll<kCount>(f); };
  each([&](auto i) LAMINA_INLINE { t[i] = hn::Add(x[i], magic); });
  each([&](auto i) LAMINA_INLINE { x[i] = hn::Sub(x[i], hn::Sub(t[i], magic)); });
  const auto step = [&](float c) LAMINA_INLINE {
    each([&](auto i) LAMINA_INLINE { p[i] = hn::MulAdd(p[i], x[i], hn::Set(d, c)); });
  };
  each([&](auto i) LAMINA_INLINE { p[i] = hn::MulAdd(hn::Set(d, 0x1.5bba14p-10f), x[i], hn::Set(d, 0x1.3cea88p-7f)); });
  step(0x1.c6b752p-5f);
  step(0x1.ebf9bcp-3f);
  step(0x1.62e42ap-1f);
  step(1.0f);
  const V least = hn::Set(d, 12582912.0f + 2.0f);  // t of 2^-125; 2^n * 2^f of the one below may be denormal
  each([&](auto i) LAMINA_INLINE {
    const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, t[i])));
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
    // The zeroing is part of the multiplication: Highway would take an operation more, 0.5% of attention (Zen 4).
    x[i] = V{_mm512_maskz_mul_ps(_mm512_cmp_ps_mask(t[i].raw, least.raw, _CMP_NLT_UQ), p[i].raw, power.raw)};
#else
    x[i] = hn::IfThenZeroElse(hn::Lt(t[i], least), hn::Mul(p[i], power));
#endif
  });
}
HWY_INLINE V Exp2(D d, V x) {
  V one[1] = {x};
  Exp2(d, one);
  return one[0];
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
