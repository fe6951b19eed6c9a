// Lists of problems as text: suites, networks, what a user writes into a file. One line each:
//   name: conv2d ih=56 ...                   the name may be left out
//   block7 x5: separable_conv2d ...          the same problem five times, with weights of its own each time
//   extra params=38597376 what=embeddings    what is part of a network and no operator of ours; also macs=
//   scaling width=plain resolution=224 fixed=3,1000
// and comments from # on. `scaling` says how a network follows a width multiplier and an input resolution.
#ifndef LAMINA_HARNESS_NETWORK_H_
#define LAMINA_HARNESS_NETWORK_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/problem.h"

namespace lamina::harness {

struct Layer {
  std::string name;
  int64_t count = 1;
  Problem problem;
};

struct Extra {
  int64_t params = 0, macs = 0;
  std::string what;
};

// How channel counts follow the width multiplier a.
enum class WidthRule {
  kNone,
  kPlain,        // max(8, int(a c)): MobileNetV1's code
  kMultipleOf8,  // the nearest multiple of 8, the next one where that is below 0.9 a c: MobileNetV2's code
};

struct Network {
  std::vector<Layer> layers = {};
  std::vector<Extra> extras = {};
  WidthRule width_rule = WidthRule::kNone;
  int64_t resolution = 0;                 // the images' height and width as written; 0: it cannot be changed
  std::vector<int64_t> fixed = {};        // channel counts that the width leaves alone: the image's, the classes
  std::vector<int64_t> not_reduced = {};  // channel counts that only a width above 1 changes
};

// Reads a list; every problem is validated. Errors begin with `source` and the line's number.
Result<Network> ParseNetwork(std::string_view text, std::string_view source);

// The network for a width multiplier (1 = as written) and a resolution (0 = as written).
Result<Network> Scale(const Network& network, double width, int64_t resolution);

// Sums over the layers; params and macs of the extras included.
Cost TotalCost(const Network& network);

// The networks that the program knows (bench/networks/*.txt, built in), and the suite (bench/suite.txt).
std::vector<std::string_view> NetworkNames();
Result<Network> LoadNetwork(std::string_view name);
Result<Network> LoadSuite();

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_NETWORK_H_
