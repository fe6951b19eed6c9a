// Standard against depthwise-separable convolution: what is measured of a network's blocks, and how it is shown.
#ifndef LAMINA_TOOLS_COMPARISON_H_
#define LAMINA_TOOLS_COMPARISON_H_

#include <functional>
#include <string>
#include <vector>

#include "harness/form.h"
#include "harness/measure.h"
#include "harness/network.h"
#include "harness/roof.h"
#include "lamina/context.h"
#include "tools/json_report.h"

namespace lamina::tools {

// One form of one block.
struct FormResult {
  harness::Form form;
  Problem problem;
  Cost cost;
  std::string implementation;
  harness::Timing timing;
  harness::RoofShare share;
  // Of separable forms: the depthwise step's share of the multiply-accumulates, and of the time when each step runs by
  // itself; the two steps' time together.
  double depthwise_macs = 0, depthwise_time = 0, steps_ns = 0;

  double ns() const { return timing.median(); }
  double gflops() const { return static_cast<double>(cost.flops()) / ns(); }
};

struct BlockResult {
  std::string name;
  int64_t count = 1;
  std::vector<FormResult> forms;  // the standard one first
};

// The whole network with its blocks in one form, layer after layer, each reading what the one before wrote where the
// sizes allow it. Pooling and shortcuts' additions that are no operator of ours are not in the time.
struct NetworkResult {
  harness::Form form;
  Cost cost;
  harness::Timing timing;
};

struct Comparison {
  std::string title;
  int64_t images = 1;
  int threads = 1;
  Machine machine;  // limited to the SIMD target
  std::vector<BlockResult> blocks;
  std::vector<NetworkResult> networks;  // empty when only single problems were asked for
};

struct ComparisonOptions {
  double seconds = 0.2;  // for each form of each block
  bool whole_network = true;
};

// Measures; fails with the first problem that cannot be prepared.
Result<Comparison> Measure(const harness::Network& network, const Context& context, const Machine& machine,
                           const ComparisonOptions& options, const std::function<void(const std::string&)>& progress);

// Why a separable form's time is not the part of the standard one's that its multiply-accumulates are.
std::string Why(const FormResult& standard, const FormResult& separable);

std::string ToText(const Comparison& comparison);
void AddTo(JsonReport& report, const Comparison& comparison);

}  // namespace lamina::tools

#endif  // LAMINA_TOOLS_COMPARISON_H_
