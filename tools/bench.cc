// lamina bench: how long problems take here, and how near that is to the machine's roof.
#include <cstdio>

#include "harness/measure.h"
#include "harness/problem.h"
#include "harness/roof.h"
#include "tools/commands.h"
#include "tools/json_report.h"
#include "tools/request.h"
#include "tools/table.h"

namespace lamina::tools {
namespace {

struct Options {
  ProblemOptions problems;
  ContextOptions context;
  MachineOptions machine;
  double seconds = 0.5;
  std::string json;
};

// Speeds depend on the addresses of the tensors (4 KiB aliasing), so each problem is timed on several sets of them.
constexpr int kAllocations = 3;

struct Measured {
  std::string implementation;
  Cost cost;
  harness::Timing timing;
};

Result<Measured> Measure(const Problem& problem, const Context& context, double seconds) {
  Measured measured;
  for (int i = 0; i < kAllocations; ++i) {
    const auto runner = harness::MakeRunner(problem, context, static_cast<uint64_t>(i) + 1);
    if (!runner.ok()) return runner.status();
    if (Status s = (*runner)->Run(); !s.ok()) return s;
    measured.implementation = (*runner)->implementation();
    measured.cost = (*runner)->cost();
    const auto timings = harness::MeasureInTurns({[&] { (void)(*runner)->Run().ok(); }}, seconds / kAllocations);
    measured.timing.Add(timings[0]);
  }
  return measured;
}

int Run(const Options& options) {
  const auto network = options.problems.Load();
  if (!network.ok()) return Wrong(network.status());
  const auto context = options.context.Make();
  if (!context.ok()) return Wrong(context.status());
  if (!(options.seconds > 0 && options.seconds <= 3600)) {
    return Wrong(InvalidArgument("--seconds must be more than 0 and at most 3600, got " + Fixed(options.seconds, 3)));
  }
  // Refuse what cannot be prepared before anything is measured.
  for (const harness::Layer& layer : network->layers) {
    const auto reports = harness::CandidatesOf(layer.problem, *context);
    if (!reports.ok()) return Wrong(reports.status());
  }
  WarnWhenBusy();
  Progress progress;
  progress.Show("measuring the machine");
  const auto machine = options.machine.Make(*context->pool);
  if (!machine.ok()) return Wrong(machine.status());
  const int threads = static_cast<int>(context->pool->num_threads());
  const Machine limited = harness::LimitedTo(*machine, context->isa);
  progress.Clear();
  std::printf("%s, %d thread%s, FMA peak %.0f GFLOP/s\n", machine->cpu.c_str(), threads, threads == 1 ? "" : "s",
              limited.Gflops(Isa::kBest, threads));
  const std::vector<std::string> names = ShortNames(*network);

  JsonReport report(*machine, threads, context->isa);
  Table table(
      {"<problem", "<", "<implementation", "params", "MACs", "median", "min", "GFLOP/s", "GB/s", "% of roof", "<roof"});
  std::string failures;
  double total_ns = 0;
  Cost total;
  for (size_t i = 0; i < names.size(); ++i) {
    const harness::Layer& layer = network->layers[i];
    progress.Show("[" + std::to_string(i + 1) + "/" + std::to_string(names.size()) + "] " + names[i]);
    const auto measured = Measure(layer.problem, *context, options.seconds);
    if (!measured.ok()) {
      failures += names[i] + ": " + measured.status().message() + "\n";
      continue;
    }
    const Cost& cost = measured->cost;
    for (int64_t n = 0; n < layer.count; ++n) total += cost;
    const double ns = measured->timing.median();
    total_ns += ns * static_cast<double>(layer.count);
    const harness::RoofShare share = harness::ShareOfRoof(cost, ns, limited, threads);
    table.Row({names[i], layer.count > 1 ? "x" + std::to_string(layer.count) : "", measured->implementation,
               Count(static_cast<double>(cost.params)), Count(static_cast<double>(cost.macs)), Time(ns),
               Time(measured->timing.min()), Fixed(static_cast<double>(cost.flops()) / ns, 1),
               Fixed(static_cast<double>(cost.bytes()) / ns, 1), Fixed(share.percent, 0), share.roof});
    report.Add(names[i], measured->implementation, measured->timing, cost, layer.count)["problem"] =
        ToString(layer.problem);
  }
  progress.Clear();
  if (names.size() > 1 && failures.empty()) {
    table.Rule();
    table.Row({"sum", "", "", Count(static_cast<double>(total.params)), Count(static_cast<double>(total.macs)),
               Time(total_ns), "", Fixed(static_cast<double>(total.flops()) / total_ns, 1)});
  }
  std::printf("\n%s", table.ToString().c_str());
  std::fprintf(stderr, "%s", failures.c_str());
  if (!options.json.empty()) {
    if (Status s = WriteFile(options.json, report.ToString()); !s.ok()) return Wrong(s);
  }
  return failures.empty() ? 0 : 1;
}

}  // namespace

void AddBench(CLI::App& app, int& exit_code) {
  auto* command = app.add_subcommand("bench", "times problems: latency, GFLOP/s, GB/s, percent of the machine's roof");
  auto options = std::make_shared<Options>();
  options->problems.Add(*command);
  options->context.Add(*command);
  options->machine.Add(*command);
  command->add_option("--seconds", options->seconds, "time spent on each problem")->capture_default_str();
  command->add_option("--json", options->json, "write Google Benchmark's JSON to this file (- is the standard output)");
  command->callback([options, &exit_code] { exit_code = Run(*options); });
}

}  // namespace lamina::tools
