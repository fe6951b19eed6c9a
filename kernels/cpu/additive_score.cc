// Scores of additive attention without a tanh: s[i, j] = sum_u v[u] tanh(a[i, u] + b[j, u]).
//
// kernels/operators/additive_fold.h says how: terms +-1 / x with x = c + (c A) E, the signs alternating from vector to
// vector of units. Four share a division: 1/x0 - 1/x1 = (x1 - x0) / (x0 x1) = n0/d0, and two of these are
// n0/d0 + n1/d1 = (n0 d1 + n1 d0) / (d0 d1). Small partial sums are 0.3 u sum|v| of error instead of 3, and 9
// multiplies and FMAs, 4 minima, 3 additions and 1 division serve 4 vectors of terms. vdiv beats the estimate with a
// Newton step on AVX2 (3.9 against 4.6 half-cycles a vector) and on AMD; on AVX-512 it loses 5 % on Emerald Rapids, not
// worth a second form (2026-11-23).
//
// Registers, AVX-512, 2 queries x 4 keys: 8 of A, 4 of c, 4 of E, 8 sums, 1 cap, 5 temporaries = 30 of 32. Elsewhere
// 1 query x 4 keys: 4 sums, E and A from memory. Any number of queries and keys.
#include "kernels/cpu/additive_score.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/additive_score.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

