// Counts of whole things: tiles in a length, vectors in a row, cache lines in a block of scratch.
#ifndef LAMINA_KERNELS_CPU_ROUND_H_
#define LAMINA_KERNELS_CPU_ROUND_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace lamina::cpu {

// a / b rounded up; a >= 0, b > 0.
template <class T>
constexpr T DivUp(T a, std::type_identity_t<T> b) {
  return (a + b - 1) / b;
}

// The least multiple of `step` that is not below n; n >= 0, step > 0.
template <class T>
constexpr T RoundUp(T n, std::type_identity_t<T> step) {
  return DivUp(n, step) * step;
}

// Whole cache lines, so that parts of scratch that lie behind each other stay aligned.
constexpr size_t RoundToLine(size_t bytes) { return RoundUp(bytes, 64); }
constexpr size_t LineBytes(size_t floats) { return RoundToLine(floats * sizeof(float)); }

// A descriptor's stride, of which 0 means dense.
constexpr int64_t StrideOr(int64_t asked, int64_t dense) { return asked != 0 ? asked : dense; }

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_ROUND_H_
