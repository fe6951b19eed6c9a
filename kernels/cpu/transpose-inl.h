// Transposes of as many vectors as a vector has lanes, in registers. Read again for every target.
#if defined(LAMINA_KERNELS_CPU_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_TRANSPOSE_INL_H_
#undef LAMINA_KERNELS_CPU_TRANSPOSE_INL_H_
#else
#define LAMINA_KERNELS_CPU_TRANSPOSE_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

inline constexpr size_t kLanes = hn::MaxLanes(D());

#if HWY_TARGET == HWY_SCALAR
HWY_INLINE void TransposeBlock(V (&)[1]) {}
#else
// v[r] holds kLanes floats of row r; afterwards v[c] holds those of column c.
HWY_INLINE void TransposeBlock(V (&v)[kLanes]) {
  const D d;
  const hn::Repartition<double, D> pairs;
  // Within 128-bit blocks: v[4g + j] then holds, in block k, rows 4g..4g+3 of column 4k + j.
  Unroll<kLanes / 4>([&](auto g) LAMINA_INLINE {
    V* w = v + 4 * g;
    const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, w[0], w[1]));
    const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, w[2], w[3]));
    const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, w[0], w[1]));
    const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, w[2], w[3]));
    w[0] = hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23));
    w[1] = hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23));
    w[2] = hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23));
    w[3] = hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23));
  });
  // The blocks themselves, for each j: block k of v[4g + j] goes to block g of v[4k + j].
  if constexpr (kLanes == 8) {
    Unroll<4>([&](auto j) LAMINA_INLINE {
      const V a = v[j], b = v[4 + j];
      v[j] = hn::ConcatLowerLower(d, b, a);
      v[4 + j] = hn::ConcatUpperUpper(d, b, a);
    });
  } else if constexpr (kLanes == 16) {
    Unroll<4>([&](auto j) LAMINA_INLINE {
      const V even0 = hn::ConcatLowerLower(d, v[8 + j], v[j]), odd0 = hn::ConcatLowerLower(d, v[12 + j], v[4 + j]);
      const V even1 = hn::ConcatUpperUpper(d, v[8 + j], v[j]), odd1 = hn::ConcatUpperUpper(d, v[12 + j], v[4 + j]);
      v[j] = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(odd0), even0);
      v[4 + j] = hn::OddEvenBlocks(odd0, hn::SwapAdjacentBlocks(even0));
      v[8 + j] = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(odd1), even1);
      v[12 + j] = hn::OddEvenBlocks(odd1, hn::SwapAdjacentBlocks(even1));
    });
  }
}
#endif

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
