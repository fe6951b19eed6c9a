// What every kernel file needs per SIMD target: forced unrolling, tails that read and write nothing outside, and the
// small differences between Highway versions. Read again for every target.
#if defined(LAMINA_KERNELS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_SIMD_INL_H_
#undef LAMINA_KERNELS_CPU_SIMD_INL_H_
#else
#define LAMINA_KERNELS_CPU_SIMD_INL_H_
#endif

#include <cstddef>
#include <utility>

#include "hwy/highway.h"

// After the parameter list of every lambda that touches vectors: GCC inlines one level of such lambdas by itself, but
// not two, and a call keeps the accumulators in memory (27 instead of 114 GFLOP/s).
#undef LAMINA_INLINE
#define LAMINA_INLINE HWY_ATTR __attribute__((always_inline))

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

template <class F, size_t... kI>
HWY_INLINE void UnrollSequence(F&& f, std::index_sequence<kI...>) {
  (f(std::integral_constant<size_t, kI>()), ...);
}

// f(integral_constant 0), ... f(integral_constant kCount - 1), unrolled at every optimisation level.
template <size_t kCount, class F>
HWY_INLINE void Unroll(F&& f) {
  UnrollSequence(f, std::make_index_sequence<kCount>());
}

// v, which was loaded, in a register: GCC turns a load that is used twice or more into as many memory operands, all of
// which miss L1 together, and a loop that only copies vectors into a call of memmove.
template <class VV>
HWY_INLINE VV InRegister(VV v) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  __asm__("" : "+v"(v.raw));
#elif HWY_TARGET <= HWY_SSE4 && HWY_ARCH_X86
  __asm__("" : "+x"(v.raw));
#endif
  return v;
}

// The first n < Lanes(d) floats at p, the other lanes zero. Below AVX2 Highway's MaskedLoad reads a whole vector, so
// those targets go through a buffer.
HWY_INLINE V LoadTail(D d, const float* HWY_RESTRICT p, size_t n) {
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
  return hn::MaskedLoad(hn::FirstN(d, n), d, p);
#else
  HWY_ALIGN float buffer[hn::MaxLanes(d)] = {};
  for (size_t i = 0; i < n; ++i) buffer[i] = p[i];
  return hn::Load(d, buffer);
#endif
}

// Stores the first n < Lanes(d) lanes. On AVX2 in up to three parts, since masked stores are slow on some CPUs:
// 28x28x64 to 7 channels by GEMM takes 11.4 us with parts and 13.5 with masks (Zen 4, 2026-11-26).
HWY_INLINE void StoreTail(V v, D d, float* HWY_RESTRICT p, size_t n) {
#if HWY_TARGET <= HWY_AVX3
  hn::BlendedStore(v, hn::FirstN(d, n), d, p);
#elif HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
  const hn::Half<D> four;
  const hn::Half<decltype(four)> two;
  hn::Vec<decltype(four)> low = hn::LowerHalf(four, v);
  if ((n & 4) != 0) {
    hn::StoreU(low, four, p);
    low = hn::UpperHalf(four, v);
    p += 4;
  }
  if ((n & 2) != 0) {
    hn::StoreU(hn::LowerHalf(two, low), two, p);
    low = hn::Shuffle1032(low);
    p += 2;
  }
  if ((n & 1) != 0) *p = hn::GetLane(low);
#else
  HWY_ALIGN float buffer[hn::MaxLanes(d)];
  hn::Store(v, d, buffer);
  for (size_t i = 0; i < n; ++i) p[i] = buffer[i];
#endif
}

HWY_INLINE V LoadUpTo(D d, const float* HWY_RESTRICT p, size_t n) {
  return n >= hn::Lanes(d) ? hn::LoadU(d, p) : LoadTail(d, p, n);
}
HWY_INLINE void StoreUpTo(V v, D d, float* HWY_RESTRICT p, size_t n) {
  if (n >= hn::Lanes(d)) {
    hn::StoreU(v, d, p);
  } else {
    StoreTail(v, d, p, n);
  }
}

// min and max that let a NaN in v through. x86 returns the second operand when one is NaN, Highway's scalar and
// emulated targets the one that is not.
HWY_INLINE V AtMost(V limit, V v) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  return hn::IfThenElse(hn::Gt(v, limit), limit, v);
#else
  return hn::Min(limit, v);
#endif
}
HWY_INLINE V AtLeast(V limit, V v) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  return hn::IfThenElse(hn::Lt(v, limit), limit, v);
#else
  return hn::Max(limit, v);
#endif
}
HWY_INLINE V Clamp(V lo, V hi, V v) { return AtMost(hi, AtLeast(lo, v)); }

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
