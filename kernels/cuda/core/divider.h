// Division by a number that is known before the kernel starts, as a multiplication and a shift: a GPU has no integer
// division. Granlund and Montgomery, "Division by invariant integers using multiplication", 1994, figure 4.1.
#ifndef LAMINA_KERNELS_CUDA_CORE_DIVIDER_H_
#define LAMINA_KERNELS_CUDA_CORE_DIVIDER_H_

#include <cstdint>

#include "kernels/cuda/core/host_device.h"

namespace lamina::cuda {

// Quotients of 0 <= n < 2^31 by 1 <= divisor < 2^31.
struct Divider {
  uint32_t divisor = 1, multiplier = 1, shift = 0;

  static LAMINA_HD Divider Of(uint32_t divisor) {
    uint32_t shift = 0;
    while (shift < 31 && (1u << shift) < divisor) ++shift;  // the least with divisor <= 2^shift
    const uint64_t range = (uint64_t{1} << shift) - divisor;
    return {divisor, static_cast<uint32_t>((range << 32) / divisor + 1), shift};
  }
  LAMINA_HD uint32_t Quotient(uint32_t n) const {
    const auto high = static_cast<uint32_t>((uint64_t{n} * multiplier) >> 32);
    return (high + n) >> shift;
  }
  LAMINA_HD uint32_t Remainder(uint32_t n) const { return n - Quotient(n) * divisor; }
};

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_DIVIDER_H_
