// Winograd's transform of weights, output channels in lanes: columns of taps, then rows, in double.
//
// Budget: the n * r half-way sums of as many channels as a vector of floats has, on the stack (10 KiB at n = 8, r = 5,
// AVX-512): whole cache lines leave, because the n * n places that they go to may lie a power of two apart.
#include "kernels/cpu/winograd_weights.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/winograd_weights.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {
namespace {

// Products and sums apart, never fused: targets without FMA give the same bits.
template <size_t kN, size_t kR>
void Weights(const WinogradWeightMatrix& matrix, size_t width, const float* HWY_RESTRICT w, float* HWY_RESTRICT u,
             size_t slice) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  using Doubles = hn::Vec<decltype(d)>;
  constexpr size_t kDoubles = hn::MaxLanes(decltype(d)()), kParts = hn::MaxLanes(D()) / kDoubles;
  for (size_t o = 0; o < width; o += kParts * kDoubles) {
    HWY_ALIGN double half[kN][kR][kParts][kDoubles];
    Unroll<kParts>([&](auto p) LAMINA_INLINE {
      for (size_t l = 0; l < kR; ++l) {
        Doubles tap[kR];
        Unroll<kR>([&](auto k) LAMINA_INLINE {
          tap[k] = hn::PromoteTo(d, hn::Load(df, w + (k * kR + l) * width + o + p * kDoubles));
        });
        Unroll<kN>([&](auto i) LAMINA_INLINE {
          Doubles sum = hn::Mul(hn::Set(d, matrix.g[i][0]), tap[0]);
          Unroll<kR - 1>(
              [&](auto k) LAMINA_INLINE { sum = hn::Add(sum, hn::Mul(hn::Set(d, matrix.g[i][k + 1]), tap[k + 1])); });
          hn::Store(sum, d, half[i][l][p]);
        });
      }
    });
    for (size_t i = 0; i < kN; ++i) {
      Unroll<kN>([&](auto j) LAMINA_INLINE {
        Unroll<kParts>([&](auto p) LAMINA_INLINE {
          Doubles sum = hn::Zero(d);  // to which -0 is added too: zeros come out positive
          Unroll<kR>([&](auto l) LAMINA_INLINE {
            sum = hn::Add(sum, hn::Mul(hn::Set(d, matrix.g[j][l]), hn::Load(d, half[i][l][p])));
          });
          hn::Store(hn::DemoteTo(df, sum), df, u + (i * kN + j) * slice + o + p * kDoubles);
        });
      });
    }
  }
}

}  // namespace

WinogradWeightsFn ChooseWinogradWeights(size_t n, size_t r) {
  return n == 4 ? Weights<4, 3> : n == 8 ? Weights<8, 5> : r == 3 ? Weights<6, 3> : Weights<6, 5>;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {

HWY_EXPORT(ChooseWinogradWeights);
WinogradWeightsFn GetWinogradWeights(Isa isa, size_t n, size_t r) {
  return LAMINA_DISPATCH(ChooseWinogradWeights, isa)(n, r);
}

WinogradWeightMatrix::WinogradWeightMatrix(size_t n, size_t r) {
  double points[kMostWinogradSize] = {0};
  for (size_t k = 0; k < n / 2 - 1; ++k) {
    points[1 + 2 * k] = WinogradPoint(n, k);
    points[2 + 2 * k] = -WinogradPoint(n, k);
  }
  for (size_t i = 0; i + 1 < n; ++i) {
    double value = 1;
    for (size_t j = 0; j + 1 < n; ++j) {
      if (j != i) value /= points[i] - points[j];
    }
    for (size_t k = 0; k < r; ++k, value *= points[i]) g[i][k] = value;
  }
  g[n - 1][r - 1] = 1;
}

}  // namespace lamina::cpu
#endif
