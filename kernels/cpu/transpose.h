// Moves between layouts: transposes of blocks of floats, copies of their columns, pairs parted.
#ifndef LAMINA_KERNELS_CPU_TRANSPOSE_H_
#define LAMINA_KERNELS_CPU_TRANSPOSE_H_

#include <cstddef>

#include "lamina/context.h"

namespace lamina::cpu {

struct TransposeKernel {
  // dst[c * dst_stride + r] = src[r * src_stride + c] for r < rows, c < columns.
  void (*transpose)(size_t rows, size_t columns, const float* src, ptrdiff_t src_stride, float* dst,
                    ptrdiff_t dst_stride);
  // dst[r * width + c] = c < columns ? src[r * src_stride + c] : 0 for r < rows, c < width; width is whole vectors, dst
  // aligned to them.
  void (*copy_rows)(size_t rows, size_t columns, size_t width, const float* src, ptrdiff_t src_stride, float* dst);
  // even[i] = src[2 * i], odd[i] = src[2 * i + 1] for what lies in src[0 .. n).
  void (*split_pairs)(size_t n, const float* src, float* even, float* odd);
};
const TransposeKernel& GetTransposeKernel(Isa isa);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_TRANSPOSE_H_
