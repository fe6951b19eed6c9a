#include "harness/network.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

#include "harness/texts.h"

namespace lamina::harness {
namespace {

constexpr std::string_view kBlanks = " \t\r";

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

// The text up to the first of `separators`, which is taken off `text` with it.
std::string_view Take(std::string_view& text, std::string_view separators) {
  const size_t end = std::min(text.find_first_of(separators), text.size());
  const std::string_view word = text.substr(0, end);
  text = Trim(text.substr(std::min(end + 1, text.size())));
  return word;
}

bool ParseCount(std::string_view text, int64_t* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size() && *value >= 0;
}

bool ParseCounts(std::string_view text, std::vector<int64_t>* values) {
  while (!text.empty()) {
    int64_t value;
    if (!ParseCount(Take(text, ","), &value)) return false;
    values->push_back(value);
  }
  return !values->empty();
}

// The functions below read what follows a line's first word; they return what is wrong, or "".
std::string ParseExtra(std::string_view rest, Network& network) {
  Extra extra;
  while (!rest.empty()) {
    const std::string_view name = Take(rest, "=");
    if (name == "what") {
      extra.what = rest;
      rest = {};
      continue;
    }
    const std::string_view value = Take(rest, kBlanks);
    int64_t* field = name == "params" ? &extra.params : name == "macs" ? &extra.macs : nullptr;
    if (field == nullptr) return "extra has the fields params macs what, got \"" + std::string(name) + "\"";
    if (!ParseCount(value, field)) return std::string(name) + " wants a count, got \"" + std::string(value) + "\"";
  }
  if (extra.what.empty()) return "extra wants what=<words> at its end";
  network.extras.push_back(extra);
  return "";
}

std::string ParseScaling(std::string_view rest, Network& network) {
  while (!rest.empty()) {
    const std::string_view name = Take(rest, "="), value = Take(rest, kBlanks);
    bool ok = false;
    if (name == "width") {
      network.width_rule = value == "plain" ? WidthRule::kPlain : WidthRule::kMultipleOf8;
      ok = value == "plain" || value == "multiple_of_8";
    } else if (name == "resolution") {
      ok = ParseCount(value, &network.resolution) && network.resolution > 0;
    } else if (name == "fixed") {
      ok = ParseCounts(value, &network.fixed);
    } else if (name == "not_reduced") {
      ok = ParseCounts(value, &network.not_reduced);
    } else {
      return "scaling has the fields width resolution fixed not_reduced, got \"" + std::string(name) + "\"";
    }
    if (!ok) return "scaling: field " + std::string(name) + " cannot be \"" + std::string(value) + "\"";
  }
  return "";
}

std::string ParseLayer(std::string_view line, Network& network) {
  Layer layer;
  if (const size_t colon = line.find(':'); colon != std::string_view::npos) {
    std::string_view head = Trim(line.substr(0, colon));
    line = Trim(line.substr(colon + 1));
    layer.name = Take(head, kBlanks);
    if (!head.empty() && (head[0] != 'x' || !ParseCount(head.substr(1), &layer.count) || layer.count < 1)) {
      return "after a name stands x<count> or a colon, got \"" + std::string(head) + "\"";
    }
  }
  const auto problem = ParseProblem(line);
  if (!problem.ok()) return problem.status().message();
  if (Status s = ValidateProblem(*problem); !s.ok()) return s.message();
  layer.problem = *problem;
  if (layer.name.empty()) layer.name = ToString(*problem);
  network.layers.push_back(layer);
  return "";
}

bool Contains(const std::vector<int64_t>& values, int64_t value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

int64_t ScaleChannels(const Network& network, double width, int64_t channels) {
  if (Contains(network.fixed, channels) || (width < 1 && Contains(network.not_reduced, channels))) return channels;
  const double exact = width * static_cast<double>(channels);
  if (network.width_rule == WidthRule::kPlain) return std::max<int64_t>(8, static_cast<int64_t>(exact));
  const int64_t nearest = std::max<int64_t>(8, static_cast<int64_t>(exact + 4) / 8 * 8);
  return static_cast<double>(nearest) < 0.9 * exact ? nearest + 8 : nearest;
}

// Scales one descriptor; the sizes were validated, and stay valid for multiples that leave whole sizes.
struct Scaler {
  const Network& network;
  double width;
  int64_t resolution;
  bool whole = true;  // whether every size came out whole

  int64_t Size(int64_t size) {
    if (size == 1) return 1;  // an averaged image, or the height of a 1-D one
    whole = whole && size * resolution % network.resolution == 0;
    return size * resolution / network.resolution;
  }
  int64_t Channels(int64_t channels) const { return width == 1 ? channels : ScaleChannels(network, width, channels); }
  template <class Desc>
  void Image(Desc& d) {
    if (resolution != 0) {
      d.ih = Size(d.ih);
      d.iw = Size(d.iw);
    }
    d.ic = Channels(d.ic);
    d.oc = Channels(d.oc);
  }
  void operator()(Conv2dDesc& d) {
    const bool depthwise = d.groups == d.ic;
    Image(d);
    if (depthwise) d.groups = d.ic;
  }
  void operator()(SeparableConv2dDesc& d) {
    // The hidden channels are a multiple of the input's, after scaling too.
    const int64_t expansion = d.hidden / d.ic;
    const bool multiple = d.hidden % d.ic == 0;
    Image(d);
    if (d.hidden != 0) d.hidden = multiple ? expansion * d.ic : Channels(d.hidden);
  }
  void operator()(FullyConnectedDesc& d) {
    d.ic = Channels(d.ic);
    d.oc = Channels(d.oc);
  }
  void operator()(AdditiveAttentionDesc&) {}
  void operator()(MultiHeadAttentionDesc&) {}
};

}  // namespace

Result<Network> ParseNetwork(std::string_view text, std::string_view source) {
  Network network;
  for (int number = 1; !text.empty(); ++number) {
    const size_t newline = text.find('\n');
    std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    line = Trim(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    std::string_view rest = line;
    const std::string_view first = Take(rest, kBlanks);
    const std::string wrong = first == "extra"     ? ParseExtra(rest, network)
                              : first == "scaling" ? ParseScaling(rest, network)
                                                   : ParseLayer(line, network);
    if (!wrong.empty()) return InvalidArgument(std::string(source) + ": line " + std::to_string(number) + ": " + wrong);
  }
  return network;
}

Result<Network> Scale(const Network& network, double width, int64_t resolution) {
  if (!(width > 0 && width <= 16)) {
    std::ostringstream got;
    got << width;
    return InvalidArgument("width must be more than 0 and at most 16, got " + got.str());
  }
  if (resolution < 0 || resolution > 1 << 16) {
    return InvalidArgument("resolution must be between 1 and 65536, got " + std::to_string(resolution));
  }
  if (width != 1 && network.width_rule == WidthRule::kNone) {
    return InvalidArgument("width: this network has no width multiplier");
  }
  if (resolution != 0 && network.resolution == 0) {
    return InvalidArgument("resolution: this network's cannot be changed");
  }
  Network scaled = network;
  Scaler scaler{network, width, resolution};
  for (Layer& layer : scaled.layers) {
    std::visit(scaler, layer.problem);
    if (!scaler.whole) {
      return InvalidArgument("resolution " + std::to_string(resolution) + " makes a size of layer " + layer.name +
                             " no whole number: it must be a multiple of 32");
    }
    if (Status s = ValidateProblem(layer.problem); !s.ok()) return s;
  }
  return scaled;
}

Cost TotalCost(const Network& network) {
  Cost total;
  for (const Layer& layer : network.layers) {
    const Cost cost = CostOf(layer.problem);
    for (int64_t i = 0; i < layer.count; ++i) total += cost;
  }
  for (const Extra& extra : network.extras) {
    total.macs += extra.macs;
    total.params += extra.params;
    total.weight_bytes += extra.params * 4;
  }
  return total;
}

std::vector<std::string_view> NetworkNames() {
  std::vector<std::string_view> names;
  for (const NamedText& t : kNetworkTexts) names.push_back(t.name);
  return names;
}

Result<Network> LoadNetwork(std::string_view name) {
  std::string names;
  for (const NamedText& t : kNetworkTexts) {
    if (t.name == name) return ParseNetwork(t.text, t.name);
    names += " " + std::string(t.name);
  }
  return InvalidArgument("unknown network \"" + std::string(name) + "\", the networks are" + names);
}

Result<Network> LoadSuite() { return ParseNetwork(kSuiteText, "suite"); }

}  // namespace lamina::harness
