// lamina compare: standard against depthwise-separable convolution on this machine.
#include <cstdio>

#include "tools/commands.h"
#include "tools/comparison.h"
#include "tools/request.h"
#include "tools/table.h"

namespace lamina::tools {
namespace {

struct Options {
  ProblemOptions problems;
  ContextOptions context;
  MachineOptions machine;
  int64_t images = 1;
  double seconds = 0.2;
  std::string json;
};

// The same problem for several images.
Problem ForImages(const Problem& problem, int64_t images) {
  return std::visit(
      [&](auto desc) -> Problem {
        if constexpr (requires { desc.n; }) desc.n *= images;
        if constexpr (requires { desc.m; }) desc.m *= images;
        return desc;
      },
      problem);
}

std::string Title(const Options& options, const harness::Network& network) {
  std::string title = options.problems.network;
  if (title.empty())
    return network.layers.size() == 1 ? "one problem" : std::to_string(network.layers.size()) + " problems";
  char text[64];
  std::snprintf(text, sizeof(text), options.problems.width == 1 ? " %.1f" : " %.4g", options.problems.width);
  if (network.width_rule != harness::WidthRule::kNone) title += text;
  if (network.resolution != 0) {
    title += (network.width_rule != harness::WidthRule::kNone ? "/" : " ") +
             std::to_string(options.problems.resolution ? options.problems.resolution : network.resolution);
  }
  return title;
}

int Run(Options options) {
  const bool single = !options.problems.words.empty();
  if (!single && options.problems.network.empty()) options.problems.network = "mobilenet_v1";
  auto network = options.problems.Load();
  if (!network.ok()) return Wrong(network.status());
  const auto context = options.context.Make();
  if (!context.ok()) return Wrong(context.status());
  if (options.images < 1)
    return Wrong(InvalidArgument("--batch must be at least 1, got " + std::to_string(options.images)));
  if (Status s = CheckSeconds(options.seconds); !s.ok()) return Wrong(s);
  for (harness::Layer& layer : network->layers) {
    layer.problem = ForImages(layer.problem, options.images);
    if (Status s = ValidateProblem(layer.problem); !s.ok()) return Wrong(s);
  }
  WarnWhenBusy();
  Progress progress;
  progress.Show("measuring the machine");
  const auto machine = options.machine.Make(*context->pool);
  if (!machine.ok()) return Wrong(machine.status());
  const Machine limited = harness::LimitedTo(*machine, context->isa);
  auto comparison = Measure(*network, *context, limited, {options.seconds, !options.problems.network.empty()},
                            [&](const std::string& line) { progress.Show(line); });
  progress.Clear();
  if (!comparison.ok()) return Wrong(comparison.status());
  comparison->title = Title(options, *network);
  comparison->images = options.images;
  std::printf("%s, %lld image%s, on %s, %d thread%s, FMA peak %.0f GFLOP/s\n\n%s", comparison->title.c_str(),
              static_cast<long long>(options.images), options.images == 1 ? "" : "s", machine->cpu.c_str(),
              comparison->threads, comparison->threads == 1 ? "" : "s", limited.Gflops(Isa::kBest, comparison->threads),
              ToText(*comparison).c_str());
  if (options.json.empty()) return 0;
  JsonReport report(*machine, comparison->threads, context->isa);
  AddTo(report, *comparison);
  if (Status s = WriteFile(options.json, report.ToString()); !s.ok()) return Wrong(s);
  return 0;
}

}  // namespace

void AddCompare(CLI::App& app, int& exit_code) {
  auto* command = app.add_subcommand("compare",
                                     "standard against depthwise-separable convolution (both orders) on this machine: "
                                     "per block and for a whole network,\n"
                                     "by default MobileNetV1 1.0 at 224x224 on all cores");
  auto options = std::make_shared<Options>();
  command->add_option("problem", options->problems.words, "single convolutions instead of a network, as text");
  options->problems.AddNetwork(*command);
  command->add_option("--batch", options->images, "images at a time")->capture_default_str();
  options->context.AddChoice(*command);
  options->context.AddThreads(*command);
  options->machine.Add(*command);
  command->add_option("--seconds", options->seconds, "time spent on each form of each block")->capture_default_str();
  command->add_option("--json", options->json,
                      "write Google Benchmark's JSON to this file, which tools/report.py reads");
  command->callback([options, &exit_code] { exit_code = Run(*options); });
}

}  // namespace lamina::tools
