#include "tests/fuzz/fuzz.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>

namespace lamina::fuzz {
namespace {

int64_t FromEnvironment(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoll(text, nullptr, 10) : otherwise;
}

constexpr const char* kEdges[] = {"0",
                                  "1",
                                  "-1",
                                  "2",
                                  "3",
                                  "7",
                                  "64",
                                  "65",
                                  "2147483647",
                                  "2147483648",
                                  "4611686018427387904",
                                  "9223372036854775807",
                                  "-9223372036854775808",
                                  "9223372036854775808",
                                  "1e9",
                                  "nan",
                                  "inf",
                                  "-0",
                                  "0.5",
                                  "f16",
                                  "bf16",
                                  "nchw",
                                  "oihw",
                                  "io",
                                  "before",
                                  "after",
                                  "always",
                                  "pw_dw",
                                  "bottom_right",
                                  "bhsd",
                                  "relu6",
                                  "clamp(1,-1)",
                                  "clamp(0,6)",
                                  "leaky(0.1)",
                                  "elu(inf)",
                                  "0,0,0",
                                  "1,2,3",
                                  "",
                                  " ",
                                  "="};

std::vector<std::string> WordsOf(const std::string& text) {
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

std::string Join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& w : words) text += (text.empty() ? "" : " ") + w;
  return text;
}

}  // namespace

uint64_t Rng::Next() {  // SplitMix64
  uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

int64_t Rng::Size(int64_t most) {
  const int64_t kind = Below(10);
  int64_t size;
  if (kind < 4) {
    size = Between(1, 8);
  } else if (kind < 8) {
    size = (int64_t{1} << Between(2, 9)) + Between(-1, 1);
  } else {
    size = Between(1, most);
  }
  return std::clamp<int64_t>(size, 1, most);
}

Activation Rng::AnyActivation() {
  if (Chance(40)) return {};
  Activation a{.kind = static_cast<ActivationKind>(Below(static_cast<int64_t>(ActivationKind::kElu) + 1))};
  switch (a.kind) {
    case ActivationKind::kClamp:
      a.alpha = static_cast<float>(Between(-8, 0)) / 2;
      a.beta = static_cast<float>(Between(0, 12)) / 2;
      break;
    case ActivationKind::kHardsigmoid: a.beta = 0.5f; [[fallthrough]];
    case ActivationKind::kLeakyRelu:
    case ActivationKind::kElu: a.alpha = static_cast<float>(Between(1, 8)) / 8; break;
    default: break;
  }
  return a;
}

uint64_t Seed() {
  static const uint64_t seed = [] {
    const auto now = std::chrono::system_clock::now().time_since_epoch().count();
    const auto s = static_cast<uint64_t>(FromEnvironment("LAMINA_FUZZ_SEED", now % 1'000'000'007));
    std::printf("LAMINA_FUZZ_SEED=%llu\n", static_cast<unsigned long long>(s));
    return s;
  }();
  return seed;
}

std::chrono::steady_clock::duration Duration() {
  return std::chrono::seconds(FromEnvironment("LAMINA_FUZZ_SECONDS", 6));
}

std::string MutateField(const std::string& text, const std::vector<std::string>& fields, Rng& rng) {
  std::vector<std::string> words = WordsOf(text);
  const std::string& field = fields[rng.Below(static_cast<int64_t>(fields.size()))];
  const std::string value = kEdges[rng.Below(std::size(kEdges))];
  const auto same =
      std::find_if(words.begin(), words.end(), [&](const std::string& w) { return w.rfind(field + "=", 0) == 0; });
  if (same != words.end()) {
    *same = field + "=" + value;
  } else {
    words.push_back(field + "=" + value);
  }
  return Join(words);
}

std::string MutateText(const std::string& text, const std::vector<std::string>& fields, Rng& rng) {
  std::string out = text;
  const auto at = [&](size_t size) { return static_cast<size_t>(rng.Below(static_cast<int64_t>(size) + 1)); };
  switch (rng.Below(7)) {
    case 0: return MutateField(text, fields, rng);
    case 1: out.insert(at(out.size()), 1, static_cast<char>(rng.Below(256))); break;
    case 2: out.erase(at(out.size()), 1 + at(4)); break;
    case 3: out.insert(at(out.size()), kEdges[rng.Below(std::size(kEdges))]); break;
    case 4: {  // a word twice or out of order
      std::vector<std::string> words = WordsOf(out);
      const std::string word = words[at(words.size() - 1)];
      words.insert(words.begin() + static_cast<std::ptrdiff_t>(at(words.size())), word);
      return Join(words);
    }
    case 5: {  // shuffled: as good as it was, when the name stays in front
      std::vector<std::string> words = WordsOf(out);
      for (size_t i = words.size(); i > 2; --i) std::swap(words[i - 1], words[1 + at(i - 2)]);
      return Join(words);
    }
    default:
      if (!out.empty()) out[at(out.size() - 1)] = static_cast<char>(rng.Below(256));
  }
  return out;
}

int64_t LargestNumber(const std::string& text) {
  int64_t largest = 0;
  for (const char *at = text.data(), *end = at + text.size(); at < end; ++at) {
    int64_t value = 0;
    const auto [stop, error] = std::from_chars(at, end, value);
    if (error == std::errc()) largest = std::max(largest, value);
    if (stop > at) at = stop - 1;
  }
  return largest;
}

std::vector<std::string> Smaller(const std::string& text) {
  const std::vector<std::string> words = WordsOf(text);
  std::vector<std::string> out;
  for (size_t i = 1; i < words.size(); ++i) {
    std::vector<std::string> fewer = words;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    out.push_back(Join(fewer));
  }
  for (size_t i = 1; i < words.size(); ++i) {
    const size_t equals = words[i].find('=');
    int64_t value = 0;
    const char* end = words[i].data() + words[i].size();
    if (equals == std::string::npos || std::from_chars(words[i].data() + equals + 1, end, value).ptr != end) continue;
    for (int64_t less : {value / 2, value - 1}) {
      if (less < 1 || less == value) continue;
      std::vector<std::string> changed = words;
      changed[i] = words[i].substr(0, equals + 1) + std::to_string(less);
      out.push_back(Join(changed));
    }
  }
  return out;
}

}  // namespace lamina::fuzz
