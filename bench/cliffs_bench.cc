// Cliffs: sizes next to each other whose times differ by more than their work explains. Of each family of problems, all
// timed in turns, the worst pair of neighbours is printed:
//   smaller  t(i) / t(i+1): the smaller problem must not take longer, at most 1.3 times as long
//   larger   (t(i+1) / work(i+1)) / (t(i) / work(i)): nor may one step more cost out of proportion, at most 1.3
//   spread   the most over the least time per multiply-accumulate of the whole family, at most 1.5
#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "harness/measure.h"
#include "harness/problem.h"
#include "lamina/problem.h"

namespace {

using lamina::harness::Runner;

struct Family {
  std::string name, before, after;  // a problem is before + size + after
  std::vector<int> sizes;
  bool kernels = false;  // sizes are kernels': only their spread is judged
};

std::vector<int> UpTo(int most) {
  std::vector<int> sizes;
  for (int i = 1; i <= most; ++i) sizes.push_back(i);
  return sizes;
}
std::vector<int> Around(const std::vector<int>& edges) {
  std::vector<int> sizes;
  for (int edge : edges) sizes.insert(sizes.end(), {edge - 1, edge, edge + 1});
  return sizes;
}

std::vector<Family> Families() {
  const std::string pads = " pad_top=1 pad_left=1 pad_bottom=1 pad_right=1";
  const std::vector<int> edges = {16, 32, 48, 64, 128, 192};
  std::vector<Family> families = {
      {"fully_connected rows", "fully_connected ic=512 oc=512 m=", "", UpTo(64)},
      {"conv2d batch", "conv2d ih=14 iw=14 ic=64 oc=64 kh=3 kw=3" + pads + " n=", "", UpTo(8)},
      {"depthwise batch", "conv2d ih=14 iw=14 ic=64 oc=64 groups=64 kh=3 kw=3" + pads + " n=", "", UpTo(8)},
      {"separable batch", "separable_conv2d ih=14 iw=14 ic=64 oc=64" + pads + " n=", "", UpTo(8)},
      {"attention batch", "multi_head_attention num_heads=4 head_dim=64 seqlen_q=64 seqlen_kv=64 batch=", "", UpTo(8)},
      {"fully_connected outputs", "fully_connected m=32 ic=256 oc=", "", Around(edges)},
      {"fully_connected inputs", "fully_connected m=32 oc=256 ic=", "", Around(edges)},
      {"pointwise outputs", "conv2d ih=28 iw=28 ic=64 oc=", "", Around(edges)},
      {"conv2d outputs", "conv2d ih=28 iw=28 ic=64 kh=3 kw=3" + pads + " oc=", "", Around(edges)},
      {"conv2d inputs", "conv2d ih=28 iw=28 oc=64 kh=3 kw=3" + pads + " ic=", "", Around(edges)},
  };
  for (const bool depthwise : {true, false}) {
    families.push_back({depthwise ? "depthwise kernels" : "conv2d kernels",
                        std::string("conv2d ih=56 iw=56 ic=64 oc=64") + (depthwise ? " groups=64" : "") + " k=",
                        "",
                        {3, 4, 5, 7, 9, 31},
                        true});
  }
  return families;
}

// kh, kw and pads that keep the image's size, where a family's sizes are kernels'.
std::string TextOf(const Family& family, int size) {
  if (!family.kernels) return family.before + std::to_string(size) + family.after;
  const std::string low = std::to_string((size - 1) / 2), high = std::to_string(size / 2), k = std::to_string(size);
  return family.before.substr(0, family.before.rfind(" k=")) + " kh=" + k + " kw=" + k + " pad_top=" + low +
         " pad_left=" + low + " pad_bottom=" + high + " pad_right=" + high;
}

struct Worst {
  double ratio = 0;
  int from = 0, to = 0;
  void Take(double r, int a, int b) {
    if (r > ratio) *this = {r, a, b};
  }
};

void Print(const char* what, const Worst& worst, double limit) {
  std::printf("  %s %.2f (%d, %d)%s", what, worst.ratio, worst.from, worst.to, worst.ratio > limit ? " CLIFF" : "");
}

bool Measure(const Family& family, size_t threads, double seconds) {
  std::vector<std::unique_ptr<Runner>> runners;
  std::vector<std::function<void()>> bodies;
  for (int size : family.sizes) {
    const auto problem = lamina::ParseProblem(TextOf(family, size));
    if (!problem.ok()) return std::fprintf(stderr, "%s\n", problem.status().message().c_str()), false;
    const lamina::Accuracy accuracy = family.kernels ? lamina::Accuracy::kStrict : lamina::Accuracy::kDefault;
    auto runner = lamina::harness::MakeRunner(
        *problem, {.accuracy = accuracy, .pool = &lamina::harness::PoolOf(threads)}, static_cast<uint64_t>(size));
    if (!runner.ok()) return std::fprintf(stderr, "%s\n", runner.status().message().c_str()), false;
    runners.push_back(*std::move(runner));
    bodies.push_back([&r = *runners.back()] { (void)r.Run().ok(); });
  }
  const auto timings = lamina::harness::MeasureInTurns(bodies, seconds);
  Worst smaller, larger;
  int slow = 0, fast = 0;
  const auto per_mac = [&](size_t i) { return timings[i].median() / static_cast<double>(runners[i]->cost().macs); };
  for (size_t i = 0; i < family.sizes.size(); ++i) {
    if (per_mac(i) > per_mac(static_cast<size_t>(slow))) slow = static_cast<int>(i);
    if (per_mac(i) < per_mac(static_cast<size_t>(fast))) fast = static_cast<int>(i);
    if (i + 1 == family.sizes.size() || family.sizes[i + 1] != family.sizes[i] + 1) continue;
    smaller.Take(timings[i].median() / timings[i + 1].median(), family.sizes[i], family.sizes[i + 1]);
    larger.Take(per_mac(i + 1) / per_mac(i), family.sizes[i], family.sizes[i + 1]);
  }
  std::printf("%-24s", family.name.c_str());
  if (family.kernels) {
    const auto slowest = static_cast<size_t>(slow), fastest = static_cast<size_t>(fast);
    Print("spread", {per_mac(slowest) / per_mac(fastest), family.sizes[slowest], family.sizes[fastest]}, 1.5);
  } else {
    Print("smaller", smaller, 1.3);
    Print("larger", larger, 1.3);
  }
  std::printf("\n");
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Cliffs: sizes next to each other whose times differ by more than their work explains.", "cliffs_bench");
  size_t threads = 1;
  double seconds = 0.05;
  app.add_option("--threads", threads)->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--seconds", seconds, "for each size")->check(CLI::PositiveNumber)->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  for (const Family& family : Families()) {
    if (!Measure(family, threads, seconds)) return 1;
  }
  return 0;
}
