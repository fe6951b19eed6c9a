// Winograd's transforms of tiles, vectors of channels at once: rows then columns, the half-way coefficients on the
// stack.
//
// A transform of n points in one direction, with pairs a_k and p_k(z) = product over j != k of (z - a_j^2):
//   t[0]   = sum_j e_j d[2j]       t[n-1] = sum_j e_j d[2j+1]       e: coefficients of product over j of (z - a_j^2)
//   t[+-k] = sum_j p_kj d[2j+2] +- a_k sum_j p_kj d[2j+1]
// and its counterpart for the outputs, y[i] = sum_k a_k^i (s[+k] + (-1)^i s[-k]), plus s[0] in y[0], s[n-1] in y[m-1].
//
// Budget: n * n vectors of the stack (4 KiB at n = 8, AVX-512) stay in L1; n vectors and the n results in registers.
#include "kernels/cpu/winograd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/winograd.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm_tile-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {
namespace {

// Coefficients of the product of (z - a_j^2) over all pairs of a transform of n points but the one at `without`.
template <size_t kN>
constexpr auto EvenPolynomial(size_t without = kMostWinogradPairs) {
  struct {
    float of[kMostWinogradPairs + 1] = {};
  } p;
  double c[kMostWinogradPairs + 1] = {1};
  size_t degree = 0;
  for (size_t j = 0; j < kN / 2 - 1; ++j) {
    if (j == without) continue;
    const double root = WinogradPoint(kN, j) * WinogradPoint(kN, j);
    ++degree;
    for (size_t i = degree; i > 0; --i) c[i] = c[i - 1] - root * c[i];
    c[0] *= -root;
  }
  for (size_t i = 0; i <= kMostWinogradPairs; ++i) p.of[i] = static_cast<float>(c[i]);
  return p;
}

template <size_t kN>
HWY_INLINE void TransformIn(const V (&x)[kN], V (&t)[kN]) {
  const D d;
  constexpr size_t kPairs = kN / 2 - 1;
  constexpr auto kAll = EvenPolynomial<kN>();
  t[0] = x[2 * kPairs];  // the highest coefficient is 1
  t[kN - 1] = x[kN - 1];
  Unroll<kPairs>([&](auto j) LAMINA_INLINE {
    const V e = hn::Set(d, kAll.of[j]);
    t[0] = hn::MulAdd(e, x[2 * j], t[0]);
    t[kN - 1] = hn::MulAdd(e, x[2 * j + 1], t[kN - 1]);
  });
  Unroll<kPairs>([&](auto k) LAMINA_INLINE {
    constexpr auto kOthers = EvenPolynomial<kN>(k);
    constexpr float kPoint = static_cast<float>(WinogradPoint(kN, k));
    V even = x[2 * kPairs], odd = x[2 * kPairs - 1];
    Unroll<kPairs - 1>([&](auto j) LAMINA_INLINE {
      const V p = hn::Set(d, kOthers.of[j]);
      even = hn::MulAdd(p, x[2 * j + 2], even);
      odd = hn::MulAdd(p, x[2 * j + 1], odd);
    });
    const V a = hn::Set(d, kPoint);
    t[1 + 2 * k] = hn::MulAdd(a, odd, even);
    t[2 + 2 * k] = hn::NegMulAdd(a, odd, even);
  });
}

// What x[n-2] has to be for t[0] to vanish.
template <size_t kN>
HWY_INLINE V Vanishing(const V (&x)[kN]) {
  const D d;
  constexpr auto kAll = EvenPolynomial<kN>();
  V sum = hn::Zero(d);
  Unroll<kN / 2 - 1>([&](auto j) LAMINA_INLINE { sum = hn::NegMulAdd(hn::Set(d, kAll.of[j]), x[2 * j], sum); });
  return sum;
}

template <size_t kN, size_t kM>
HWY_INLINE void TransformOut(const V (&s)[kN], V (&y)[kM]) {
  const D d;
  constexpr size_t kPairs = kN / 2 - 1;
  V even[kPairs], odd[kPairs];
  Unroll<kPairs>([&](auto k) LAMINA_INLINE {
    even[k] = hn::Add(s[1 + 2 * k], s[2 + 2 * k]);
    odd[k] = hn::Sub(s[1 + 2 * k], s[2 + 2 * k]);
  });
  Unroll<kM>([&](auto i) LAMINA_INLINE {
    constexpr auto kPower = [](size_t k) {
      double power = 1;
      for (size_t e = 0; e < decltype(i)::value; ++e) power *= WinogradPoint(kN, k);
      return static_cast<float>(power);
    };
    V sum = i == 0 ? s[0] : i == kM - 1 ? s[kN - 1] : hn::Zero(d);
    Unroll<kPairs>([&](auto k) LAMINA_INLINE {
      constexpr float kFactor = kPower(k);
      const V term = i % 2 == 0 ? even[k] : odd[k];
      if constexpr (kFactor == 1.0f) {
        sum = hn::Add(term, sum);
      } else if constexpr (k == 0 && i != 0 && i != kM - 1) {
        sum = hn::Mul(hn::Set(d, kFactor), term);
      } else {
        sum = hn::MulAdd(hn::Set(d, kFactor), term, sum);
      }
    });
    y[i] = sum;
  });
}

// kInside: the whole window lies inside the image and the channels are whole vectors.
template <size_t kN, bool kInside>
HWY_INLINE void InputVector(const WinogradInput& in, size_t channel) {
  const D d;
  const size_t N = hn::Lanes(d);
  HWY_ALIGN float half[kN * kN * hn::MaxLanes(D())];  // [row of the transform][column of the window]
  for (size_t j = 0; j < kN; ++j) {
    V x[kN], t[kN];
    Unroll<kN>([&](auto i) LAMINA_INLINE {
      if (!kInside && (i < in.top || i >= in.bottom || j < in.left || j >= in.right)) {
        x[i] = hn::Zero(d);
        return;
      }
      const float* from = in.x + (in.first + static_cast<ptrdiff_t>(i) * in.row + static_cast<ptrdiff_t>(j) * in.pixel +
                                  static_cast<ptrdiff_t>(channel));
      x[i] = kInside ? hn::LoadU(d, from) : LoadUpTo(d, from, in.channels - channel);
    });
    if (!kInside && in.no_first_row) x[kN - 2] = Vanishing<kN>(x);
    TransformIn<kN>(x, t);
    Unroll<kN>([&](auto i) LAMINA_INLINE { hn::Store(t[i], d, half + (i * kN + j) * N); });
  }
  float* to = in.v + channel;
  for (size_t i = 0; i < kN; ++i) {
    V x[kN], t[kN];
    Unroll<kN>([&](auto j) LAMINA_INLINE { x[j] = hn::Load(d, half + (i * kN + j) * N); });
    if (!kInside && in.no_first_column) x[kN - 2] = Vanishing<kN>(x);
    TransformIn<kN>(x, t);
    Unroll<kN>([&](auto j) LAMINA_INLINE { hn::Store(t[j], d, to + (i * kN + j) * in.slice); });
  }
}

template <size_t kN>
void Input(const WinogradInput& in) {
  const size_t N = hn::Lanes(D());
  size_t channel = 0;
  if (in.top == 0 && in.bottom == kN && in.left == 0 && in.right == kN) {
    for (; channel + N <= in.channels; channel += N) InputVector<kN, true>(in, channel);
  }
  for (; channel < in.channels; channel += N) InputVector<kN, false>(in, channel);
}

// The outputs of one vector of channels: y(i, j, vector) is called for each.
template <size_t kN, size_t kM, class F>
HWY_INLINE void OutputVector(const WinogradOutput& o, size_t v, const F& take) {
  const D d;
  const size_t N = hn::Lanes(d);
  HWY_ALIGN float half[kM * kN * hn::MaxLanes(D())];
  const float* from = o.sums + v * N;
  for (size_t j = 0; j < kN; ++j) {
    V s[kN], y[kM];
    Unroll<kN>([&](auto i) LAMINA_INLINE { s[i] = hn::Load(d, from + (i * kN + j) * o.slice); });
    if (o.no_first_row) s[0] = hn::Zero(d);
    TransformOut<kN, kM>(s, y);
    Unroll<kM>([&](auto i) LAMINA_INLINE { hn::Store(y[i], d, half + (i * kN + j) * N); });
  }
  const V bias = hn::LoadU(d, o.out.bias + v * N);
  for (size_t i = 0; i < o.rows; ++i) {
    V s[kN], y[kM];
    Unroll<kN>([&](auto j) LAMINA_INLINE { s[j] = hn::Load(d, half + (i * kN + j) * N); });
    if (o.no_first_column) s[0] = hn::Zero(d);
    TransformOut<kN, kM>(s, y);
    Unroll<kM>([&](auto j) LAMINA_INLINE {
      if (j < o.columns) take(i, j, hn::Add(y[j], bias));
    });
  }
}

template <size_t kN, size_t kM>
void Output(const WinogradOutput& o) {
  const D d;
  const size_t N = hn::Lanes(d), width = o.vectors * N;
  const Epilogue& e = *o.out.epilogue;
  if (e.in_registers() && o.out.columns == width) {
    const V lo = hn::Set(d, e.lo), hi = hn::Set(d, e.hi);
    for (size_t v = 0; v < o.vectors; ++v) {
      float* c = o.out.c + v * N;
      OutputVector<kN, kM>(o, v, [&](size_t i, size_t j, V y) LAMINA_INLINE {
        hn::StoreU(Clamp(lo, hi, y), d, c + static_cast<ptrdiff_t>(i) * o.line + static_cast<ptrdiff_t>(j) * o.out.row);
      });
    }
    return;
  }
  HWY_ALIGN float tile[kM * kM * kMaxTileVectors * hn::MaxLanes(D())];  // [i][j][width]
  for (size_t v = 0; v < o.vectors; ++v) {
    OutputVector<kN, kM>(
        o, v, [&](size_t i, size_t j, V y) LAMINA_INLINE { hn::Store(y, d, tile + (i * kM + j) * width + v * N); });
  }
  GemmOutput out = o.out;
  for (size_t i = 0; i < o.rows; ++i) {
    FinishStored(out, 0, o.columns, width, tile + i * kM * width);
    out.c += o.line;
    if (out.residual != nullptr) out.residual += o.residual_line;
  }
}

}  // namespace

const WinogradKernel* ChooseWinograd() {
  static constexpr WinogradKernel kKernels[] = {{2, 3, 4, Input<4>, Output<4, 2>},
                                                {4, 3, 6, Input<6>, Output<6, 4>},
                                                {2, 5, 6, Input<6>, Output<6, 2>},
                                                {4, 5, 8, Input<8>, Output<8, 4>}};
  return kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {

HWY_EXPORT(ChooseWinograd);
const WinogradKernel& GetWinogradKernel(Isa isa, size_t m, size_t r) {
  const WinogradKernel* kernel = LAMINA_DISPATCH(ChooseWinograd, isa)();
  while (kernel->m != m || kernel->r != r) ++kernel;
  return *kernel;
}

}  // namespace lamina::cpu
#endif  // HWY_ONCE
