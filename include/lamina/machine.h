// The few figures of a machine that predictions and rooflines are made from.
//
// Built-in figures serve per CPU family; `lamina roof --save FILE` measures this machine's own and writes ToString's
// text, which a Context or the environment variable LAMINA_MACHINE takes.
#ifndef LAMINA_MACHINE_H_
#define LAMINA_MACHINE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "lamina/context.h"
#include "lamina/export.h"
#include "lamina/status.h"

namespace lamina {

struct Machine {
  // Read bandwidth in GB/s of one level of memory and the bytes it holds (for one core where it is private).
  struct Level {
    int64_t bytes = 0;
    double gbps_one = 0;  // one thread
    double gbps_all = 0;  // all threads together
  };
  std::string cpu;  // "AMD Zen 4", or the CPU's own name
  int threads = 1;
  std::array<double, kIsaCount> gflops_one = {};  // FMA peak by Isa, one thread; [kBest] is the widest supported one's
  std::array<double, kIsaCount> gflops_all = {};  // all threads together
  Level l1, l2, l3, memory;

  // FMA peak in GFLOP/s, interpolated linearly between one thread and all.
  LAMINA_API double Gflops(Isa isa, int threads) const;
  // Read bandwidth in GB/s of the smallest level that holds `bytes`.
  LAMINA_API double Gbps(int64_t bytes, int threads) const;
};

// Built-in figures for this CPU's family, cache sizes read from it, once per process.
LAMINA_API const Machine& BuiltInMachine();
// Runs the measurement (about two seconds): FMA peak per supported Isa, bandwidth per level, one thread and all of
// pool.
LAMINA_API Machine MeasureMachine(ThreadPool& pool);

LAMINA_API std::string ToString(const Machine& machine);
LAMINA_API Result<Machine> ParseMachine(std::string_view text);

}  // namespace lamina

#endif  // LAMINA_MACHINE_H_
