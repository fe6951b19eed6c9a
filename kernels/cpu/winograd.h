// Minimal filtering F(m x m, r x r): m x m outputs of an r x r kernel from n x n inputs, n = m + r - 1, with n * n
// products where the direct algorithm has (m * r)^2 (Winograd, "Arithmetic complexity of computations", 1980; Lavin and
// Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308):
//   y = A^T [ (G w G^T) . (B^T x B) ] A,   summed over input channels between the brackets.
//
// The matrices interpolate a polynomial at 0, at pairs +-a and at infinity. Pairs let a transform share its even and
// odd halves; a and 1 / a together keep the error of F(4, 3) within the direct algorithm's bound, where the textbook's
// 1 and 2 lose a factor of two to four (docs/numerics.md).
//
// A tile of fewer outputs, at the image's end, needs fewer products. Only the last output takes part of infinity's
// coefficient. Of two outputs less, two inputs are read by none of those that are left: whatever stands there, they
// come out the same, so what makes the coefficient of 0 vanish is put there. The weights' transform stays what it is.
#ifndef LAMINA_KERNELS_CPU_WINOGRAD_H_
#define LAMINA_KERNELS_CPU_WINOGRAD_H_

#include <cstddef>

#include "kernels/cpu/gemm.h"
#include "lamina/context.h"

namespace lamina::cpu {

inline constexpr size_t kMostWinogradPairs = 3, kMostWinogradSize = 8;

// a of the k-th pair of points of a transform of n = 2 * pairs + 2 inputs.
constexpr double WinogradPoint(size_t n, size_t k) {
  constexpr double kPoints[][kMostWinogradPairs] = {{1}, {2.0 / 3, 1.5}, {0.5, 1, 2}};
  return kPoints[n / 2 - 2][k];
}

// The coefficients [first, last) of one direction that a tile of `outputs` out of m outputs needs.
struct WinogradRange {
  size_t first, last;
  bool holds(size_t i) const { return first <= i && i < last; }
};
constexpr WinogradRange NeededCoefficients(size_t n, size_t m, size_t outputs) {
  return {outputs + 2 <= m ? size_t{1} : 0, outputs < m ? n - 1 : n};
}

// One tile's window on the image and its transform.
struct WinogradInput {
  const float* x = nullptr;  // the image; pixel (i, j) of the window at x + first + i * row + j * pixel
  ptrdiff_t first = 0, row = 0, pixel = 0;
  size_t top = 0, bottom = 0, left = 0, right = 0;  // rows [top, bottom), columns [left, right) lie inside the image,
                                                    // the others are zeros
  bool no_first_row = false, no_first_column = false;  // the coefficients of 0 vanish, of a window that ends outside
  size_t channels = 0;
  float* v =
      nullptr;  // out: coefficient q, all channels and zeros up to whole vectors, at v + q * slice; 64-byte aligned
  size_t slice = 0;
};

// One tile's sums over the input channels, of one panel of output channels, and where its outputs go.
struct WinogradOutput {
  const float* sums = nullptr;  // coefficient q at sums + q * slice, `vectors` whole vectors, 64-byte aligned
  size_t slice = 0, vectors = 0;
  size_t rows = 0, columns = 0;                        // outputs of the tile that lie inside the image
  bool no_first_row = false, no_first_column = false;  // as in the input; those sums are not read
  GemmOutput out;                                      // row: from pixel to pixel; bias as there
  ptrdiff_t line = 0, residual_line = 0;               // from image row to image row
};

struct WinogradKernel {
  size_t m, r, n;
  void (*input)(const WinogradInput&);
  void (*output)(const WinogradOutput&);
};

// The transforms of m x m outputs and an r x r kernel: (2, 3), (4, 3), (2, 5) or (4, 5).
const WinogradKernel& GetWinogradKernel(Isa isa, size_t m, size_t r);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_WINOGRAD_H_
