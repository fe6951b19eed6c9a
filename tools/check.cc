// lamina check: every candidate on every SIMD target against the reference.
#include <cstdio>
#include <set>

#include "harness/gpu.h"
#include "harness/problem.h"
#include "tools/commands.h"
#include "tools/json_report.h"
#include "tools/request.h"

namespace lamina::tools {
namespace {

struct Options {
  ProblemOptions problems;
  ContextOptions context;
  uint64_t seed = 1;
  bool verbose = false;
  std::string json;
};

// Above this many multiply-accumulates the reference takes a tenth of a second and more: each fill is then run with the
// inaccessible page on one side only (exact values: behind, normal ones: in front), on 1 and 3 threads. Every element
// of every output is compared all the same.
constexpr int64_t kLargeMacs = 30'000'000;

harness::ParityOptions ParityFor(const Problem& problem, const Options& options, const Context& context) {
  harness::ParityOptions parity;
  parity.backend = context.backend;
  if (context.isa != Isa::kBest) parity.isas = {context.isa};
  parity.implementation = options.context.implementation;
  parity.seed = options.seed;
  if (CostOf(problem).macs > kLargeMacs) {
    parity.tensors = {{harness::Fill::kExact, harness::Guard::kEnd}, {harness::Fill::kNormal, harness::Guard::kBegin}};
    parity.threads = {1, 3};
  }
  if (options.context.threads_given) {
    parity.threads = {static_cast<size_t>(options.context.threads)};
    if (options.context.threads > 1) parity.threads.insert(parity.threads.begin(), 1);
  }
  return parity;
}

std::string Reproduce(const Problem& problem, const Options& options) {
  std::string line = "lamina check --seed " + std::to_string(options.seed);
  if (options.context.backend != "cpu") line += " --backend " + options.context.backend;
  if (options.context.isa != "best") line += " --isa " + options.context.isa;
  if (options.context.threads_given) line += " --threads " + std::to_string(options.context.threads);
  if (!options.context.implementation.empty()) line += " --implementation " + options.context.implementation;
  return line + " \"" + ToString(problem) + "\"";
}

int Run(const Options& options) {
  const auto network = options.problems.Load();
  if (!network.ok()) return Wrong(network.status());
  const auto context = options.context.Make();
  if (!context.ok()) return Wrong(context.status());
  // A backend or a target that is not to be had is no failure of a candidate.
  const auto reports = harness::CandidatesOf(network->layers.front().problem, *context);
  if (!reports.ok()) return Wrong(reports.status());
  if (context->backend == Backend::kCuda) {
    if (Status s = harness::UseGpu(); !s.ok()) return Wrong(s);
  }

  harness::ParityReport total;
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  std::set<std::string> seen;  // equal layers are checked once
  size_t large = 0, done = 0;
  {
    Progress progress;
    for (const harness::Layer& layer : network->layers) {
      ++done;
      if (!seen.insert(ToString(layer.problem)).second) continue;
      progress.Show("[" + std::to_string(done) + "/" + std::to_string(network->layers.size()) + "] " + layer.name);
      large += CostOf(layer.problem).macs > kLargeMacs;
      const auto report = harness::CheckProblem(layer.problem, ParityFor(layer.problem, options, *context));
      if (report.failed > 0) progress.Clear();
      for (const std::string& failure : report.failures) std::printf("FAILED %s\n", failure.c_str());
      if (report.failed > 0) std::printf("  reproduce: %s\n", Reproduce(layer.problem, options).c_str());
      if (options.verbose) {
        for (const std::string& refusal : report.refusals) std::printf("refused %s\n", refusal.c_str());
      }
      json.push_back({{"name", layer.name},
                      {"problem", ToString(layer.problem)},
                      {"passed", report.passed},
                      {"failed", report.failed},
                      {"refused", report.refused},
                      {"worst_error_over_tolerance", report.worst},
                      {"failures", report.failures},
                      {"refusals", report.refusals}});
      total += report;
    }
  }
  if (total.passed + total.failed + total.refused == 0) {
    const std::string& name = options.context.implementation;
    return Wrong(InvalidArgument(name.empty() ? "the " + options.context.backend + " backend has no candidate for this"
                                              : "--implementation: no candidate is named \"" + name + "\""));
  }
  std::printf("%zu problem%s", seen.size(), seen.size() == 1 ? "" : "s");
  if (large > 0 && !options.context.threads_given) {
    std::printf(", %zu of them large: one guard side a fill, 1 and 3 threads, every output element compared", large);
  }
  std::printf("; largest error %.2f of its bound\n", total.worst);
  for (Isa isa : UnsupportedIsas())
    std::printf("skipped: %s, which this CPU does not run\n", std::string(ToString(isa)).c_str());
  std::printf("%d passed, %d failed, %d refused\n", total.passed, total.failed, total.refused);
  if (!options.json.empty()) {
    const nlohmann::ordered_json all = {
        {"problems", json}, {"passed", total.passed}, {"failed", total.failed}, {"refused", total.refused}};
    if (Status s = WriteFile(options.json, all.dump(2) + "\n"); !s.ok()) return Wrong(s);
  }
  return total.failed > 0 ? 1 : 0;
}

}  // namespace

void AddCheck(CLI::App& app, int& exit_code) {
  auto* command = app.add_subcommand("check", "compares every candidate on every SIMD target with the reference");
  auto options = std::make_shared<Options>();
  options->problems.Add(*command);
  options->context.Add(*command);
  command->add_option("--seed", options->seed, "of the random weights and inputs")->capture_default_str();
  command->add_flag("--verbose", options->verbose, "print the candidates that refuse, with their reasons");
  command->add_option("--json", options->json, "write JSON to this file (- is the standard output)");
  command->callback([options, &exit_code] { exit_code = Run(*options); });
}

}  // namespace lamina::tools
