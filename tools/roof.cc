// lamina roof: measures this machine's FMA peak per SIMD target and its read bandwidth per level of memory.
#include <cstdio>

#include "tools/commands.h"
#include "tools/json_report.h"
#include "tools/request.h"
#include "tools/table.h"

namespace lamina::tools {
namespace {

struct Options {
  ContextOptions context;
  std::string save, json;
};

int Run(const Options& options) {
  const auto context = options.context.Make();
  if (!context.ok()) return Wrong(context.status());
  WarnWhenBusy();
  const Machine m = MeasureMachine(*context->pool);
  const std::string all = std::to_string(m.threads) + (m.threads == 1 ? " thread" : " threads");
  std::printf("%s\n\n", m.cpu.c_str());
  Table peaks({"<FMA peak, GFLOP/s", "1 thread", all});
  for (Isa isa : SupportedIsas()) {
    peaks.Row({std::string(ToString(isa)), Fixed(m.Gflops(isa, 1), 1), Fixed(m.Gflops(isa, m.threads), 1)});
  }
  for (Isa isa : UnsupportedIsas()) peaks.Row({std::string(ToString(isa)), "not on this CPU", ""});
  Table bandwidths({"<read bandwidth, GB/s", "holds", "1 thread", all});
  const auto level = [&](const char* name, const Machine::Level& l, const std::string& holds) {
    bandwidths.Row({name, holds, Fixed(l.gbps_one, 1), Fixed(l.gbps_all, 1)});
  };
  level("L1", m.l1, std::to_string(m.l1.bytes >> 10) + " KiB");
  level("L2", m.l2, std::to_string(m.l2.bytes >> 10) + " KiB");
  level("L3", m.l3, std::to_string(m.l3.bytes >> 20) + " MiB");
  level("memory", m.memory, "");
  std::printf("%s\n%s", peaks.ToString().c_str(), bandwidths.ToString().c_str());
  if (!options.save.empty()) {
    if (Status s = WriteFile(
            options.save,
            "# Written by `lamina roof --save`; LAMINA_MACHINE=<this file> makes predictions use it.\n" + ToString(m));
        !s.ok()) {
      return Wrong(s);
    }
  }
  if (!options.json.empty()) {
    if (Status s = WriteFile(options.json, MachineJson(m).dump(2) + "\n"); !s.ok()) return Wrong(s);
  }
  return 0;
}

}  // namespace

void AddRoof(CLI::App& app, int& exit_code) {
  auto* command =
      app.add_subcommand("roof", "measures this machine: FMA peak per SIMD target, bandwidth per cache level");
  auto options = std::make_shared<Options>();
  options->context.AddThreads(*command);
  command->add_option("--save", options->save, "write the figures to this file, which LAMINA_MACHINE takes");
  command->add_option("--json", options->json, "write JSON to this file (- is the standard output)");
  command->callback([options, &exit_code] { exit_code = Run(*options); });
}

}  // namespace lamina::tools
