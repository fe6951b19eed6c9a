// Winograd's transform of weights, G w G^T. Internal to kernels/cpu/conv2d_winograd*.cc.
#ifndef LAMINA_KERNELS_CPU_WINOGRAD_WEIGHTS_H_
#define LAMINA_KERNELS_CPU_WINOGRAD_WEIGHTS_H_

#include <cstddef>

#include "kernels/cpu/winograd.h"
#include "lamina/context.h"

namespace lamina::cpu {

inline constexpr size_t kMostWinogradTaps = 5;

// G [n][r]: row of a finite point a is a^k / product over the other points b of (a - b), that of infinity picks the
// last tap.
struct WinogradWeightMatrix {
  WinogradWeightMatrix(size_t n, size_t r);
  double g[kMostWinogradSize][kMostWinogradTaps] = {};
};

// u[(i * n + j) * slice + o] = sum_l g[j][l] sum_k g[i][k] w[(k * r + l) * width + o] for o < width, in double, each
// sum in order, and rounded once: the same bits on every target. width is whole vectors; w and u are aligned to them.
using WinogradWeightsFn = void (*)(const WinogradWeightMatrix& matrix, size_t width, const float* w, float* u,
                                   size_t slice);
WinogradWeightsFn GetWinogradWeights(Isa isa, size_t n, size_t r);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_WINOGRAD_WEIGHTS_H_
