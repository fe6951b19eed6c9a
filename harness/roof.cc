#include "harness/roof.h"

namespace lamina::harness {

RoofShare ShareOfRoof(const Cost& cost, double ns, const Machine& machine, int threads) {
  const Roofline roofline = RooflineNs(cost, machine, threads);
  RoofShare share{ns > 0 ? 100 * roofline.ns / ns : 0, "FMA"};
  if (!roofline.memory_bound) return share;
  share.roof = cost.bytes() <= machine.l1.bytes   ? "L1"
               : cost.bytes() <= machine.l2.bytes ? "L2"
               : cost.bytes() <= machine.l3.bytes ? "L3"
                                                  : "memory";
  return share;
}

Machine LimitedTo(const Machine& machine, Isa isa) {
  Machine limited = machine;
  limited.gflops_one[0] = machine.gflops_one[static_cast<size_t>(isa)];
  limited.gflops_all[0] = machine.gflops_all[static_cast<size_t>(isa)];
  return limited;
}

}  // namespace lamina::harness
