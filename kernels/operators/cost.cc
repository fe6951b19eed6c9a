#include "lamina/cost.h"

#include <algorithm>

#include "lamina/machine.h"

namespace lamina {

Roofline RooflineNs(const Cost& cost, const Machine& machine, int threads) {
  const double compute = static_cast<double>(cost.flops()) / machine.Gflops(Isa::kBest, threads);
  const double memory = static_cast<double>(cost.bytes()) / machine.Gbps(cost.bytes(), threads);
  return {std::max(compute, memory), memory > compute};
}

}  // namespace lamina
