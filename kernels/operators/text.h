// The text form of descriptors: "<op> field=value ...", fields at their defaults left out.
//
// Each operator lists its fields once, in Fields<Desc>::Visit; printing, parsing and the rule of which fields Reshape
// may change all come from that list. The text is used by error messages, suites, repro lines and the command line.
#ifndef LAMINA_KERNELS_OPERATORS_TEXT_H_
#define LAMINA_KERNELS_OPERATORS_TEXT_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/context.h"
#include "lamina/multi_head_attention.h"
#include "lamina/separable_conv2d.h"
#include "lamina/status.h"
#include "lamina/types.h"

namespace lamina {

// Whether Reshape may change a field.
enum class FieldKind { kFixed, kRunTime };

// Specialised per descriptor: `static constexpr const char* kName` and `static void Visit(visitor)`, which calls
// visitor(name, &Desc::member, FieldKind) for each field in order.
template <class Desc>
struct Fields;

namespace text {

std::string Format(int64_t value);
std::string Format(bool value);
std::string Format(float value);
std::string Format(DType value);
std::string Format(Layout value);
std::string Format(WeightLayout value);
std::string Format(MatrixLayout value);
std::string Format(Residual value);
std::string Format(SeparableOrder value);
std::string Format(Fusion value);
std::string Format(Causal value);
std::string Format(AttentionLayout value);
std::string Format(const Activation& value);
std::string Format(const AttentionStrides& value);

// False when `text` is no value of that type; then `wanted` says what would be.
bool Parse(std::string_view text, int64_t* value, std::string* wanted);
bool Parse(std::string_view text, bool* value, std::string* wanted);
bool Parse(std::string_view text, float* value, std::string* wanted);
bool Parse(std::string_view text, DType* value, std::string* wanted);
bool Parse(std::string_view text, Layout* value, std::string* wanted);
bool Parse(std::string_view text, WeightLayout* value, std::string* wanted);
bool Parse(std::string_view text, MatrixLayout* value, std::string* wanted);
bool Parse(std::string_view text, Residual* value, std::string* wanted);
bool Parse(std::string_view text, SeparableOrder* value, std::string* wanted);
bool Parse(std::string_view text, Fusion* value, std::string* wanted);
bool Parse(std::string_view text, Causal* value, std::string* wanted);
bool Parse(std::string_view text, AttentionLayout* value, std::string* wanted);
bool Parse(std::string_view text, Activation* value, std::string* wanted);
bool Parse(std::string_view text, AttentionStrides* value, std::string* wanted);

// The words of `text` between blanks.
std::vector<std::string_view> Words(std::string_view text);

// "got ic=64 groups=3"
std::string Got(std::initializer_list<std::pair<const char*, int64_t>> values);

template <class Desc>
std::string Print(const Desc& desc) {
  std::string out = Fields<Desc>::kName;
  const Desc defaults;
  Fields<Desc>::Visit([&](const char* name, auto member, FieldKind) {
    if (!(desc.*member == defaults.*member)) out += std::string(" ") + name + "=" + Format(desc.*member);
  });
  return out;
}

template <class Desc>
Result<Desc> Read(std::string_view text) {
  const auto refuse = [](const std::string& sentence) { return InvalidArgument(Fields<Desc>::kName + sentence); };
  const std::vector<std::string_view> words = Words(text);
  if (words.empty() || words[0] != Fields<Desc>::kName) {
    return refuse(": the text must begin with this name, got \"" + std::string(text) + "\"");
  }
  Desc desc;
  std::vector<std::string_view> seen;
  for (size_t i = 1; i < words.size(); ++i) {
    const size_t equals = words[i].find('=');
    if (equals == std::string_view::npos) {
      return refuse(": fields are written name=value, got \"" + std::string(words[i]) + "\"");
    }
    const std::string_view name = words[i].substr(0, equals), value = words[i].substr(equals + 1);
    for (std::string_view s : seen) {
      if (s == name) return refuse(": field " + std::string(name) + " is given twice");
    }
    seen.push_back(name);
    bool known = false, parsed = false;
    std::string wanted, names;
    Fields<Desc>::Visit([&](const char* field, auto member, FieldKind) {
      names += std::string(" ") + field;
      if (name != field) return;
      known = true;
      parsed = Parse(value, &(desc.*member), &wanted);
    });
    if (!known) return refuse(": unknown field \"" + std::string(name) + "\", the fields are" + names);
    if (!parsed) {
      return refuse(": field " + std::string(name) + " wants " + wanted + ", got \"" + std::string(value) + "\"");
    }
  }
  return desc;
}

// The names of the fields that Reshape must not change and that differ between a and b, or "".
template <class Desc>
std::string FixedDifferences(const Desc& a, const Desc& b) {
  std::string names;
  Fields<Desc>::Visit([&](const char* name, auto member, FieldKind kind) {
    if (kind == FieldKind::kFixed && !(a.*member == b.*member)) names += (names.empty() ? "" : " ") + std::string(name);
  });
  return names;
}

}  // namespace text

// "<desc>: <rule>, got <values>"
template <class Desc>
Status Refuse(const Desc& desc, const std::string& rule,
              std::initializer_list<std::pair<const char*, int64_t>> values = {}) {
  return InvalidArgument(text::Print(desc) + ": " + rule + (values.size() ? ", " + text::Got(values) : ""));
}

// The product of `factors` (all >= 0) when it fits a size of elements whose bytes fit in int64, else -1.
int64_t CheckedProduct(std::initializer_list<int64_t> factors);

}  // namespace lamina

#endif  // LAMINA_KERNELS_OPERATORS_TEXT_H_