namespace {

constexpr size_t kQueryTile = HWY_TARGET == HWY_AVX3 ? 2 : 1;

#if HWY_TARGET != HWY_SCALAR
// Adds the 128-bit blocks of v.
template <class DV>
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> SumOfBlocks(DV, hn::Vec<DV> v) {
  if constexpr (hn::MaxLanes(DV()) == 4) {
    return v;
  } else {
    const hn::Half<DV> half;
    return SumOfBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}
#endif

// out[k] = scale * (sum of v[k]'s lanes) + offset for k < kCount, in an order of additions that does not depend on
// kCount.
template <size_t kCount>
HWY_INLINE void StoreSums(const V (&v)[4], float scale, float offset, float* HWY_RESTRICT out) {
#if HWY_TARGET == HWY_SCALAR
  Unroll<kCount>([&](auto k) LAMINA_INLINE { out[k] = scale * hn::GetLane(v[k]) + offset; });
#else
  const D d;
  const hn::RepartitionToWide<D> wide;
  const auto low = hn::Add(hn::InterleaveLower(d, v[0], v[1]), hn::InterleaveUpper(d, v[0], v[1]));
  const auto high = hn::Add(hn::InterleaveLower(d, v[2], v[3]), hn::InterleaveUpper(d, v[2], v[3]));
  const auto w0 = hn::BitCast(wide, low), w1 = hn::BitCast(wide, high);
  const V sums =
      hn::Add(hn::BitCast(d, hn::InterleaveLower(wide, w0, w1)), hn::BitCast(d, hn::InterleaveUpper(wide, w0, w1)));
  const hn::FixedTag<float, 4> d4;
  HWY_ALIGN float buffer[4];
  hn::Store(hn::MulAdd(hn::Set(d4, scale), SumOfBlocks(d, sums), hn::Set(d4, offset)), d4, buffer);
  for (size_t k = 0; k < kCount; ++k) out[k] = buffer[k];
#endif
}

template <size_t kQueries, size_t kKeys>
HWY_INLINE void QuadTile(const ScoreArgs& s, size_t query, size_t key) {
  const D d;
  const size_t N = hn::Lanes(d);
  const V cap = hn::Set(d, kReciprocalCap);
  const float* e_row[kKeys];
  for (size_t k = 0; k < kKeys; ++k) e_row[k] = s.key + static_cast<size_t>(s.rows[key + k]) * s.units;
  V sum[kQueries][4];
  Unroll<kQueries>([&](auto q) LAMINA_INLINE { Unroll<4>([&](auto k) LAMINA_INLINE { sum[q][k] = hn::Zero(d); }); });

  for (size_t u = 0; u < s.units; u += 4 * N) {
    V c[4], a[kQueries][4];
    Unroll<4>([&](auto i) LAMINA_INLINE { c[i] = hn::Load(d, s.v + u + i * N); });
    Unroll<kQueries>([&](auto q) LAMINA_INLINE {
      Unroll<4>([&](auto i) LAMINA_INLINE { a[q][i] = hn::Load(d, s.query + (query + q) * s.units + u + i * N); });
    });
    Unroll<kKeys>([&](auto k) LAMINA_INLINE {
      V e[4];
      Unroll<4>([&](auto i) LAMINA_INLINE { e[i] = hn::Load(d, e_row[k] + u + i * N); });
      Unroll<kQueries>([&](auto q) LAMINA_INLINE {
        V x[4];
        Unroll<4>([&](auto i) LAMINA_INLINE { x[i] = AtMost(cap, hn::MulAdd(a[q][i], e[i], c[i])); });
        const V n0 = hn::Sub(x[1], x[0]), d0 = hn::Mul(x[0], x[1]);
        const V n1 = hn::Sub(x[3], x[2]), d1 = hn::Mul(x[2], x[3]);
        sum[q][k] = hn::Add(sum[q][k], hn::Div(hn::MulAdd(n0, d1, hn::Mul(n1, d0)), hn::Mul(d0, d1)));
      });
    });
  }
  Unroll<kQueries>([&](auto q) LAMINA_INLINE {
    StoreSums<kKeys>(sum[q], s.scale, s.offset, s.score + (query + q) * s.score_stride + key);
  });
}

// All queries for kKeys keys, whose rows (8 KB at 512 units) stay in L1 meanwhile.
template <size_t kKeys>
HWY_NOINLINE void QuadKeys(const ScoreArgs& s, size_t key) {
  size_t q = 0;
  for (; q + kQueryTile <= s.queries; q += kQueryTile) QuadTile<kQueryTile, kKeys>(s, q, key);
  if constexpr (kQueryTile > 1) {
    for (; q < s.queries; ++q) QuadTile<1, kKeys>(s, q, key);
  }
}

void QuadScores(const ScoreArgs& s) {
  size_t key = 0;
  for (; key + 4 <= s.keys; key += 4) QuadKeys<4>(s, key);
  for (; key + 2 <= s.keys; key += 2) QuadKeys<2>(s, key);
  if (key < s.keys) QuadKeys<1>(s, key);
}

template <size_t kKeys>
HWY_INLINE void TanhTile(const ScoreArgs& s, size_t query, size_t key) {
  const D d;
  const float* HWY_RESTRICT a_row = s.query + query * s.units;
  const float* b_row[kKeys];
  for (size_t k = 0; k < kKeys; ++k) b_row[k] = s.key + static_cast<size_t>(s.rows[key + k]) * s.units;
  V sum[4];
  Unroll<4>([&](auto k) LAMINA_INLINE { sum[k] = hn::Zero(d); });
  for (size_t u = 0; u < s.units; u += hn::Lanes(d)) {
    const V a = hn::Load(d, a_row + u), v = hn::Load(d, s.v + u);
    Unroll<kKeys>([&](auto k)
                      LAMINA_INLINE { sum[k] = hn::MulAdd(v, Tanh(hn::Add(a, hn::Load(d, b_row[k] + u))), sum[k]); });
  }
  StoreSums<kKeys>(sum, s.scale, s.offset, s.score + query * s.score_stride + key);
}

void TanhScores(const ScoreArgs& s) {
  for (size_t key = 0; key < s.keys;) {
    const bool four = key + 4 <= s.keys;
    for (size_t q = 0; q < s.queries; ++q) four ? TanhTile<4>(s, q, key) : TanhTile<1>(s, q, key);
    key += four ? 4 : 1;
  }
}

bool ExpKey(float* row, size_t units) {
  const D d;
  const V limit = hn::Set(d, kKeyLimit);
  for (size_t u = 0; u < units; u += hn::Lanes(d)) {  // false for NaN, whose exponential is NaN
    if (!hn::AllFalse(d, hn::Gt(hn::Abs(hn::Load(d, row + u)), limit))) return false;
  }
  for (size_t u = 0; u < units; u += hn::Lanes(d)) {
    const V b = hn::Load(d, row + u);
    hn::Store(ExpNormal(hn::Add(b, b)), d, row + u);
  }
  return true;
}

void ExpQuery(const float* row, const float* factor, float* out, size_t units) {
  const D d;
  const V limit = hn::Set(d, kQueryLimit);
  for (size_t u = 0; u < units; u += hn::Lanes(d)) {
    const V a = Clamp(hn::Neg(limit), limit, hn::Load(d, row + u));
    hn::Store(hn::Mul(hn::Load(d, factor + u), ExpNormal(hn::Add(a, a))), d, out + u);
  }
}

}  // namespace

const AdditiveScoreKernel& ChooseAdditiveScore() {
  static const AdditiveScoreKernel kernel = {4 * hn::Lanes(D()), hn::Lanes(D()), &ExpKey,
                                             &ExpQuery,          &QuadScores,    &TanhScores};
  return kernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {
HWY_EXPORT(ChooseAdditiveScore);
const AdditiveScoreKernel& GetAdditiveScoreKernel(Isa isa) { return LAMINA_DISPATCH(ChooseAdditiveScore, isa)(); }
}  // namespace lamina::cpu
#endif
