// lamina bench: how long problems take here, and how near that is to the machine's roof.
#include <chrono>
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
  bool cold = false, end_to_end = false;
  std::string json;
};

// Speeds depend on the addresses of the tensors (4 KiB aliasing), so each problem is timed on several sets of them.
constexpr int kAllocations = 3;

struct Measured {
  std::string implementation;
  Cost cost;
  harness::Timing timing;
  harness::Timing prepare, first;  // of Prepare and of the first Run after it, tensors warm: a sample for each set
};

double NsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
}

// Runs `layers` one after another, each as often as it stands in its network and on the output of the one before where
// that has the size of its input.
Result<Measured> Measure(const std::vector<harness::Layer>& layers, const Context& context, const Options& options) {
  Measured measured;
  for (int i = 0; i < kAllocations; ++i) {
    std::vector<std::unique_ptr<harness::Runner>> runners;
    measured.cost = {};
    double prepare_ns = 0, first_ns = 0;
    for (const harness::Layer& layer : layers) {
      for (int64_t n = 0; n < layer.count; ++n) {
        auto runner = harness::MakeRunner(layer.problem, context, static_cast<uint64_t>(i) + runners.size() + 1);
        if (!runner.ok()) return runner.status();
        if (!runners.empty()) (*runner)->Follow(*runners.back());
        if (Status s = (*runner)->Run(); !s.ok()) return s;
        if (Status s = (*runner)->PrepareAgain(); !s.ok()) return s;
        const auto start = std::chrono::steady_clock::now();
        if (Status s = (*runner)->Run(); !s.ok()) return s;
        first_ns += NsSince(start);
        prepare_ns += (*runner)->prepare_ns();
        measured.cost += (*runner)->cost();
        runners.push_back(std::move(*runner));
      }
    }
    measured.prepare.Add({{prepare_ns}, 1});
    measured.first.Add({{first_ns}, 1});
    measured.implementation =
        runners.size() == 1 ? runners[0]->implementation() : std::to_string(runners.size()) + " layers";
    const auto run = [&] {
      for (const auto& runner : runners) (void)runner->Run().ok();
    };
    const double seconds = options.seconds / kAllocations;
    measured.timing.Add(options.cold ? harness::MeasureCold(run, seconds) : harness::MeasureInTurns({run}, seconds)[0]);
  }
  return measured;
}

void AddBeginnings(const Measured& measured, nlohmann::ordered_json& row) {
  row["prepare_time"] = measured.prepare.min() * 1e-3;
  row["first_time"] = measured.first.min() * 1e-3;
}

int Run(const Options& options) {
  const auto network = options.problems.Load();
  if (!network.ok()) return Wrong(network.status());
  const auto context = options.context.Make();
  if (!context.ok()) return Wrong(context.status());
  if (Status s = CheckSeconds(options.seconds); !s.ok()) return Wrong(s);
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
  Table table({"<problem", "<", "<implementation", "params", "MACs", "prepare", "first", "median", "min", "GFLOP/s",
               "GB/s", "% of roof", "<roof"});
  std::string failures;
  double total_ns = 0, total_prepare_ns = 0;
  Cost total;
  for (size_t i = 0; i < names.size() && !options.end_to_end; ++i) {
    const harness::Layer& layer = network->layers[i];
    progress.Show("[" + std::to_string(i + 1) + "/" + std::to_string(names.size()) + "] " + names[i]);
    const auto measured = Measure({{layer.name, 1, layer.problem}}, *context, options);
    if (!measured.ok()) {
      failures += names[i] + ": " + measured.status().message() + "\n";
      continue;
    }
    const Cost& cost = measured->cost;
    for (int64_t n = 0; n < layer.count; ++n) total += cost;
    const double ns = measured->timing.median();
    total_ns += ns * static_cast<double>(layer.count);
    total_prepare_ns += measured->prepare.min() * static_cast<double>(layer.count);
    const harness::RoofShare share = harness::ShareOfRoof(cost, ns, limited, threads);
    table.Row({names[i], layer.count > 1 ? "x" + std::to_string(layer.count) : "", measured->implementation,
               Count(static_cast<double>(cost.params)), Count(static_cast<double>(cost.macs)),
               Time(measured->prepare.min()), Time(measured->first.min()), Time(ns), Time(measured->timing.min()),
               Fixed(static_cast<double>(cost.flops()) / ns, 1), Fixed(static_cast<double>(cost.bytes()) / ns, 1),
               Fixed(share.percent, 0), share.roof});
    auto& row = report.Add(names[i], measured->implementation, measured->timing, cost, layer.count);
    row["problem"] = ToString(layer.problem);
    AddBeginnings(*measured, row);
  }
  if (options.end_to_end) {
    progress.Show("end to end");
    const auto measured = Measure(network->layers, *context, options);
    if (!measured.ok()) return Wrong(measured.status());
    const Cost& cost = measured->cost;
    const double ns = measured->timing.median();
    const harness::RoofShare share = harness::ShareOfRoof(cost, ns, limited, threads);
    table.Row({"end to end", "", measured->implementation, Count(static_cast<double>(cost.params)),
               Count(static_cast<double>(cost.macs)), Time(measured->prepare.min()), Time(measured->first.min()),
               Time(ns), Time(measured->timing.min()), Fixed(static_cast<double>(cost.flops()) / ns, 1),
               Fixed(static_cast<double>(cost.bytes()) / ns, 1), Fixed(share.percent, 0), share.roof});
    AddBeginnings(*measured, report.Add("end_to_end", measured->implementation, measured->timing, cost, 1));
  }
  progress.Clear();
  if (names.size() > 1 && failures.empty() && !options.end_to_end) {
    table.Rule();
    table.Row({"sum", "", "", Count(static_cast<double>(total.params)), Count(static_cast<double>(total.macs)),
               Time(total_prepare_ns), "", Time(total_ns), "",
               Fixed(static_cast<double>(total.flops()) / total_ns, 1)});
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
  command->add_flag("--cold", options->cold, "empty the caches before every call, and time single calls");
  command->add_flag("--end-to-end", options->end_to_end,
                    "time all problems after one another as one, as the layers of a network");
  command->add_option("--json", options->json, "write Google Benchmark's JSON to this file (- is the standard output)");
  command->callback([options, &exit_code] { exit_code = Run(*options); });
}

}  // namespace lamina::tools
