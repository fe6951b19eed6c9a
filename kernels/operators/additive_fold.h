// How additive attention does without a tanh, on the CPU and on the GPU. With A = exp(2a) and E = exp(2b),
//   tanh(a + b) = 1 - 2 / (1 + A E),
// and the sum of v'[u] * 1 is the same for all keys: the softmax over them cancels it. What is left,
// -2 sum_u v'[u] / (1 + A E), is made -2 max|v'| sum_u +-1 / x[u] with x = c + (c A) E, c = max|v'| / |v'[u]|. tanh is
// odd, so a unit's sign is free to choose: its projections take it. Signs that alternate make differences of
// neighbours, 1/x0 - 1/x1 = (x1 - x0) / (x0 x1), keep partial sums small, and four terms share a division.
#ifndef LAMINA_KERNELS_OPERATORS_ADDITIVE_FOLD_H_
#define LAMINA_KERNELS_OPERATORS_ADDITIVE_FOLD_H_

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace lamina::additive {

// Where this holds: |b| <= kKeyLimit, and a clamped to +-kQueryLimit. That clamp changes no score: with a beyond it
// |a + b| > 9.1, where tanh is 1 in fp32. The exponentials of both are normal numbers.
inline constexpr float kKeyLimit = 34.4f, kQueryLimit = 43.5f;
// The most that x may be, so that the product of four is finite: 2^-31 is lost at most.
inline constexpr float kReciprocalCap = 0x1p31f;

// v' from v: g * v / ||v|| or, where g is null, v itself.
inline void Normalize(const double* g, size_t count, double* v) {
  if (g == nullptr) return;
  double squares = 0;
  for (size_t u = 0; u < count; ++u) squares += v[u] * v[u];
  const double scale = *g / std::sqrt(squares);
  for (size_t u = 0; u < count; ++u) v[u] *= scale;
}

// [units] each, units >= count.
struct Fold {
  float* v;       // v' with alternating signs, zeros behind `count`
  float* c;       // max|v'| / |v'|
  float* factor;  // of a query's exponentials: c, or 0 where the unit has no weight
  float* sign;    // that the unit's projections take
  float scale;    // score = scale * sum of +-1 / x
  float offset;   // + sum of v * tanh, to compare with it
};

// Signs are the same in `run` neighbouring units, + first.
inline void FoldVector(const double* v, size_t count, size_t units, size_t run, Fold& fold) {
  double most = 0, offset = 0;
  for (size_t u = 0; u < count; ++u) most = std::max(most, std::fabs(v[u]));
  for (size_t u = 0; u < units; ++u) {
    const double alternating = u / run % 2 == 0 ? 1 : -1, value = u < count ? v[u] : 0.0;
    fold.sign[u] = static_cast<float>(value < 0 ? -alternating : alternating);
    fold.v[u] = static_cast<float>(alternating * std::fabs(value));
    offset -= fold.v[u];
    // A unit of no weight, or of less than 2^-30 of the greatest, is a constant and cancels. NaN is kept.
    const bool none = value == 0 || std::fabs(value) < 0x1p-30 * most;
    fold.c[u] = none ? kReciprocalCap : static_cast<float>(most / std::fabs(value));
    fold.factor[u] = none ? 0.0f : fold.c[u];
  }
  fold.scale = static_cast<float>(-2 * most);
  fold.offset = static_cast<float>(offset);
}

}  // namespace lamina::additive

#endif  // LAMINA_KERNELS_OPERATORS_ADDITIVE_FOLD_H_
