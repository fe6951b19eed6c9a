// Winograd's transforms of tiles, vectors of channels at once: rows then columns, the half-way coefficients in
// registers (of the inputs, group by group) or on the stack (of the outputs).
//
// A transform of n points in one direction, with pairs a_k and p_k(z) = product over j != k of (z - a_j^2):
//   t[0]   = sum_j e_j d[2j]       t[n-1] = sum_j e_j d[2j+1]       e: coefficients of product over j of (z - a_j^2)
//   t[+-k] = sum_j p_kj d[2j+2] +- a_k sum_j p_kj d[2j+1]
// and its counterpart for the outputs, y[i] = sum_k a_k^i (s[+k] + (-1)^i s[-k]), plus s[0] in y[0], s[n-1] in y[m-1].
//
// Budget: inputs 2 n half-way coefficients + 4 of a group in registers (n = 6: 16; n = 8: 20, of which AVX2 spills);
// outputs n vectors and m results, m * n vectors of the stack (2 KiB at n = 8, AVX-512) stay in L1.
#include "kernels/cpu/winograd.h"

#include <atomic>

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

// A transform's inputs fall into groups that share terms: group 0 gives t[0], group 1 + k the pair t[+-k], the last one
// t[n-1].
template <size_t kN>
constexpr size_t kGroups = kN / 2 + 1;
template <size_t kN>
constexpr size_t GroupFirst(size_t group) {
  return group == 0 ? 0 : 2 * group - 1;
}
template <size_t kN>
constexpr size_t GroupSize(size_t group) {
  return group == 0 || group + 1 == kGroups<kN> ? 1 : 2;
}

// The coefficients of one group from x(i), i < n.
template <size_t kN, size_t kGroup, class X>
HWY_INLINE void TransformGroup(const X& x, V (&t)[2]) {
  const D d;
  constexpr size_t kPairs = kN / 2 - 1;
  if constexpr (GroupSize<kN>(kGroup) == 1) {
    constexpr auto kAll = EvenPolynomial<kN>();
    constexpr size_t kOdd = kGroup == 0 ? 0 : 1;
    t[0] = x(2 * kPairs + kOdd);  // the highest coefficient is 1
    Unroll<kPairs>([&](auto j) LAMINA_INLINE { t[0] = hn::MulAdd(hn::Set(d, kAll.of[j]), x(2 * j + kOdd), t[0]); });
  } else {
    constexpr auto kOthers = EvenPolynomial<kN>(kGroup - 1);
    V even = x(2 * kPairs), odd = x(2 * kPairs - 1);
    Unroll<kPairs - 1>([&](auto j) LAMINA_INLINE {
      const V p = hn::Set(d, kOthers.of[j]);
      even = hn::MulAdd(p, x(2 * j + 2), even);
      odd = hn::MulAdd(p, x(2 * j + 1), odd);
    });
    const V a = hn::Set(d, static_cast<float>(WinogradPoint(kN, kGroup - 1)));
    t[0] = hn::MulAdd(a, odd, even);
    t[1] = hn::NegMulAdd(a, odd, even);
  }
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

// One vector of channels of a window whose pixels (i, j) lie at x + i * row + j * pixel. Group by group of the rows, so
// that nothing half-way is stored: Zen 4 stores 64 bytes in two cycles (n = 6: 264 -> 166 cycles, AVX2 114 -> 97).
template <size_t kN>
HWY_INLINE void InputVector(const float* HWY_RESTRICT x, ptrdiff_t row, ptrdiff_t pixel, float* HWY_RESTRICT to,
                            size_t slice) {
  const D d;
  Unroll<kGroups<kN>>([&](auto g) LAMINA_INLINE {
    constexpr size_t kGroup = decltype(g)::value, kRows = GroupSize<kN>(kGroup);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // else GCC keeps all of x for the next group, on the stack
    V half[kRows][kN];
    Unroll<kN>([&](auto j) LAMINA_INLINE {
      const float* column = x + static_cast<ptrdiff_t>(j) * pixel;
      V t[2];
      TransformGroup<kN, kGroup>(
          [&](size_t i) LAMINA_INLINE { return hn::LoadU(d, column + static_cast<ptrdiff_t>(i) * row); }, t);
      Unroll<kRows>([&](auto r) LAMINA_INLINE { half[r][j] = t[r]; });
    });
    Unroll<kRows>([&](auto r) LAMINA_INLINE {
      float* line = to + (GroupFirst<kN>(kGroup) + r) * kN * slice;
      Unroll<kGroups<kN>>([&](auto h) LAMINA_INLINE {
        V t[2];
        TransformGroup<kN, decltype(h)::value>([&](size_t j) LAMINA_INLINE { return half[r][j]; }, t);
        Unroll<GroupSize<kN>(decltype(h)::value)>([&](auto q) LAMINA_INLINE {
          hn::Store(t[q], d, line);
          line += slice;
        });
      });
    });
  });
}

// Into line n - 2 of a window what makes coefficient 0 vanish. Lines lie `line` floats apart, their kN vectors `step`.
template <size_t kN>
HWY_INLINE void Vanish(float* window, size_t line, size_t step) {
  const D d;
  constexpr auto kAll = EvenPolynomial<kN>();
  for (size_t i = 0; i < kN; ++i, window += step) {
    V sum = hn::Zero(d);
    Unroll<kN / 2 - 1>([&](auto j) LAMINA_INLINE {
      sum = hn::NegMulAdd(hn::Set(d, kAll.of[j]), hn::Load(d, window + 2 * j * line), sum);
    });
    hn::Store(sum, d, window + (kN - 2) * line);
  }
}

template <size_t kN>
void Input(const WinogradInput& in) {
  const D d;
  const size_t N = hn::Lanes(d);
  size_t channel = 0;
  if (in.top == 0 && in.bottom == kN && in.left == 0 && in.right == kN) {
    for (; channel + N <= in.channels; channel += N) {
      InputVector<kN>(in.x + in.first + channel, in.row, in.pixel, in.v + channel, in.slice);
    }
    if (channel == in.channels) return;
  }
  // The others from a copy.
  HWY_ALIGN float window[kN * kN * hn::MaxLanes(D())] = {};
  for (; channel < in.channels; channel += N) {
    const size_t left = in.channels - channel;
    for (size_t i = in.top; i < in.bottom; ++i) {
      for (size_t j = in.left; j < in.right; ++j) {
        const float* from = in.x + (in.first + static_cast<ptrdiff_t>(i) * in.row +
                                    static_cast<ptrdiff_t>(j) * in.pixel + static_cast<ptrdiff_t>(channel));
        hn::Store(LoadUpTo(d, from, left), d, window + (i * kN + j) * N);
      }
    }
    if (in.no_first_row) Vanish<kN>(window, kN * N, N);
    if (in.no_first_column) Vanish<kN>(window, N, kN * N);
    InputVector<kN>(window, static_cast<ptrdiff_t>(kN * N), static_cast<ptrdiff_t>(N), in.v + channel, in.slice);
  }
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
