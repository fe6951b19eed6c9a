#include "tools/comparison.h"

#include <set>

#include "harness/problem.h"

namespace lamina::tools {
namespace {

using harness::Form;
using harness::Runner;
using Runners = std::vector<std::unique_ptr<Runner>>;

// Speeds depend on the tensors' addresses: every form is timed on several sets of them.
constexpr int kAllocations = 3;

// The forms in which a block is shown: an inverted residual also as it is written.
std::vector<Form> FormsOf(const Problem& problem) {
  const auto* sep = std::get_if<SeparableConv2dDesc>(&problem);
  if (sep != nullptr && sep->order == SeparableOrder::kPwDwPw) {
    return {Form::kStandard, Form::kDwPw, Form::kPwDw, Form::kAsWritten};
  }
  return {Form::kStandard, Form::kDwPw, Form::kPwDw};
}

std::function<void()> Body(Runner& runner) {
  return [&runner] { (void)runner.Run().ok(); };  // it ran once before: it cannot fail now
}

Result<std::unique_ptr<Runner>> MakeAndRun(const Problem& problem, const Context& context, uint64_t seed) {
  auto runner = harness::MakeRunner(problem, context, seed);
  if (!runner.ok()) return runner;
  if (Status s = (*runner)->Run(); !s.ok()) return s;
  return runner;
}

// All forms of a block and the steps of the separable ones, timed in turns.
Result<BlockResult> MeasureBlock(const harness::Layer& layer, const Context& context, const Machine& machine,
                                 double seconds) {
  const int threads = static_cast<int>(context.pool->num_threads());
  BlockResult block{layer.name, layer.count, {}};
  std::vector<Problem> problems;               // the forms, then their steps
  std::vector<std::pair<size_t, bool>> steps;  // of each step: its form, and whether it is the depthwise one
  for (Form form : FormsOf(layer.problem)) {
    const Problem problem = *InForm(layer.problem, form);
    block.forms.push_back({form, problem, CostOf(problem), "", {}, {}});
    problems.push_back(problem);
  }
  for (size_t f = 0; f < block.forms.size(); ++f) {
    for (const Conv2dDesc& step : harness::StepsOf(block.forms[f].problem)) {
      problems.push_back(step);
      steps.emplace_back(f, step.groups > 1 || step.kh * step.kw > 1);
    }
  }
  std::vector<harness::Timing> timings(problems.size());
  for (int allocation = 0; allocation < kAllocations; ++allocation) {
    Runners runners;
    std::vector<std::function<void()>> bodies;
    for (const Problem& problem : problems) {
      auto runner = MakeAndRun(problem, context, static_cast<uint64_t>(allocation) + 1);
      if (!runner.ok()) return runner.status();
      bodies.push_back(Body(**runner));
      runners.push_back(std::move(*runner));
    }
    const auto measured = harness::MeasureInTurns(bodies, seconds / kAllocations);
    for (size_t i = 0; i < timings.size(); ++i) timings[i].Add(measured[i]);
    for (size_t f = 0; f < block.forms.size(); ++f) block.forms[f].implementation = runners[f]->implementation();
  }
  for (size_t f = 0; f < block.forms.size(); ++f) {
    FormResult& form = block.forms[f];
    form.timing = timings[f];
    form.share = harness::ShareOfRoof(form.cost, form.ns(), machine, threads);
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto [f, depthwise] = steps[i];
    FormResult& form = block.forms[f];
    const double ns = timings[block.forms.size() + i].median();
    form.steps_ns += ns;
    if (depthwise) {
      form.depthwise_macs =
          static_cast<double>(CostOf(problems[block.forms.size() + i]).macs) / static_cast<double>(form.cost.macs);
      form.depthwise_time = ns;  // a share once the other step is known
    }
  }
  for (FormResult& form : block.forms) {
    if (form.steps_ns > 0) form.depthwise_time /= form.steps_ns;
  }
  return block;
}

// A network's layers, prepared, each one on the output of the one before.
Result<Runners> MakeChain(const harness::Network& network, const Context& context) {
  Runners chain;
  for (const harness::Layer& layer : network.layers) {
    for (int64_t i = 0; i < layer.count; ++i) {
      auto runner = MakeAndRun(layer.problem, context, chain.size() + 1);
      if (!runner.ok()) return runner.status();
      if (!chain.empty()) (*runner)->Follow(*chain.back());
      chain.push_back(std::move(*runner));
    }
  }
  return chain;
}

Result<std::vector<NetworkResult>> MeasureNetworks(const harness::Network& network, const Context& context,
                                                   double seconds,
                                                   const std::function<void(const std::string&)>& progress) {
  std::set<Form> forms = {Form::kStandard, Form::kDwPw, Form::kPwDw};
  for (const harness::Layer& layer : network.layers) {
    const auto* sep = std::get_if<SeparableConv2dDesc>(&layer.problem);
    if (sep != nullptr && sep->order == SeparableOrder::kPwDwPw) forms.insert(Form::kAsWritten);
  }
  std::vector<NetworkResult> results;
  std::vector<Runners> chains;
  for (Form form : forms) {
    if (form == Form::kAsWritten) continue;
    results.push_back({form, {}, {}});
  }
  if (forms.count(Form::kAsWritten)) results.push_back({Form::kAsWritten, {}, {}});  // the last column
  for (NetworkResult& result : results) {
    progress("whole network: preparing " + std::string(ToString(result.form)));
    const harness::Network formed = InForm(network, result.form);
    result.cost = harness::TotalCost(formed);
    auto chain = MakeChain(formed, context);
    if (!chain.ok()) return chain.status();
    chains.push_back(std::move(*chain));
  }
  progress("whole network: measuring");
  std::vector<std::function<void()>> bodies;
  for (const Runners& chain : chains) {
    bodies.push_back([&chain] {
      for (const auto& runner : chain) (void)runner->Run().ok();
    });
  }
  const auto timings = harness::MeasureInTurns(bodies, seconds);
  for (size_t i = 0; i < results.size(); ++i) results[i].timing = timings[i];
  return results;
}

}  // namespace

Result<Comparison> Measure(const harness::Network& network, const Context& context, const Machine& machine,
                           const ComparisonOptions& options, const std::function<void(const std::string&)>& progress) {
  Comparison comparison;
  comparison.machine = machine;
  comparison.threads = static_cast<int>(context.pool->num_threads());
  std::vector<const harness::Layer*> blocks;
  for (const harness::Layer& layer : network.layers) {
    if (harness::IsBlock(layer.problem)) blocks.push_back(&layer);
  }
  if (blocks.empty()) {
    return InvalidArgument(
        "there is nothing to compare: no separable_conv2d, and no conv2d with one group, a kernel above "
        "1x1 and more than 4 input channels");
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    progress("[" + std::to_string(i + 1) + "/" + std::to_string(blocks.size()) + "] " + blocks[i]->name);
    auto block = MeasureBlock(*blocks[i], context, machine, options.seconds);
    if (!block.ok()) return block.status();
    comparison.blocks.push_back(std::move(*block));
  }
  if (options.whole_network) {
    auto networks = MeasureNetworks(network, context, 5 * options.seconds, progress);
    if (!networks.ok()) return networks.status();
    comparison.networks = std::move(*networks);
  }
  return comparison;
}

}  // namespace lamina::tools
