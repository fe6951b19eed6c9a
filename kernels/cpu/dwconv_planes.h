// The micro-kernel of depthwise convolution in nchw: one plane at a time, vectors along its width.
#ifndef LAMINA_KERNELS_CPU_DWCONV_PLANES_H_
#define LAMINA_KERNELS_CPU_DWCONV_PLANES_H_

#include <cstddef>
#include <cstdint>

#include "lamina/context.h"

namespace lamina::cpu {

inline constexpr int64_t kPlaneRows = 4;  // output rows that are computed together

struct DwConvPlane {
  // Tap (0, 0) of output (0, 0), in a copy with its padding: readable are the rows of outputs up to a multiple of
  // kPlaneRows, and in each as many columns as `columns` rounded up to whole vectors take, and a vector more.
  const float* x = nullptr;
  ptrdiff_t x_row = 0;
  const float* w = nullptr;  // [k, k]
  float bias = 0, lo = 0, hi = 0;
  float* y = nullptr;               // [rows, columns], dense
  const float* residual = nullptr;  // y's shape; null: none
  bool residual_after = false;      // min(max(sum, lo), hi) + residual instead of min(max(sum + residual, lo), hi)
  size_t rows = 0, columns = 0;
};

struct DwConvPlaneKernel {
  struct Size {
    int64_t k = 0, stride = 0;  // of both axes; dilation 1
    void (*run)(const DwConvPlane&) = nullptr;
  };
  size_t lanes;
  Size sizes[4];
};
const DwConvPlaneKernel& GetDwConvPlaneKernel(Isa isa);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_DWCONV_PLANES_H_
