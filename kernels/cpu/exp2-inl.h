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
// at 0, exactly 0 below -126, so that no denormal slows the sums down; NaN stays NaN. For x > 0 right up to 127.
//
// x = n + f with n the nearest integer: adding 1.5 * 2^23 + 127 leaves n + 127 in the low bits of the sum, which
// shifted into the exponent are 2^n. 2^f on [-1/2, 1/2] is a polynomial of degree 5 with least relative error.
HWY_INLINE V Exp2(D d, V x) {
  const hn::RebindToSigned<D> di;
  const V magic = hn::Set(d, 12582912.0f + 127.0f);
  const V t = hn::Add(x, magic);
  const V f = hn::Sub(x, hn::Sub(t, magic));
  V p = hn::Set(d, 0x1.5bba14p-10f);
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.3cea88p-7f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.c6b752p-5f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.ebf9bcp-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.62e42ap-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, t)));
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  // The zeroing is part of the multiplication: Highway would take an operation more, 0.5% of attention (Zen 4).
  return V{_mm512_maskz_mul_ps(_mm512_cmp_ps_mask(x.raw, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ), p.raw, power.raw)};
#else
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)), hn::Mul(p, power));
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
