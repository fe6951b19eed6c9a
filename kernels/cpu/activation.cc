// x[i] = act(x[i]) (+ residual[i]): one loop for each of the 13 activations, a vector at a time.
//
// Formulas are chosen so that nothing overflows on the way to a finite result (hardswish of 3e38 is 3e38), the tails
// keep their relative accuracy (gelu and silu far on the left), and what the formula of types.h makes NaN is NaN
// (silu(-inf)).
#include "kernels/cpu/activation.h"

#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/activation.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

// x[i] = f(x[i]) (+ residual[i]).
template <class F>
HWY_INLINE void ForEachVector(float* x, const float* residual, size_t n, const F& f) {
  const D d;
  const size_t N = hn::Lanes(d);
  size_t i = 0;
  for (; i + N <= n; i += N) {
    V y = f(hn::LoadU(d, x + i));
    if (residual != nullptr) y = hn::Add(y, hn::LoadU(d, residual + i));
    hn::StoreU(y, d, x + i);
  }
  if (i == n) return;
  V y = f(LoadTail(d, x + i, n - i));
  if (residual != nullptr) y = hn::Add(y, LoadTail(d, residual + i, n - i));
  StoreTail(y, d, x + i, n - i);
}

void Activate(const Activation& activation, float* x, const float* residual, size_t n) {
  const D d;
  const V zero = hn::Zero(d), one = hn::Set(d, 1.0f);
  const V alpha = hn::Set(d, activation.alpha), beta = hn::Set(d, activation.beta);
  const auto for_each = [&](const auto& f) LAMINA_INLINE { ForEachVector(x, residual, n, f); };
  switch (activation.kind) {
    case ActivationKind::kNone: return for_each([&](V v) LAMINA_INLINE { return v; });
    case ActivationKind::kRelu: return for_each([&](V v) LAMINA_INLINE { return AtLeast(zero, v); });
    case ActivationKind::kRelu6: return for_each([&](V v) LAMINA_INLINE { return Clamp(zero, hn::Set(d, 6.0f), v); });
    case ActivationKind::kClamp: return for_each([&](V v) LAMINA_INLINE { return Clamp(alpha, beta, v); });
    case ActivationKind::kLeakyRelu:
      return for_each([&](V v) LAMINA_INLINE { return hn::IfThenElse(hn::Lt(v, zero), hn::Mul(alpha, v), v); });
    case ActivationKind::kHardswish:
      return for_each([&](V v) LAMINA_INLINE {
        const V clamped = Clamp(zero, hn::Set(d, 6.0f), hn::Add(v, hn::Set(d, 3.0f)));
        return hn::Mul(v, hn::Mul(clamped, hn::Set(d, 1.0f / 6.0f)));  // 6 * (1 / 6) rounds to exactly 1
      });
    case ActivationKind::kHardsigmoid:
      return for_each([&](V v) LAMINA_INLINE { return Clamp(zero, one, hn::MulAdd(alpha, v, beta)); });
    case ActivationKind::kSigmoid: return for_each([&](V v) LAMINA_INLINE { return Sigmoid(v); });
    case ActivationKind::kSilu: return for_each([&](V v) LAMINA_INLINE { return hn::Mul(v, Sigmoid(v)); });
    case ActivationKind::kGeluErf: return for_each([&](V v) LAMINA_INLINE { return hn::Mul(v, NormalCdf(v)); });
    case ActivationKind::kGeluTanh:
      // (1 + tanh z) / 2 = sigmoid(2 z)
      return for_each([&](V v) LAMINA_INLINE {
        const V cubic = hn::MulAdd(hn::Mul(hn::Set(d, 0.044715f), hn::Mul(v, v)), v, v);
        return hn::Mul(v, Sigmoid(hn::Mul(hn::Set(d, 1.59576912f), cubic)));  // 2 sqrt(2 / pi)
      });
    case ActivationKind::kTanh: return for_each([&](V v) LAMINA_INLINE { return Tanh(v); });
    case ActivationKind::kElu:
      return for_each([&](V v) LAMINA_INLINE {
        const V negative = AtMost(zero, v);  // keeps expm1 inside its range
        return hn::IfThenElse(hn::Lt(v, zero), hn::Mul(alpha, Expm1(negative)), v);
      });
  }
}

ActivateFn ChooseActivate() { return &Activate; }

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {

HWY_EXPORT(ChooseActivate);
ActivateFn GetActivate(Isa isa) { return LAMINA_DISPATCH(ChooseActivate, isa)(); }

}  // namespace lamina::cpu
#endif
