// Dot products, fp32: C[r, j] = epilogue(bias[j] + sum over taps q and p < kc of A[r, q, p] * B[q, p, j]) for the few
// columns that would leave a vector of gemm.cc's tiles mostly empty.
//
// Lanes run along p: a vector of a row's floats is multiplied with a vector of each column's, and the lanes of a sum
// are added up at its end, four rows together. `lanes` columns so cost about as much as a tile's vector.
//
// Registers: rows * columns sums + columns of B + 1 of A (+ 1 product where there is no FMA).
//   AVX-512  4 x 4: 16 + 4 + 1 = 21 of 32
//   AVX2     4 x 3: 12 + 3 + 1 = 16 of 16
//   SSE4     4 x 2: 8 + 2 + 1 + 1 = 12 of 16
// Any number of rows and columns, any kc in the only tap, else a multiple of the lanes; the order of a sum depends on
// kc and the taps alone.
#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm_dots.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/gemm_tile-inl.h"
#include "kernels/cpu/simd-inl.h"

#if HWY_TARGET != HWY_SCALAR  // whose vectors have no columns left over
HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET <= HWY_AVX3
inline constexpr size_t kColumns = 4;
#elif HWY_TARGET <= HWY_AVX2
inline constexpr size_t kColumns = 3;
#else
inline constexpr size_t kColumns = 2;
#endif
inline constexpr size_t kRows = 4;

using D4 = hn::CappedTag<float, 4>;

template <class DV>
HWY_INLINE hn::Vec<D4> AddBlocks(DV /*d*/, hn::Vec<DV> v) {
  if constexpr (hn::MaxLanes(DV()) == 4) {
    return v;
  } else {
    const hn::Half<DV> half;
    return AddBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// The sums over the lanes of four vectors.
HWY_INLINE hn::Vec<D4> AddLanes(const V (&v)[4]) {
  const D d;
  const hn::RepartitionToWide<D> pairs;
  const auto half_sums = [&](V a, V b) LAMINA_INLINE {  // in every block of four: a, b, a, b
    return hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  };
  const auto ab = half_sums(v[0], v[1]), cd = half_sums(v[2], v[3]);
  return AddBlocks(d, hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, ab, cd)),
                              hn::BitCast(d, hn::InterleaveUpper(pairs, ab, cd))));
}

// Where the rows of A lie: of tiles, evenly spaced; of an edge, anywhere, null on padding.
struct TileRows {
  static constexpr bool kPadding = false;
  const GemmTiles& g;
  ptrdiff_t row;
  const float* At(size_t r, size_t tap) const { return g.a + static_cast<ptrdiff_t>(r) * row + g.tap[tap]; }
};
struct EdgeRows {
  static constexpr bool kPadding = true;
  const GemmEdge& g;
  size_t height;
  const float* At(size_t r, size_t tap) const { return g.rows[tap * height + r]; }
};

// The end of a block: sums[j][r] -> c.
template <size_t kR, size_t kC>
HWY_INLINE void FinishDots(const GemmOutput& whole, size_t row, size_t column, const float (&sums)[kC][4]) {
  const auto r = static_cast<ptrdiff_t>(row), j = static_cast<ptrdiff_t>(column);
  float* c = whole.c + r * whole.row + j;
  if (whole.epilogue->in_registers()) {
    const ptrdiff_t c_row = whole.row;  // locals: the stores to c could change them
    const float lo = whole.epilogue->lo, hi = whole.epilogue->hi;
    for (size_t i = 0; i < kR; ++i, c += c_row) {
      for (size_t l = 0; l < kC; ++l) c[l] = std::min(std::max(sums[l][i], lo), hi);  // lets a NaN through
    }
    return;
  }
  constexpr size_t kWidth = hn::MaxLanes(D());
  HWY_ALIGN float tile[kR * kWidth] = {};
  for (size_t i = 0; i < kR; ++i) {
    for (size_t l = 0; l < kC; ++l) tile[i * kWidth + l] = sums[l][i];
  }
  GemmOutput out = whole;
  out.c = c;
  if (out.residual != nullptr) out.residual += r * out.residual_row + j;
  out.columns = kC;
  FinishStored(out, 0, kR, kWidth, tile);
}

