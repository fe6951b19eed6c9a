// lamina regret: what choosing by prediction costs, the chosen candidate's time over that of the fastest one.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "harness/measure.h"
#include "harness/problem.h"
#include "tools/commands.h"
#include "tools/json_report.h"
#include "tools/request.h"
#include "tools/table.h"

namespace lamina::tools {
namespace {

struct Options {
  ProblemOptions problems;
  ContextOptions context;
  double seconds = 0.2;
  std::string json;
};

struct Measured {
  std::string name;
  double predicted_ns = 0, ns = 0;
};

// Every candidate that accepts, in turns so that noise falls on all alike; the chosen one first.
Result<std::vector<Measured>> Measure(const Problem& problem, const Context& context, double seconds) {
  const auto reports = harness::CandidatesOf(problem, context);
  if (!reports.ok()) return reports.status();
  std::vector<Measured> measured;
  for (const CandidateReport& r : *reports) {
    if (r.accepted) measured.push_back({r.name, r.predicted_ns, 0});
  }
  std::stable_sort(measured.begin(), measured.end(),
                   [](const Measured& a, const Measured& b) { return a.predicted_ns < b.predicted_ns; });
  std::vector<std::unique_ptr<harness::Runner>> runners;
  std::vector<std::function<void()>> bodies;
  for (const Measured& m : measured) {
    Context with = context;
    with.implementation = m.name;
    auto runner = harness::MakeRunner(problem, with, 1);
    if (!runner.ok()) return runner.status();
    if (Status s = (*runner)->Run(); !s.ok()) return s;
    runners.push_back(*std::move(runner));
    bodies.push_back([&r = *runners.back()] { (void)r.Run().ok(); });
  }
  const std::vector<harness::Timing> timings = harness::MeasureInTurns(bodies, seconds);
  for (size_t i = 0; i < measured.size(); ++i) measured[i].ns = timings[i].median();
  return measured;
}

int Run(const Options& options) {
  const auto network = options.problems.Load();
  if (!network.ok()) return Wrong(network.status());
  const auto context = options.context.Make();
  if (!context.ok()) return Wrong(context.status());
  if (Status s = CheckSeconds(options.seconds); !s.ok()) return Wrong(s);
  WarnWhenBusy();
  Progress progress;
  Table table({"<problem", "<chosen", "predicted", "measured", "<fastest", "measured", "regret"});
  const std::vector<std::string> names = ShortNames(*network);
  std::set<std::string> seen;
  double logs = 0, worst = 0;
  std::string worst_name;
  int count = 0;
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (size_t i = 0; i < names.size(); ++i) {
    const Problem& problem = network->layers[i].problem;
    if (!seen.insert(ToString(problem)).second) continue;
    progress.Show("[" + std::to_string(i + 1) + "/" + std::to_string(names.size()) + "] " + names[i]);
    const auto measured = Measure(problem, *context, options.seconds);
    if (!measured.ok()) return Wrong(measured.status());
    if (measured->size() < 2) continue;  // nothing to choose
    const Measured& chosen = measured->front();
    const Measured& fastest = *std::min_element(measured->begin(), measured->end(),
                                                [](const Measured& a, const Measured& b) { return a.ns < b.ns; });
    const double regret = chosen.ns / fastest.ns;
    const auto last = [](const std::string& name) { return name.substr(name.rfind('/') + 1); };
    table.Row({names[i], last(chosen.name), Time(chosen.predicted_ns), Time(chosen.ns), last(fastest.name),
               Time(fastest.ns), Fixed(regret, 3)});
    nlohmann::ordered_json candidates = nlohmann::ordered_json::array();
    for (const Measured& m : *measured) {
      candidates.push_back({{"name", m.name}, {"predicted_us", m.predicted_ns * 1e-3}, {"us", m.ns * 1e-3}});
    }
    json.push_back(
        {{"name", names[i]}, {"problem", ToString(problem)}, {"regret", regret}, {"candidates", candidates}});
    logs += std::log(regret);
    ++count;
    if (regret > worst) {
      worst = regret;
      worst_name = names[i];
    }
  }
  progress.Clear();
  std::printf("%s", table.ToString().c_str());
  if (count == 0) {
    std::printf("no problem with more than one candidate\n");
  } else {
    std::printf("%d problems with a choice: regret %.3f in geometric mean, %.3f at worst (%s)\n", count,
                std::exp(logs / count), worst, worst_name.c_str());
  }
  if (options.json.empty()) return 0;
  if (Status s = WriteFile(options.json, json.dump(2) + "\n"); !s.ok()) return Wrong(s);
  return 0;
}

}  // namespace

void AddRegret(CLI::App& app, int& exit_code) {
  auto* command = app.add_subcommand("regret", "times every candidate: what choosing by prediction costs");
  auto options = std::make_shared<Options>();
  options->problems.Add(*command);
  options->context.AddChoice(*command);
  options->context.AddThreads(*command);
  command->add_option("--seconds", options->seconds, "time spent on each candidate")->capture_default_str();
  command->add_option("--json", options->json, "write JSON to this file (- is the standard output)");
  command->callback([options, &exit_code] { exit_code = Run(*options); });
}

}  // namespace lamina::tools
