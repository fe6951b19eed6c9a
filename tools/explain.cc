// lamina explain: which implementation Prepare chooses for a problem, and what it thought of the others.
#include <cstdio>

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
  std::string json;
};

// The index that Prepare takes: the least predicted time, the first of equals; -1 when none accepts.
int Chosen(const std::vector<CandidateReport>& reports) {
  int best = -1;
  for (int i = 0; i < static_cast<int>(reports.size()); ++i) {
    if (reports[i].accepted && (best < 0 || reports[i].predicted_ns < reports[best].predicted_ns)) best = i;
  }
  return best;
}

int Run(const Options& options) {
  const auto network = options.problems.Load();
  if (!network.ok()) return Wrong(network.status());
  const auto context = options.context.Make();
  if (!context.ok()) return Wrong(context.status());
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const harness::Layer& layer : network->layers) {
    const auto reports = harness::CandidatesOf(layer.problem, *context);
    if (!reports.ok()) return Wrong(reports.status());
    const std::string text = ToString(layer.problem);
    std::printf("%s%s\n", layer.name == text ? "" : (layer.name + ": ").c_str(), text.c_str());
    const int chosen = Chosen(*reports);
    nlohmann::ordered_json candidates = nlohmann::ordered_json::array();
    for (int i = 0; i < static_cast<int>(reports->size()); ++i) {
      const CandidateReport& r = (*reports)[i];
      std::printf("  %s %-36s %s\n", i == chosen ? "*" : " ", r.name.c_str(),
                  r.accepted ? ("predicted " + Time(r.predicted_ns)).c_str() : ("refused: " + r.reason).c_str());
      candidates.push_back({{"name", r.name}, {"accepted", r.accepted}, {"chosen", i == chosen}});
      if (r.accepted) candidates.back()["predicted_us"] = r.predicted_ns * 1e-3;
      if (!r.accepted) candidates.back()["reason"] = r.reason;
    }
    if (chosen < 0) std::printf("    no implementation takes this\n");
    json.push_back({{"name", layer.name}, {"problem", text}, {"candidates", candidates}});
  }
  if (options.json.empty()) return 0;
  if (Status s = WriteFile(options.json, json.dump(2) + "\n"); !s.ok()) return Wrong(s);
  return 0;
}

}  // namespace

void AddExplain(CLI::App& app, int& exit_code) {
  auto* command =
      app.add_subcommand("explain", "every candidate for a problem, with its predicted time or its refusal");
  auto options = std::make_shared<Options>();
  options->problems.Add(*command);
  options->context.Add(*command);
  command->add_option("--json", options->json, "write JSON to this file (- is the standard output)");
  command->callback([options, &exit_code] { exit_code = Run(*options); });
}

}  // namespace lamina::tools