// kR rows from `row` on and kC columns from `column` on.
template <size_t kR, size_t kC, class Rows>
void Block(const Rows& rows, size_t row, size_t column) {
  const D d;
  const size_t N = hn::Lanes(d), kc = rows.g.kc, step = rows.g.out.columns * N;
  const float* HWY_RESTRICT b = rows.g.b + column * N;
  V acc[kR][kC];
  Unroll<kR>([&](auto r) LAMINA_INLINE { Unroll<kC>([&](auto j) LAMINA_INLINE { acc[r][j] = hn::Zero(d); }); });
  for (size_t q = 0; q < rows.g.taps; ++q) {
    const float* a[kR];
    Unroll<kR>([&](auto r) LAMINA_INLINE { a[r] = rows.At(row + r, q); });
    const auto multiply = [&](const auto& load) LAMINA_INLINE {
      V bv[kC];
      Unroll<kC>([&](auto j) LAMINA_INLINE { bv[j] = hn::Load(d, b + j * N); });
      Unroll<kR>([&](auto r) LAMINA_INLINE {
        if (Rows::kPadding && a[r] == nullptr) return;
        const V av = load(a[r]);
        Unroll<kC>([&](auto j) LAMINA_INLINE { acc[r][j] = hn::MulAdd(av, bv[j], acc[r][j]); });
      });
      b += step;
    };
    size_t p = 0;
    for (; p + N <= kc; p += N) multiply([&](const float* x) LAMINA_INLINE { return hn::LoadU(d, x + p); });
    if (p < kc) multiply([&](const float* x) LAMINA_INLINE { return LoadTail(d, x + p, kc - p); });
  }
  const D4 d4;
  HWY_ALIGN float sums[kC][4];
  Unroll<kC>([&](auto j) LAMINA_INLINE {
    // Rows beyond kR repeat row 0 and are not stored.
    const V lanes[4] = {acc[0][j], acc[kR > 1 ? 1 : 0][j], acc[kR > 2 ? 2 : 0][j], acc[kR > 3 ? 3 : 0][j]};
    const auto sum = hn::Add(AddLanes(lanes), hn::Set(d4, rows.g.out.bias[column + j]));
    hn::Store(sum, d4, sums[j]);
  });
  FinishDots<kR, kC>(rows.g.out, row, column, sums);
}

template <size_t kR, class Rows>
HWY_INLINE void RowsOfBlocks(const Rows& rows, size_t row) {
  const size_t columns = rows.g.out.columns, rest = columns % kColumns;
  for (size_t j = 0; j + kColumns <= columns; j += kColumns) Block<kR, kColumns>(rows, row, j);
  Unroll<kColumns - 1>([&](auto i) LAMINA_INLINE {
    if (rest == i + 1) Block<kR, i + 1>(rows, row, columns - rest);
  });
}

template <class Rows>
HWY_INLINE void Dots(const Rows& rows, size_t count) {
  const size_t rest = count % kRows;
  for (size_t r = 0; r + kRows <= count; r += kRows) RowsOfBlocks<kRows>(rows, r);
  Unroll<kRows - 1>([&](auto i) LAMINA_INLINE {
    if (rest == i + 1) RowsOfBlocks<i + 1>(rows, count - rest);
  });
}

}  // namespace

void DotTiles(const GemmTiles& t, size_t height) {
  Dots(TileRows{t, t.a_tile / static_cast<ptrdiff_t>(height)}, t.tiles * height);
}
void DotEdge(const GemmEdge& e, size_t height) { Dots(EdgeRows{e, height}, height); }

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();
#endif
