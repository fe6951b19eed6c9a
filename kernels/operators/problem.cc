#include "lamina/problem.h"

#include <iterator>
#include <vector>

#include "kernels/operators/packing.h"
#include "kernels/operators/text.h"

namespace lamina {
namespace {

struct Reader {
  std::string_view name;
  Result<Problem> (*parse)(std::string_view text);
};

template <auto kParse>
Result<Problem> ParseAs(std::string_view text) {
  auto desc = kParse(text);
  if (!desc.ok()) return desc.status();
  return Problem(*desc);
}

constexpr Reader kReaders[] = {
    {"conv2d", ParseAs<ParseConv2d>},
    {"separable_conv2d", ParseAs<ParseSeparableConv2d>},
    {"fully_connected", ParseAs<ParseFullyConnected>},
    {"additive_attention", ParseAs<ParseAdditiveAttention>},
    {"multi_head_attention", ParseAs<ParseMultiHeadAttention>},
};
static_assert(std::size(kReaders) == std::variant_size_v<Problem>, "every operator needs its reader");

}  // namespace

Result<Problem> ParseProblem(std::string_view text) {
  const std::vector<std::string_view> words = text::Words(text);
  std::string names;
  for (const Reader& reader : kReaders) {
    if (!words.empty() && words[0] == reader.name) return reader.parse(text);
    names += " " + std::string(reader.name);
  }
  return InvalidArgument("a problem begins with its operator, one of" + names + ", got \"" + std::string(text) + "\"");
}

std::string ToString(const Problem& problem) {
  return std::visit([](const auto& desc) { return ToString(desc); }, problem);
}

Status ValidateProblem(const Problem& problem) {
  return std::visit([](const auto& desc) { return desc.Validate(); }, problem);
}

Cost CostOf(const Problem& problem) {
  return std::visit([](const auto& desc) { return CostOf(desc); }, problem);
}

Result<Problem> PackedProblem(const std::string& path) {
  const auto file = packing::Read(path);
  if (!file.ok()) return file.status();
  auto problem = ParseProblem(file->problem);
  if (!problem.ok()) return InvalidArgument(path + ": " + problem.status().message());
  return problem;
}

}  // namespace lamina
