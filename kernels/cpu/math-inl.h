// exp, expm1, tanh, sigmoid and the normal distribution's tail, for the vectors of one SIMD target. Read again for
// every target.
//
// Over the whole float range, to a few units in the last place (bounds at each function, checked by tests): NaN gives
// NaN, infinities give the limits, results below the least normal float come out denormal, as IEEE asks.
#if defined(LAMINA_KERNELS_CPU_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_MATH_INL_H_
#undef LAMINA_KERNELS_CPU_MATH_INL_H_
#else
#define LAMINA_KERNELS_CPU_MATH_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

// x = n ln 2 + r with n an integer and |r| <= ln 2 / 2; needs |n| < 2^22.
struct ReducedExponent {
  V n, r;
  hn::Vec<hn::RebindToSigned<D>> bits;  // n as an integer
};
HWY_INLINE ReducedExponent ReduceByLn2(V x) {
  const D d;
  const hn::RebindToSigned<D> di;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the mantissa.
  const V shift = hn::Set(d, 0x1.8p23f);
  const V shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), shift);
  const V n = hn::Sub(shifted, shift);
  // ln 2 in two parts; n times the first is exact for |n| < 2^12.
  V r = hn::NegMulAdd(n, hn::Set(d, 0x1.62ep-1f), x);
  r = hn::NegMulAdd(n, hn::Set(d, 3.19461850e-05f), r);
  return {n, r, hn::Sub(hn::BitCast(di, shifted), hn::BitCast(di, shift))};
}

// e^r - 1 for |r| <= ln 2 / 2, relative error 3.1e-9 before rounding: r + r^2 q(r).
HWY_INLINE V Expm1Reduced(V r) {
  const D d;
  V q = hn::Set(d, 1.381454058e-03f);
  q = hn::MulAdd(q, r, hn::Set(d, 8.368745446e-03f));
  q = hn::MulAdd(q, r, hn::Set(d, 4.166838899e-02f));
  q = hn::MulAdd(q, r, hn::Set(d, 1.666652113e-01f));
  q = hn::MulAdd(q, r, hn::Set(d, 4.999999404e-01f));
  return hn::MulAdd(hn::Mul(r, r), q, r);
}

// 2^n for -126 <= n <= 127.
HWY_INLINE V PowerOfTwo(hn::Vec<hn::RebindToSigned<D>> n) {
  const hn::RebindToSigned<D> di;
  return hn::BitCast(D(), hn::ShiftLeft<23>(hn::Add(n, hn::Set(di, 127))));
}

// e^x within 1.5 ulp; exactly 1 at 0, 0 from -104 down, infinite from 88.73 up.
HWY_INLINE V Exp(V x) {
  const D d;
  const ReducedExponent e = ReduceByLn2(Clamp(hn::Set(d, -104.0f), hn::Set(d, 89.0f), x));
  const V mantissa = hn::Add(hn::Set(d, 1.0f), Expm1Reduced(e.r));
  // 2^n in two factors, since n reaches from -150 to 128: the last product rounds to denormals or overflows.
  const auto half = hn::ShiftRight<1>(e.bits);
  return hn::Mul(hn::Mul(mantissa, PowerOfTwo(half)), PowerOfTwo(hn::Sub(e.bits, half)));
}

// e^x for x in [-87, 88] or NaN, within 1.5 ulp: the same without the range's ends.
HWY_INLINE V ExpNormal(V x) {
  const D d;
  const ReducedExponent e = ReduceByLn2(x);
  return hn::Mul(hn::Add(hn::Set(d, 1.0f), Expm1Reduced(e.r)), PowerOfTwo(e.bits));
}

// e^x - 1 for x <= 88 or NaN, within 3 ulp, near 0 too.
HWY_INLINE V Expm1(V x) {
  const D d;
  const V one = hn::Set(d, 1.0f);
  const ReducedExponent e = ReduceByLn2(AtLeast(hn::Set(d, -40.0f), x));
  const V power = PowerOfTwo(e.bits);
  return hn::MulAdd(power, Expm1Reduced(e.r), hn::Sub(power, one));
}

// tanh x within 4 ulp; odd, exactly +-1 from |x| = 10 on.
HWY_INLINE V Tanh(V x) {
  const D d;
  const V two = hn::Set(d, 2.0f);
  // tanh |x| = e / (e + 2) with e = exp(2 |x|) - 1, which keeps its relative accuracy near 0.
  const V e = Expm1(hn::Mul(two, AtMost(hn::Set(d, 10.0f), hn::Abs(x))));
  return hn::CopySign(hn::Div(e, hn::Add(e, two)), x);
}

// 1 / (1 + exp(-x)) within 4 ulp, in the left tail too.
HWY_INLINE V Sigmoid(V x) {
  const D d;
  const V one = hn::Set(d, 1.0f);
  const V e = Exp(hn::Neg(hn::Abs(x)));
  return hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
}

// The standard normal distribution function, 0.5 erfc(-x / sqrt 2), within 6 ulp, plus x^2 / 2 ulp in the left tail,
// where the exponent -x^2 / 2 is itself rounded. Exactly 0.5 at 0.
HWY_INLINE V NormalCdf(V x) {
  const D d;
  const V one = hn::Set(d, 1.0f), half = hn::Set(d, 0.5f);
  const V t = AtMost(hn::Set(d, 16.0f), hn::Abs(x));  // from 15 on the tail is 0
  // The upper tail: exp(-t^2 / 2) u R(w) with u = 1 / (1 + 0.305 t) and w = 1 - u; R is minimax over t in [0, 15],
  // relative error 1.1e-7.
  const V scaled = hn::Mul(hn::Set(d, 0.305f), t);
  const V u = hn::Div(one, hn::Add(one, scaled)), w = hn::Mul(scaled, u);
  V r = hn::Set(d, -3.64294459e-02f);
  r = hn::MulAdd(r, w, hn::Set(d, 1.03102131e-01f));
  r = hn::MulAdd(r, w, hn::Set(d, -3.75109192e-02f));
  r = hn::MulAdd(r, w, hn::Set(d, -1.20328768e-01f));
  r = hn::MulAdd(r, w, hn::Set(d, -5.07984767e-02f));
  r = hn::MulAdd(r, w, hn::Set(d, 5.71620354e-01f));
  r = hn::MulAdd(r, w, hn::Set(d, -8.08012880e-01f));
  r = hn::MulAdd(r, w, half);
  const V tail = hn::Mul(hn::Mul(r, u), Exp(hn::Neg(hn::Mul(hn::Mul(t, half), t))));
  return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail));
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
