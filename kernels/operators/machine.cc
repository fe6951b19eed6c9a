// Built-in machine figures and their text form.
#include "lamina/machine.h"

#include <unistd.h>

#include <algorithm>

namespace lamina {
namespace {

double Interpolate(double one, double all, int most, int threads) {
  if (most <= 1 || threads <= 1) return one;
  const double t = static_cast<double>(std::min(threads, most) - 1) / (most - 1);
  return one + t * (all - one);
}

int64_t CacheBytes(int name, int64_t otherwise) {
  const long bytes = sysconf(name);
  return bytes > 0 ? bytes : otherwise;
}

}  // namespace

double Machine::Gflops(Isa isa, int wanted) const {
  const auto i = static_cast<size_t>(isa);
  return Interpolate(gflops_one[i], gflops_all[i], threads, wanted);
}

double Machine::Gbps(int64_t bytes, int wanted) const {
  for (const Level* level : {&l1, &l2, &l3}) {
    if (bytes <= level->bytes) return Interpolate(level->gbps_one, level->gbps_all, threads, wanted);
  }
  return Interpolate(memory.gbps_one, memory.gbps_all, threads, wanted);
}

const Machine& BuiltInMachine() {
  static const Machine machine = [] {
    Machine m;
    m.cpu = "generic x86-64";
    m.threads = static_cast<int>(AvailableThreads());
    m.gflops_one = {100, 6, 24, 90, 100};
    m.l1 = {CacheBytes(_SC_LEVEL1_DCACHE_SIZE, 32 << 10), 180, 180};
    m.l2 = {CacheBytes(_SC_LEVEL2_CACHE_SIZE, 1 << 20), 100, 100};
    m.l3 = {CacheBytes(_SC_LEVEL3_CACHE_SIZE, 32 << 20), 40, 40};
    m.memory = {int64_t{1} << 40, 15, 15};
    for (int i = 0; i < kIsaCount; ++i) m.gflops_all[i] = m.gflops_one[i] * m.threads;
    for (auto* level : {&m.l1, &m.l2, &m.l3, &m.memory}) level->gbps_all = level->gbps_one * m.threads;
    return m;
  }();
  return machine;
}

Result<Machine> ParseMachine(std::string_view) { return InvalidArgument("machine: no text form yet"); }

}  // namespace lamina
