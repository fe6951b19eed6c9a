// Transposes of fp32 matrices, N x N floats at a time in registers, N = lanes of a vector.
//
// Each line of the source is read once in whole vectors: reading 16 rows piecewise costs the L1 cache its lines where
// the row stride is a multiple of 4 KiB (planes of 32x32, 64x64, 128x128 pixels). 4x4 transposes inside 128-bit blocks
// come first, then the blocks themselves are transposed. Registers: N rows in, N columns out; 16 + 16 of 32 on AVX-512,
// 8 + 8 of 16 on AVX2, 4 + 4 of 16 on SSE4. Any number of rows and columns; nothing outside is read or written.
#include "kernels/cpu/transpose.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/transpose.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/cpu/transpose-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

// Loops for what is too narrow for vectors.
void TransposeScalar(size_t rows, size_t columns, const float* HWY_RESTRICT src, ptrdiff_t src_stride,
                     float* HWY_RESTRICT dst, ptrdiff_t dst_stride) {
  for (size_t c = 0; c < columns; ++c, dst += dst_stride) {
    const float* s = src + c;
    for (size_t r = 0; r < rows; ++r, s += src_stride) dst[r] = *s;
  }
}

#if HWY_TARGET == HWY_SCALAR

void Transpose(size_t rows, size_t columns, const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride) {
  TransposeScalar(rows, columns, src, src_stride, dst, dst_stride);
}

#else

// rows and columns at most kLanes, at least one of them less.
HWY_NOINLINE void TransposeEdge(size_t rows, size_t columns, const float* HWY_RESTRICT src, ptrdiff_t src_stride,
                                float* HWY_RESTRICT dst, ptrdiff_t dst_stride) {
  const D d;
  V v[kLanes];
  Unroll<kLanes>([&](auto r) LAMINA_INLINE {
    v[r] = r < rows ? LoadUpTo(d, src + static_cast<ptrdiff_t>(r) * src_stride, columns) : hn::Zero(d);
  });
  TransposeBlock(v);
  Unroll<kLanes>([&](auto c) LAMINA_INLINE {
    if (c < columns) StoreUpTo(v[c], d, dst + static_cast<ptrdiff_t>(c) * dst_stride, rows);
  });
}

// Three planes into dense pixels of three channels: the first layer of an image in nchw.
void InterleaveThree(size_t columns, const float* HWY_RESTRICT src, ptrdiff_t src_stride, float* HWY_RESTRICT dst) {
  const D d;
  size_t c = 0;
  for (; c + kLanes <= columns; c += kLanes) {
    hn::StoreInterleaved3(hn::LoadU(d, src + c), hn::LoadU(d, src + src_stride + c),
                          hn::LoadU(d, src + 2 * src_stride + c), d, dst + 3 * c);
  }
  TransposeScalar(3, columns - c, src + c, src_stride, dst + 3 * c, 3);
}

void Transpose(size_t rows, size_t columns, const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride) {
  const D d;
  if (rows == 3 && dst_stride == 3) return InterleaveThree(columns, src, src_stride, dst);
  if (rows < 4 || columns < 4) return TransposeScalar(rows, columns, src, src_stride, dst, dst_stride);
  for (size_t r = 0; r < rows; r += kLanes) {
    const float* from = src + static_cast<ptrdiff_t>(r) * src_stride;
    float* to = dst + r;
    size_t c = 0;
    if (rows - r >= kLanes) {
      for (; c + kLanes <= columns; c += kLanes, to += static_cast<ptrdiff_t>(kLanes) * dst_stride) {
        V v[kLanes];
        Unroll<kLanes>([&](auto i)
                           LAMINA_INLINE { v[i] = hn::LoadU(d, from + static_cast<ptrdiff_t>(i) * src_stride + c); });
        TransposeBlock(v);
        Unroll<kLanes>([&](auto i) LAMINA_INLINE { hn::StoreU(v[i], d, to + static_cast<ptrdiff_t>(i) * dst_stride); });
      }
    }
    for (; c < columns; c += kLanes, to += static_cast<ptrdiff_t>(kLanes) * dst_stride) {
      TransposeEdge(std::min(rows - r, kLanes), std::min(columns - c, kLanes), from + c, src_stride, to, dst_stride);
    }
  }
}

#endif  // HWY_TARGET == HWY_SCALAR

void CopyRows(size_t rows, size_t columns, size_t width, const float* HWY_RESTRICT src, ptrdiff_t src_stride,
              float* HWY_RESTRICT dst) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t r = 0; r < rows; ++r, src += src_stride, dst += width) {
    size_t c = 0;
    for (; c + N <= columns; c += N) hn::Store(InRegister(hn::LoadU(d, src + c)), d, dst + c);
    if (c < columns) {
      hn::Store(LoadTail(d, src + c, columns - c), d, dst + c);
      c += N;
    }
    for (; c < width; c += N) hn::Store(hn::Zero(d), d, dst + c);
  }
}

void SplitPairs(size_t n, const float* HWY_RESTRICT src, float* HWY_RESTRICT even, float* HWY_RESTRICT odd) {
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const D d;
  const size_t N = hn::Lanes(d);
  for (; 2 * (i + N) <= n; i += N) {
    const V low = InRegister(hn::LoadU(d, src + 2 * i)), high = InRegister(hn::LoadU(d, src + 2 * i + N));
    hn::StoreU(hn::ConcatEven(d, high, low), d, even + i);
    hn::StoreU(hn::ConcatOdd(d, high, low), d, odd + i);
  }
#endif
  for (; 2 * i < n; ++i) {
    even[i] = src[2 * i];
    if (2 * i + 1 < n) odd[i] = src[2 * i + 1];
  }
}

const TransposeKernel* ChooseTranspose() {
  static constexpr TransposeKernel kKernel = {&Transpose, &CopyRows, &SplitPairs};
  return &kKernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {

HWY_EXPORT(ChooseTranspose);
const TransposeKernel& GetTransposeKernel(Isa isa) { return *LAMINA_DISPATCH(ChooseTranspose, isa)(); }

}  // namespace lamina::cpu
#endif
