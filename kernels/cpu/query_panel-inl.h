// Rows that lie anywhere in memory to and from a panel [columns][pitch] whose lanes are the rows. Read again for every
// target.
//
// Four columns at a time: 16-byte pieces of rows r, r + 4, r + 8, .. make one vector, four such vectors are transposed
// within their 128-bit blocks by eight shuffles. Element by element it would be 6% of an attention over 128 keys.
#if defined(LAMINA_KERNELS_CPU_QUERY_PANEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_QUERY_PANEL_INL_H_
#undef LAMINA_KERNELS_CPU_QUERY_PANEL_INL_H_
#else
#define LAMINA_KERNELS_CPU_QUERY_PANEL_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
// Block i of the vector is rows[4 * i][0..3].
template <class DB>
HWY_INLINE hn::Vec<DB> LoadBlocks(DB d, const float* const* rows, size_t column) {
  if constexpr (hn::MaxLanes(DB()) == 4) {
    return hn::LoadU(d, rows[0] + column);
  } else {
    const hn::Half<DB> half;
    constexpr size_t kHalf = hn::MaxLanes(DB()) / 2;
    return hn::Combine(d, LoadBlocks(half, rows + kHalf, column), LoadBlocks(half, rows, column));
  }
}

// Its inverse, for those of rows[0], rows[4], .. with index < count.
template <class DB>
HWY_INLINE void StoreBlocks(DB d, hn::Vec<DB> x, float* const* rows, size_t column, ptrdiff_t count) {
  if constexpr (hn::MaxLanes(DB()) == 4) {
    if (count > 0) hn::StoreU(x, d, rows[0] + column);
  } else {
    const hn::Half<DB> half;
    constexpr size_t kHalf = hn::MaxLanes(DB()) / 2;
    StoreBlocks(half, hn::LowerHalf(half, x), rows, column, count);
    StoreBlocks(half, hn::UpperHalf(half, x), rows + kHalf, column, count - static_cast<ptrdiff_t>(kHalf));
  }
}

// Transposes each 4x4 of the 128-bit blocks.
HWY_INLINE void TransposeBlocks(V (&x)[4]) {
  const D d;
  const hn::RepartitionToWide<D> dw;
  const auto wide = [&](V v) LAMINA_INLINE { return hn::BitCast(dw, v); };
  const V a = hn::InterleaveLower(d, x[0], x[1]), b = hn::InterleaveUpper(d, x[0], x[1]);
  const V c = hn::InterleaveLower(d, x[2], x[3]), e = hn::InterleaveUpper(d, x[2], x[3]);
  x[0] = hn::BitCast(d, hn::InterleaveLower(dw, wide(a), wide(c)));
  x[1] = hn::BitCast(d, hn::InterleaveUpper(dw, wide(a), wide(c)));
  x[2] = hn::BitCast(d, hn::InterleaveLower(dw, wide(b), wide(e)));
  x[3] = hn::BitCast(d, hn::InterleaveUpper(dw, wide(b), wide(e)));
}
#endif

// panel[c][r] = scale * rows[r][begin + c] for r < pitch, a whole number of vectors, and c < columns.
HWY_INLINE void PackRows(const float* const* rows, size_t begin, size_t columns, float scale, float* HWY_RESTRICT panel,
                         size_t pitch) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t r = 0; r < pitch; r += N) {
    size_t c = 0;
#if HWY_TARGET != HWY_SCALAR
    const V factor = hn::Set(d, scale);
    for (; c + 4 <= columns; c += 4) {
      V x[4];
      Unroll<4>([&](auto i) LAMINA_INLINE { x[i] = LoadBlocks(d, rows + r + i, begin + c); });
      TransposeBlocks(x);
      Unroll<4>([&](auto i) LAMINA_INLINE { hn::Store(hn::Mul(x[i], factor), d, panel + (c + i) * pitch + r); });
    }
#endif
    for (; c < columns; ++c) {
      for (size_t i = 0; i < N; ++i) panel[c * pitch + r + i] = rows[r + i][begin + c] * scale;
    }
  }
}

// rows[r][begin + c] = panel[c][r] * factor[r] for r < count and c < columns.
HWY_INLINE void UnpackRows(const float* HWY_RESTRICT panel, size_t pitch, size_t columns,
                           const float* HWY_RESTRICT factor, float* const* rows, size_t begin, size_t count) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t r = 0; r < count; r += N) {
    size_t c = 0;
#if HWY_TARGET != HWY_SCALAR
    const V f = hn::Load(d, factor + r);
    for (; c + 4 <= columns; c += 4) {
      V x[4];
      Unroll<4>([&](auto i) LAMINA_INLINE { x[i] = hn::Mul(hn::Load(d, panel + (c + i) * pitch + r), f); });
      TransposeBlocks(x);
      Unroll<4>([&](auto i) LAMINA_INLINE {
        StoreBlocks(d, x[i], rows + r + i, begin + c, static_cast<ptrdiff_t>(count) - static_cast<ptrdiff_t>(r + i));
      });
    }
#endif
    for (; c < columns; ++c) {
      for (size_t i = r; i < r + N && i < count; ++i) rows[i][begin + c] = panel[c * pitch + i] * factor[i];
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
