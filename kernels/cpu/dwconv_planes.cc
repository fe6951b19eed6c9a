// Depthwise convolution of one plane:
//   y[h, w] = clamp(bias + sum_{kh,kw} x[h * S + kh, w * S + kw] * weight[kh, kw] + residual)
//
// R = 4 rows of one vector of outputs; each row of x is read K times, shifted by one column each, and adds to all rows
// of outputs that it reaches. With stride 2, pairs of vectors are parted into even and odd columns.
//   registers, K = 3: 4 sums + 3 x + 9 weights + 2 limits = 18 of 32; with 16 the weights become memory operands
#include "kernels/cpu/dwconv_planes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dwconv_planes.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// tap[kw] = columns kw, kw + S, kw + 2 S, .. of the row at p.
template <int K, int S>
HWY_INLINE void LoadColumns(const float* p, V (&tap)[K]) {
  const D d;
#if HWY_TARGET != HWY_SCALAR
  if constexpr (S == 2) {
    const size_t N = hn::Lanes(d);
    Unroll<(K + 1) / 2>([&](auto j) LAMINA_INLINE {
      const V a = hn::LoadU(d, p + 2 * j), b = hn::LoadU(d, p + 2 * j + N);
      tap[2 * j] = hn::ConcatEven(d, b, a);
      if constexpr (2 * j + 1 < K) tap[2 * j + 1] = hn::ConcatOdd(d, b, a);
    });
    return;
  }
#endif
  Unroll<K>([&](auto kw) LAMINA_INLINE { tap[kw] = hn::LoadU(d, p + kw); });
}

template <int K, int S>
void PlaneOf(const DwConvPlane& a) {
  const D d;
  const size_t N = hn::Lanes(d);
  constexpr int R = static_cast<int>(kPlaneRows);
  V weight[K * K];
  Unroll<K * K>([&](auto i) LAMINA_INLINE { weight[i] = hn::Set(d, a.w[i]); });
  const V bias = hn::Set(d, a.bias), lo = hn::Set(d, a.lo), hi = hn::Set(d, a.hi);
  for (size_t row = 0; row < a.rows; row += R) {
    for (size_t column = 0; column < a.columns; column += N) {
      const float* p = a.x + static_cast<ptrdiff_t>(row) * S * a.x_row + static_cast<ptrdiff_t>(column) * S;
      V sum[R];
      Unroll<R>([&](auto r) LAMINA_INLINE { sum[r] = bias; });
      Unroll<(R - 1) * S + K>([&](auto i) LAMINA_INLINE {
        V tap[K];
        LoadColumns<K, S>(p, tap);
        p += a.x_row;
        Unroll<R>([&](auto r) LAMINA_INLINE {
          constexpr int kh = int(i) - int(r) * S;
          if constexpr (kh >= 0 && kh < K) {
            Unroll<K>([&](auto kw) LAMINA_INLINE { sum[r] = hn::MulAdd(tap[kw], weight[kh * K + kw], sum[r]); });
          }
        });
      });
      const size_t live = a.columns - column;
      Unroll<R>([&](auto r) LAMINA_INLINE {
        if (row + r < a.rows) {
          const size_t at = (row + r) * a.columns + column;
          V v = sum[r];
          if (a.residual == nullptr) {
            v = Clamp(lo, hi, v);
          } else {
            const V add = LoadUpTo(d, a.residual + at, live);
            v = a.residual_after ? hn::Add(Clamp(lo, hi, v), add) : Clamp(lo, hi, hn::Add(v, add));
          }
          StoreUpTo(v, d, a.y + at, live);
        }
      });
    }
  }
}

const DwConvPlaneKernel& ChooseDwConvPlane() {
  static const DwConvPlaneKernel kernel{
      hn::Lanes(D()), {{3, 1, &PlaneOf<3, 1>}, {3, 2, &PlaneOf<3, 2>}, {5, 1, &PlaneOf<5, 1>}, {5, 2, &PlaneOf<5, 2>}}};
  return kernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {
HWY_EXPORT(ChooseDwConvPlane);
const DwConvPlaneKernel& GetDwConvPlaneKernel(Isa isa) { return LAMINA_DISPATCH(ChooseDwConvPlane, isa)(); }
}  // namespace lamina::cpu
#endif
