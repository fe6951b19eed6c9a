// The two loops that a roofline is measured with, per SIMD target.
#ifndef LAMINA_KERNELS_CPU_PROBE_H_
#define LAMINA_KERNELS_CPU_PROBE_H_

#include <cstddef>

#include "lamina/context.h"

namespace lamina::cpu {

struct RoofProbe {
  // Multiply-adds in registers alone: `rounds` rounds of flops_per_round floating-point operations.
  float (*multiply_add)(size_t rounds);
  size_t flops_per_round;
  // Reads `count` floats at `data`, a multiple of kReadBlock, and returns their sum.
  float (*read)(const float* data, size_t count);
};
inline constexpr size_t kReadBlock = 1024;  // floats: 4 KiB

const RoofProbe& GetRoofProbe(Isa isa);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_PROBE_H_
