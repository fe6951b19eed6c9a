// Rows that lie anywhere in memory to and from a panel [columns][pitch] whose lanes are the rows. Read again for every
// target.
//
// As many rows and columns at a time as a vector has lanes, so that a cache line of a row is read or written once: in
// pieces of 16 bytes, rows 4 KiB apart (16 heads of 64) would push each other out of the L1 cache in between.
#if defined(LAMINA_KERNELS_CPU_QUERY_PANEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_QUERY_PANEL_INL_H_
#undef LAMINA_KERNELS_CPU_QUERY_PANEL_INL_H_
#else
#define LAMINA_KERNELS_CPU_QUERY_PANEL_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/cpu/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

// panel[c][r] = scale * rows[r][begin + c] for r < pitch, a whole number of vectors, and c < columns.
HWY_INLINE void PackRows(const float* const* rows, size_t begin, size_t columns, float scale, float* HWY_RESTRICT panel,
                         size_t pitch) {
  const D d;
  const V factor = hn::Set(d, scale);
  for (size_t r = 0; r < pitch; r += kLanes) {
    for (size_t c = 0; c < columns; c += kLanes) {
      const size_t count = HWY_MIN(kLanes, columns - c);
      V x[kLanes];
      if (count == kLanes) {
        Unroll<kLanes>([&](auto i) LAMINA_INLINE { x[i] = hn::LoadU(d, rows[r + i] + begin + c); });
      } else {
        Unroll<kLanes>([&](auto i) LAMINA_INLINE { x[i] = LoadTail(d, rows[r + i] + begin + c, count); });
      }
      TransposeBlock(x);
      Unroll<kLanes>([&](auto i) LAMINA_INLINE {
        if (i < count) hn::Store(hn::Mul(x[i], factor), d, panel + (c + i) * pitch + r);
      });
    }
  }
}

// rows[r][begin + c] = panel[c][r] * factor[r] for r < count and c < columns.
HWY_INLINE void UnpackRows(const float* HWY_RESTRICT panel, size_t pitch, size_t columns,
                           const float* HWY_RESTRICT factor, float* const* rows, size_t begin, size_t count) {
  const D d;
  for (size_t r = 0; r < count; r += kLanes) {
    const V f = hn::Load(d, factor + r);
    for (size_t c = 0; c < columns; c += kLanes) {
      const size_t width = HWY_MIN(kLanes, columns - c);
      V x[kLanes];
      Unroll<kLanes>([&](auto i) LAMINA_INLINE {
        x[i] = i < width ? hn::Mul(hn::Load(d, panel + (c + i) * pitch + r), f) : hn::Zero(d);
      });
      TransposeBlock(x);
      if (count - r >= kLanes && width == kLanes) {
        Unroll<kLanes>([&](auto i) LAMINA_INLINE { hn::StoreU(x[i], d, rows[r + i] + begin + c); });
      } else {
        Unroll<kLanes>([&](auto i) LAMINA_INLINE {
          if (r + i < count) StoreUpTo(x[i], d, rows[r + i] + begin + c, width);
        });
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
