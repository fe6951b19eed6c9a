// Is an output right? One element at a time, against the reference's value and a tolerance that is derived, never
// tuned.
#ifndef LAMINA_HARNESS_COMPARE_H_
#define LAMINA_HARNESS_COMPARE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "lamina/types.h"

namespace lamina::harness {

// One output tensor of a Run and what it should hold: `rows` rows of `row` elements, `stride` apart, at `got`;
// everything else about it dense.
struct Expected {
  std::string name;  // "y", "context", "weights", "lse"
  const void* got = nullptr;
  int64_t rows = 0, row = 0, stride = 0;
  std::vector<double> want;       // rows * row
  std::vector<double> tolerance;  // rows * row; 0 asks for the exact value
  DType dtype = DType::kF32;      // of got's elements
};

// `want` and `tolerance` of sums in f32, as those of the elements of `dtype` that the sums are rounded to.
void RoundTo(DType dtype, Expected& expected);

// The outcome: `worst` is the largest error / tolerance (of exact elements: 0 or infinity).
struct Comparison {
  bool ok = true;
  int64_t mismatches = 0;
  double worst = 0;
  std::string message;  // the first mismatch and the count, for people
};

// Every element, `!(error <= tolerance)` is a mismatch: NaN never passes unless NaN is wanted; infinities must be
// equal.
Comparison Compare(const Expected& expected);

inline constexpr double kUnitRoundoff = 0x1p-24;  // of fp32
// Half the distance of neighbours, relative to them.
constexpr double UnitRoundoff(DType dtype) {
  return dtype == DType::kF32 ? kUnitRoundoff : dtype == DType::kBf16 ? 0x1p-8 : 0x1p-11;
}

// What rounding a number up to `magnitude` to `dtype` adds at most; nothing for f32, in which all is computed.
double RoundingTolerance(DType dtype, double magnitude);

// What rounding both factors of a sum's products to TF32 (11 significant bits, u = 2^-11) adds at most.
constexpr double Tf32Tolerance(double magnitude) { return (0x1p-10 + 0x1p-22) * magnitude; }

// 4 u sqrt(k) S: a sum of k products whose absolute values sum to S (style: the worst observed is a quarter of it).
double DotTolerance(int64_t k, double magnitude);

// Tolerance of act(sum) when the sum's is `tolerance`: the activation's largest slope, and its own rounding errors.
double ActivatedTolerance(const Activation& activation, double value, double tolerance);

// Activations that map integers to integers exactly, whatever the target.
bool ExactActivation(const Activation& activation);

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_COMPARE_H_
