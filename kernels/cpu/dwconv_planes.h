// The micro-kernel of depthwise convolution in nchw: plane by plane, vectors along the width.
#ifndef LAMINA_KERNELS_CPU_DWCONV_PLANES_H_
#define LAMINA_KERNELS_CPU_DWCONV_PLANES_H_

#include <cstddef>
#include <cstdint>

#include "lamina/context.h"

namespace lamina::cpu {

inline constexpr int64_t kPlaneRows = 7;  // output rows that are computed together

// Masked loads of the row of zeros leave it on both sides: pages must be there, or each of them costs hundreds of
// cycles.
inline constexpr int64_t kZeroMargin = 64;

// Planes [first, last) of outputs; `multiplier` of them read each plane of x.
struct DwConvPlanes {
  int64_t first = 0, last = 0, multiplier = 1;
  const float* x = nullptr;  // [all planes / multiplier, ih, iw]
  int64_t ih = 0, iw = 0, pad_top = 0, pad_left = 0;
  const float* zeros = nullptr;  // iw of them, and kZeroMargin on both sides
  const float* w = nullptr;      // [all planes, k, k]
  const float* bias = nullptr;   // [all planes]
  float lo = 0, hi = 0;
  float* y = nullptr;               // [rows, columns] of plane 0: output rows from first_row on
  const float* residual = nullptr;  // alike; null: none
  bool residual_after = false;      // min(max(sum, lo), hi) + residual instead of min(max(sum + residual, lo), hi)
  int64_t y_plane = 0, residual_plane = 0;  // floats from plane to plane
  int64_t first_row = 0, rows = 0, columns = 0;
};

struct DwConvPlaneKernel {
  struct Size {
    int64_t k = 0, stride = 0;  // of both axes; dilation 1
    void (*run)(const DwConvPlanes&) = nullptr;
  };
  size_t lanes;
  Size sizes[4];
};
const DwConvPlaneKernel& GetDwConvPlaneKernel(Isa isa);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_DWCONV_PLANES_H_
