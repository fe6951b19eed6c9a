// Softmax of score rows and the weighted sums of value rows: context[i, :] = sum_j weight[i, j] * value[rows[j], :].
//
// A tile is a few queries times a few vectors of columns; its sums stay in registers over all keys, a weight is
// broadcast, a value row is read where it lies. Registers:
//   AVX-512  6 queries x 4 vectors: 24 sums + 4 of value + 1 weight = 29 of 32;  1 query x 8: 8 + 1
//   AVX2     6 queries x 2 vectors: 12 + 2 + 1 = 15 of 16;                          1 query x 8: 8 + 1
//   else     6 queries x 2 vectors: 12 + 2 + 1 (+ 1 product);                       1 query x 4: 4 + 1
// One query alone streams its rows, wide tiles keep that stream in long pieces: on AVX2 8 vectors instead of 4 gain 3%
// of a batch of steps (Zen 4; 16 on AVX-512 gain nothing). Any sizes; nothing outside is touched.
#include "kernels/cpu/additive_context.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/additive_context.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

namespace {

constexpr bool kWide = HWY_TARGET == HWY_AVX3;
constexpr size_t kQueries = 6, kVectors = kWide ? 4 : 2, kTwoQueryVectors = kWide ? 8 : 4;
constexpr size_t kOneQueryVectors = HWY_TARGET <= HWY_AVX2 ? 8 : 4;
static_assert(kRowBlock % hn::MaxLanes(D()) == 0, "a row of scores is whole vectors");

void Softmax(float* row, size_t n) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t j = n; j % N != 0; ++j) row[j] = -HUGE_VALF;  // weight 0
  V most = hn::Load(d, row);
  for (size_t j = N; j < n; j += N) most = hn::Max(most, hn::Load(d, row + j));
  most = hn::MaxOfLanes(d, most);  // a NaN lost here comes back in the sum
  V sum = hn::Zero(d);
  for (size_t j = 0; j < n; j += N) {
    const V e = Exp(hn::Sub(hn::Load(d, row + j), most));
    hn::Store(e, d, row + j);
    sum = hn::Add(sum, e);
  }
  const V scale = hn::Div(hn::Set(d, 1.0f), hn::SumOfLanes(d, sum));
  for (size_t j = 0; j < n; j += N) hn::Store(hn::Mul(hn::Load(d, row + j), scale), d, row + j);
}

// Columns [column, column + kV vectors) of kQ queries; the last vector holds `last` columns.
template <size_t kQ, size_t kV>
HWY_INLINE void ContextTile(const ContextArgs& c, size_t query, size_t column, size_t last) {
  const D d;
  const size_t N = hn::Lanes(d);
  V sum[kQ][kV];
  Unroll<kQ>([&](auto q) LAMINA_INLINE { Unroll<kV>([&](auto v) LAMINA_INLINE { sum[q][v] = hn::Zero(d); }); });
  const float* HWY_RESTRICT weight = c.weight + query * c.weight_stride;
  const auto add_keys = [&](auto whole) LAMINA_INLINE {
    for (size_t j = 0; j < c.keys; ++j) {
      const float* HWY_RESTRICT value = c.value + static_cast<size_t>(c.rows[j]) * c.value_stride + column;
      V x[kV];
      Unroll<kV>([&](auto v) LAMINA_INLINE {
        x[v] = whole || v + 1 < kV ? hn::LoadU(d, value + v * N) : LoadTail(d, value + v * N, last);
      });
      Unroll<kQ>([&](auto q) LAMINA_INLINE {
        const V w = hn::Set(d, weight[q * c.weight_stride + j]);
        Unroll<kV>([&](auto v) LAMINA_INLINE { sum[q][v] = hn::MulAdd(w, x[v], sum[q][v]); });
      });
    }
  };
  if (last == N) {
    add_keys(std::true_type());
  } else {
    add_keys(std::false_type());
  }
  Unroll<kQ>([&](auto q) LAMINA_INLINE {
    float* HWY_RESTRICT out = c.context + (query + q) * c.context_stride + column;
    Unroll<kV - 1>([&](auto v) LAMINA_INLINE { hn::StoreU(sum[q][v], d, out + v * N); });
    StoreUpTo(sum[q][kV - 1], d, out + (kV - 1) * N, last);
  });
}

// All columns of kQ queries, kV vectors at a time and then one.
template <size_t kQ, size_t kV>
HWY_NOINLINE void ContextRows(const ContextArgs& c, size_t query) {
  const size_t N = hn::Lanes(D());
  size_t column = 0;
  for (; column + kV * N <= c.dim; column += kV * N) ContextTile<kQ, kV>(c, query, column, N);
  for (; column < c.dim; column += N) ContextTile<kQ, 1>(c, query, column, std::min(N, c.dim - column));
}

void Context(const ContextArgs& c) {
  size_t q = 0;
  for (; q + kQueries <= c.queries; q += kQueries) ContextRows<kQueries, kVectors>(c, q);
  for (; q + 2 <= c.queries; q += 2) ContextRows<2, kTwoQueryVectors>(c, q);
  if (q < c.queries) ContextRows<1, kOneQueryVectors>(c, q);
}

}  // namespace

const AdditiveContextKernel& ChooseAdditiveContext() {
  static const AdditiveContextKernel kernel = {&Softmax, &Context};
  return kernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {
HWY_EXPORT(ChooseAdditiveContext);
const AdditiveContextKernel& GetAdditiveContextKernel(Isa isa) { return LAMINA_DISPATCH(ChooseAdditiveContext, isa)(); }
}  // namespace lamina::cpu
#endif
