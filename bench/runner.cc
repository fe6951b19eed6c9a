#include "bench/runner.h"

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "harness/network.h"
#include "harness/problem.h"
#include "harness/roof.h"
#include "lamina/machine.h"

namespace lamina::bench {
namespace {

// Measured on the first row's behalf, so that listing the rows costs nothing.
const Machine& ThisMachine() {
  static const Machine machine = MeasureMachine(harness::PoolOf(AvailableThreads()));
  return machine;
}

void RunRow(benchmark::State& state, const Problem& problem, size_t threads, bool check) {
  const Context context{.pool = &harness::PoolOf(threads)};
  const auto runner = harness::MakeRunner(problem, context, 1);
  if (!runner.ok()) return state.SkipWithError(runner.status().message().c_str());
  if (check) {
    if (const std::string wrong = (*runner)->Verify(); !wrong.empty()) return state.SkipWithError(wrong.c_str());
  }
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) {
    if (Status s = (*runner)->Run(); !s.ok()) return state.SkipWithError(s.message().c_str());
  }
  const double ns = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() /
                    static_cast<double>(state.iterations());
  const Cost cost = (*runner)->cost();
  state.counters["GFLOP/s"] = static_cast<double>(cost.flops()) / ns;
  state.counters["GB/s"] = static_cast<double>(cost.bytes()) / ns;
  state.counters["%roof"] = harness::ShareOfRoof(cost, ns, ThisMachine(), static_cast<int>(threads)).percent;
  state.counters["params"] = static_cast<double>(cost.params);
  state.SetLabel((*runner)->implementation());
}

}  // namespace

void AddRows(const std::string& name, const Problem& problem) {
  const auto add = [&](size_t threads, bool check) {
    // Google Benchmark calls a row several times to find the number of iterations: the output is checked in the first.
    const auto row = [problem, threads, check](benchmark::State& state) mutable {
      RunRow(state, problem, threads, std::exchange(check, false));
    };
    benchmark::RegisterBenchmark((name + "/threads:" + std::to_string(threads)).c_str(), row)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  };
  add(1, true);
  if (AvailableThreads() > 1) add(AvailableThreads(), true);
}

int Run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

int RunSuite(std::string_view op, int argc, char** argv) {
  const auto suite = harness::LoadSuite();
  if (!suite.ok()) {
    std::fprintf(stderr, "%s\n", suite.status().message().c_str());
    return 2;
  }
  for (const harness::Layer& layer : suite->layers) {
    const std::string text = ToString(layer.problem);
    if (text.substr(0, text.find(' ')) == op) AddRows(layer.name, layer.problem);
  }
  return Run(argc, argv);
}

}  // namespace lamina::bench
