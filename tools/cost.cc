// lamina cost: what problems cost, whatever kernel runs them.
#include <cstdio>

#include "tools/commands.h"
#include "tools/json_report.h"
#include "tools/request.h"
#include "tools/table.h"

namespace lamina::tools {
namespace {

struct Options {
  ProblemOptions problems;
  std::string json;
};

void Row(Table& table, const std::string& name, int64_t count, const Cost& cost) {
  table.Row({name, count > 1 ? "x" + std::to_string(count) : "", std::to_string(cost.params), std::to_string(cost.macs),
             Count(static_cast<double>(cost.flops())), Count(static_cast<double>(cost.transcendentals)),
             Count(static_cast<double>(cost.weight_bytes)), Count(static_cast<double>(cost.activation_bytes)),
             Fixed(cost.arithmetic_intensity(), 1)});
}

int Run(const Options& options) {
  const auto network = options.problems.Load();
  if (!network.ok()) return Wrong(network.status());
  Table table({"<problem", "<", "parameters", "MACs", "FLOPs", "exp, tanh..", "weight B", "activation B", "FLOP/B"});
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  const std::vector<std::string> names = ShortNames(*network);
  for (size_t i = 0; i < names.size(); ++i) {
    const harness::Layer& layer = network->layers[i];
    const Cost cost = CostOf(layer.problem);
    Row(table, names[i], layer.count, cost);
    nlohmann::ordered_json row = {{"name", layer.name}, {"problem", ToString(layer.problem)}, {"count", layer.count}};
    row.update(CostJson(cost));
    json.push_back(row);
  }
  for (const harness::Extra& extra : network->extras) {
    table.Row({extra.what, "", std::to_string(extra.params), std::to_string(extra.macs)});
    json.push_back({{"name", extra.what}, {"params", extra.params}, {"macs", extra.macs}});
  }
  const Cost total = harness::TotalCost(*network);
  table.Rule();
  Row(table, "total", 1, total);
  std::printf("%s", table.ToString().c_str());
  if (options.json.empty()) return 0;
  const nlohmann::ordered_json all = {{"problems", json}, {"total", CostJson(total)}};
  if (Status s = WriteFile(options.json, all.dump(2) + "\n"); !s.ok()) return Wrong(s);
  return 0;
}

}  // namespace

void AddCost(CLI::App& app, int& exit_code) {
  auto* command = app.add_subcommand("cost", "multiply-accumulates, parameters and bytes of problems and networks");
  auto options = std::make_shared<Options>();
  options->problems.Add(*command);
  command->add_option("--json", options->json, "write JSON to this file (- is the standard output)");
  command->callback([options, &exit_code] { exit_code = Run(*options); });
}

}  // namespace lamina::tools
