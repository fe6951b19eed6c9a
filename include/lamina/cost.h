// What an operator costs, whatever kernel runs it.
//
// Multiply-accumulates are counted as the papers count them: taps on padding count (MobileNet's tables do so), causal
// masks and windows count the pairs that they keep, run-time masks and lengths count as if nothing were masked.
#ifndef LAMINA_COST_H_
#define LAMINA_COST_H_

#include <cstdint>

#include "lamina/export.h"

namespace lamina {

struct Machine;

struct Cost {
  int64_t macs = 0;              // multiply-accumulates
  int64_t transcendentals = 0;   // exp, tanh, erf, division in softmax: one each
  int64_t params = 0;            // trained numbers, biases included
  int64_t weight_bytes = 0;      // params in the descriptor's dtype
  int64_t activation_bytes = 0;  // inputs read once plus outputs written once: what must move at least

  int64_t flops() const { return 2 * macs; }
  int64_t bytes() const { return weight_bytes + activation_bytes; }
  // flops per byte that must move.
  double arithmetic_intensity() const { return bytes() ? double(flops()) / double(bytes()) : 0.0; }

  Cost& operator+=(const Cost& other);
  bool operator==(const Cost&) const = default;
};

inline Cost& Cost::operator+=(const Cost& o) {
  macs += o.macs;
  transcendentals += o.transcendentals;
  params += o.params;
  weight_bytes += o.weight_bytes;
  activation_bytes += o.activation_bytes;
  return *this;
}

// The least time in nanoseconds that `cost` takes on `machine` with `threads` threads: the greater of its arithmetic at
// the FMA peak and its bytes at the bandwidth of the smallest memory level that holds them.
struct Roofline {
  double ns = 0;
  bool memory_bound = false;
};
LAMINA_API Roofline RooflineNs(const Cost& cost, const Machine& machine, int threads);

}  // namespace lamina

#endif  // LAMINA_COST_H_
