// How close a time comes to the machine's roof, and which roof that is.
#ifndef LAMINA_HARNESS_ROOF_H_
#define LAMINA_HARNESS_ROOF_H_

#include <string>

#include "lamina/cost.h"
#include "lamina/machine.h"

namespace lamina::harness {

struct RoofShare {
  double percent = 0;  // of the least time that the roof allows: 100 is at the roof
  std::string roof;    // "FMA", or the smallest memory level that holds all bytes: "L1", "L2", "L3", "memory"
};
RoofShare ShareOfRoof(const Cost& cost, double ns, const Machine& machine, int threads);

// `machine` as one that has no wider SIMD target than `isa` (kBest: as it is).
Machine LimitedTo(const Machine& machine, Isa isa);

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_ROOF_H_
