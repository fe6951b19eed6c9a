// Which SIMD targets are compiled in, and which of them this CPU runs.
#include "kernels/cpu/dispatch.h"
#include "lamina/context.h"

namespace lamina {
namespace {

constexpr Isa kWidestFirst[] = {Isa::kAvx3, Isa::kAvx2, Isa::kSse4, Isa::kScalar};

std::vector<Isa> Compiled(bool supported) {
  // Asked once: Highway's answer takes a dozen CPUIDs, 25 us in a virtual machine, which traps each.
  static const int64_t runs = hwy::SupportedTargets() | HWY_STATIC_TARGET;
  std::vector<Isa> isas;
  for (Isa isa : kWidestFirst) {
    const int64_t target = cpu::HighwayTarget(isa);
    if ((target & HWY_TARGETS) && ((target & runs) != 0) == supported) isas.push_back(isa);
  }
  return isas;
}

}  // namespace

std::vector<Isa> SupportedIsas() { return Compiled(true); }
std::vector<Isa> UnsupportedIsas() { return Compiled(false); }

}  // namespace lamina
