// Counts of whole things: tiles in a length, elements in a padded row.
#ifndef LAMINA_KERNELS_CUDA_CORE_ROUND_H_
#define LAMINA_KERNELS_CUDA_CORE_ROUND_H_

#include <cstdint>

#include "kernels/cuda/core/host_device.h"

namespace lamina::cuda {

// a / b rounded up; a >= 0, b > 0.
LAMINA_HD int64_t DivUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
LAMINA_HD int64_t RoundUp(int64_t n, int64_t step) { return DivUp(n, step) * step; }

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_ROUND_H_
