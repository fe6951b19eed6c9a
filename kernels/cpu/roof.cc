// Measures a machine's roofs with the loops of probe.h: the best of several short trials, one thread and the whole
// pool.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>

#include "kernels/cpu/aligned.h"
#include "kernels/cpu/probe.h"
#include "lamina/machine.h"

namespace lamina {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTrials = 5;
constexpr double kTrialNs = 12e6;  // a worker wakes within some 0.05 ms: far less than a trial

std::atomic<float> sink;  // keeps the probes' results

double NsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
}

// Calls f(worker, rounds) on `workers` workers of the pool; returns the rounds of all of them per nanosecond, best of
// kTrials. Noise only ever slows a trial down.
template <class F>
double BestRate(ThreadPool& pool, size_t workers, const F& f) {
  struct Call {
    const F* f;
    size_t rounds;
  };
  const auto time = [&](size_t rounds) {
    Call call{&f, rounds};
    const auto start = Clock::now();
    if (workers == 1) {
      f(0, rounds);
    } else {
      pool.ParallelFor(
          workers,
          [](void* arg, size_t worker) {
            const Call& c = *static_cast<const Call*>(arg);
            (*c.f)(worker, c.rounds);
          },
          &call);
    }
    return NsSince(start);
  };
  size_t rounds = 1;
  double ns = time(rounds);  // also warms caches and clocks
  while (ns < kTrialNs / 4) ns = time(rounds *= 4);
  rounds = std::max<size_t>(1, static_cast<size_t>(static_cast<double>(rounds) * kTrialNs / ns));
  double best = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    best = std::max(best, static_cast<double>(workers * rounds) / time(rounds));
  }
  return best;
}

// Three digits: a trial is no better than that, and a saved file stays readable.
double Rounded(double value) {
  if (value <= 0) return 0;
  const double per_unit = std::pow(10.0, std::max(0.0, 2 - std::floor(std::log10(value))));
  return std::round(value * per_unit) / per_unit;
}

double MeasureGflops(ThreadPool& pool, size_t workers, Isa isa) {
  const cpu::RoofProbe& probe = cpu::GetRoofProbe(isa);
  constexpr size_t kRounds = 10000;
  const double rate =
      BestRate(pool, workers, [&](size_t, size_t rounds) { sink = probe.multiply_add(rounds * kRounds); });
  return Rounded(rate * kRounds * static_cast<double>(probe.flops_per_round));
}

// `bytes` for each worker, parts of `buffer`.
double MeasureGbps(ThreadPool& pool, size_t workers, Isa isa, const float* buffer, size_t bytes) {
  const cpu::RoofProbe& probe = cpu::GetRoofProbe(isa);
  const size_t count = std::max<size_t>(1, bytes / sizeof(float) / cpu::kReadBlock) * cpu::kReadBlock;
  const double rate = BestRate(pool, workers, [&](size_t worker, size_t rounds) {
    float sum = 0;
    for (size_t r = 0; r < rounds; ++r) sum += probe.read(buffer + worker * count, count);
    sink = sum;
  });
  return Rounded(rate * static_cast<double>(count * sizeof(float)));
}

}  // namespace

Machine MeasureMachine(ThreadPool& pool) {
  Machine m = BuiltInMachine();
  const size_t workers = pool.num_threads();
  m.threads = static_cast<int>(workers);
  const std::vector<Isa> isas = SupportedIsas();
  m.gflops_one = m.gflops_all = {};
  for (Isa isa : isas) {
    const auto i = static_cast<size_t>(isa);
    m.gflops_one[i] = MeasureGflops(pool, 1, isa);
    m.gflops_all[i] = workers == 1 ? m.gflops_one[i] : MeasureGflops(pool, workers, isa);
  }
  m.gflops_one[0] = m.gflops_one[static_cast<size_t>(isas.front())];
  m.gflops_all[0] = m.gflops_all[static_cast<size_t>(isas.front())];

  // What lies in a level for sure: half of it, and for a shared L3 at most that of all workers together. Memory: one
  // and a half times the L3, of which a cyclic walk finds next to nothing there, as far as a quarter of the free memory
  // allows.
  const auto level_bytes = [&](const Machine::Level& level) { return static_cast<size_t>(level.bytes) / 2; };
  const size_t l3_each = std::clamp(level_bytes(m.l3) / workers, level_bytes(m.l2), size_t{16} << 20);
  const size_t free_bytes = static_cast<size_t>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t memory_bytes = std::clamp<size_t>(static_cast<size_t>(m.l3.bytes) / 2 * 3, size_t{256} << 20,
                                                 std::max<size_t>(size_t{256} << 20, free_bytes / 4));
  const size_t least = workers * std::max({level_bytes(m.l1), level_bytes(m.l2), l3_each});
  AlignedBuffer buffer(std::max(memory_bytes, least));
  if (buffer.data() == nullptr) return m;  // no memory to measure with: the built-in bandwidths stay
  std::memset(buffer.data(), 0, buffer.bytes());
  const auto measure = [&](Machine::Level& level, size_t each, size_t each_alone) {
    level.gbps_one = MeasureGbps(pool, 1, isas.front(), buffer.as<float>(), each_alone);
    level.gbps_all = workers == 1 ? level.gbps_one : MeasureGbps(pool, workers, isas.front(), buffer.as<float>(), each);
  };
  measure(m.l1, level_bytes(m.l1), level_bytes(m.l1));
  measure(m.l2, level_bytes(m.l2), level_bytes(m.l2));
  measure(m.l3, l3_each, l3_each);
  measure(m.memory, memory_bytes / workers, memory_bytes);
  return m;
}

}  // namespace lamina
