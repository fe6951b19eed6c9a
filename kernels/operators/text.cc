#include "kernels/operators/text.h"

#include <charconv>
#include <cmath>
#include <cstdio>

namespace lamina {
namespace {

template <class E>
struct Word {
  E value;
  const char* text;
};

constexpr Word<DType> kDTypes[] = {{DType::kF32, "f32"}, {DType::kBf16, "bf16"}, {DType::kF16, "f16"}};
constexpr Word<Layout> kLayouts[] = {{Layout::kNhwc, "nhwc"}, {Layout::kNchw, "nchw"}};
constexpr Word<WeightLayout> kWeightLayouts[] = {{WeightLayout::kOhwi, "ohwi"}, {WeightLayout::kOihw, "oihw"}};
constexpr Word<MatrixLayout> kMatrixLayouts[] = {{MatrixLayout::kOi, "oi"}, {MatrixLayout::kIo, "io"}};
constexpr Word<Residual> kResiduals[] = {
    {Residual::kNone, "none"}, {Residual::kBeforeActivation, "before"}, {Residual::kAfterActivation, "after"}};
constexpr Word<SeparableOrder> kOrders[] = {
    {SeparableOrder::kDwPw, "dw_pw"}, {SeparableOrder::kPwDw, "pw_dw"}, {SeparableOrder::kPwDwPw, "pw_dw_pw"}};
constexpr Word<Fusion> kFusions[] = {{Fusion::kAuto, "auto"}, {Fusion::kAlways, "always"}, {Fusion::kNever, "never"}};
constexpr Word<Causal> kCausals[] = {
    {Causal::kNone, "none"}, {Causal::kTopLeft, "top_left"}, {Causal::kBottomRight, "bottom_right"}};
constexpr Word<AttentionLayout> kAttentionLayouts[] = {{AttentionLayout::kBshd, "bshd"},
                                                       {AttentionLayout::kBhsd, "bhsd"}};

// Activations: name and how many parameters follow in brackets.
struct ActivationWord {
  ActivationKind kind;
  const char* text;
  int parameters;
};
constexpr ActivationWord kActivations[] = {{ActivationKind::kNone, "none", 0},
                                           {ActivationKind::kRelu, "relu", 0},
                                           {ActivationKind::kRelu6, "relu6", 0},
                                           {ActivationKind::kClamp, "clamp", 2},
                                           {ActivationKind::kLeakyRelu, "leaky", 1},
                                           {ActivationKind::kHardswish, "hardswish", 0},
                                           {ActivationKind::kHardsigmoid, "hardsigmoid", 2},
                                           {ActivationKind::kSigmoid, "sigmoid", 0},
                                           {ActivationKind::kSilu, "silu", 0},
                                           {ActivationKind::kGeluErf, "gelu_erf", 0},
                                           {ActivationKind::kGeluTanh, "gelu_tanh", 0},
                                           {ActivationKind::kTanh, "tanh", 0},
                                           {ActivationKind::kElu, "elu", 1}};

template <class E, size_t N>
std::string FormatWord(E value, const Word<E> (&words)[N]) {
  for (const auto& w : words) {
    if (w.value == value) return w.text;
  }
  return std::to_string(static_cast<int32_t>(value));  // no member of the enum: Validate refuses it
}

template <class E, size_t N>
bool ParseWord(std::string_view text, E* value, std::string* wanted, const Word<E> (&words)[N]) {
  *wanted = "one of";
  for (const auto& w : words) {
    if (text == w.text) {
      *value = w.value;
      return true;
    }
    *wanted += std::string(" ") + w.text;
  }
  return false;
}

bool ParseFloat(std::string_view text, float* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(*value);
}

bool ParseInt(std::string_view text, int64_t* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

// The parts of `text` between commas.
std::vector<std::string_view> SplitCommas(std::string_view text) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0;;) {
    const size_t comma = text.find(',', begin);
    parts.push_back(text.substr(begin, comma == std::string_view::npos ? comma : comma - begin));
    if (comma == std::string_view::npos) return parts;
    begin = comma + 1;
  }
}

}  // namespace

namespace text {

std::string Format(int64_t value) { return std::to_string(value); }
std::string Format(bool value) { return value ? "1" : "0"; }
std::string Format(float value) {
  char buffer[32];  // shortest text that reads back as the same float
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
  return std::string(buffer, end);
}
std::string Format(DType value) { return FormatWord(value, kDTypes); }
std::string Format(Layout value) { return FormatWord(value, kLayouts); }
std::string Format(WeightLayout value) { return FormatWord(value, kWeightLayouts); }
std::string Format(MatrixLayout value) { return FormatWord(value, kMatrixLayouts); }
std::string Format(Residual value) { return FormatWord(value, kResiduals); }
std::string Format(SeparableOrder value) { return FormatWord(value, kOrders); }
std::string Format(Fusion value) { return FormatWord(value, kFusions); }
std::string Format(Causal value) { return FormatWord(value, kCausals); }
std::string Format(AttentionLayout value) { return FormatWord(value, kAttentionLayouts); }

std::string Format(const Activation& value) {
  for (const auto& w : kActivations) {
    if (w.kind != value.kind) continue;
    std::string out = w.text;
    if (w.parameters >= 1) out += "(" + Format(value.alpha);
    if (w.parameters == 2) out += "," + Format(value.beta);
    return w.parameters ? out + ")" : out;
  }
  return std::to_string(static_cast<int32_t>(value.kind));
}

std::string Format(const AttentionStrides& value) {
  return Format(value.batch) + "," + Format(value.row) + "," + Format(value.head);
}

bool Parse(std::string_view text, int64_t* value, std::string* wanted) {
  *wanted = "an integer";
  return ParseInt(text, value);
}
bool Parse(std::string_view text, bool* value, std::string* wanted) {
  *wanted = "0 or 1";
  *value = text == "1";
  return text == "0" || text == "1";
}
bool Parse(std::string_view text, float* value, std::string* wanted) {
  *wanted = "a finite number";
  return ParseFloat(text, value);
}
bool Parse(std::string_view text, DType* v, std::string* w) { return ParseWord(text, v, w, kDTypes); }
bool Parse(std::string_view text, Layout* v, std::string* w) { return ParseWord(text, v, w, kLayouts); }
bool Parse(std::string_view text, WeightLayout* v, std::string* w) { return ParseWord(text, v, w, kWeightLayouts); }
bool Parse(std::string_view text, MatrixLayout* v, std::string* w) { return ParseWord(text, v, w, kMatrixLayouts); }
bool Parse(std::string_view text, Residual* v, std::string* w) { return ParseWord(text, v, w, kResiduals); }
bool Parse(std::string_view text, SeparableOrder* v, std::string* w) { return ParseWord(text, v, w, kOrders); }
bool Parse(std::string_view text, Fusion* v, std::string* w) { return ParseWord(text, v, w, kFusions); }
bool Parse(std::string_view text, Causal* v, std::string* w) { return ParseWord(text, v, w, kCausals); }
bool Parse(std::string_view text, AttentionLayout* v, std::string* w) {
  return ParseWord(text, v, w, kAttentionLayouts);
}

bool Parse(std::string_view text, Activation* value, std::string* wanted) {
  *wanted = "one of";
  for (const auto& w : kActivations) {
    *wanted += std::string(" ") + w.text + (w.parameters == 2 ? "(a,b)" : w.parameters == 1 ? "(a)" : "");
  }
  const size_t open = text.find('(');
  const std::string_view name = text.substr(0, open);
  for (const auto& w : kActivations) {
    if (name != w.text) continue;
    Activation parsed{.kind = w.kind};
    if (w.parameters == 0) {
      *value = parsed;
      return open == std::string_view::npos;
    }
    if (open == std::string_view::npos || text.back() != ')') return false;
    const auto parts = SplitCommas(text.substr(open + 1, text.size() - open - 2));
    if (parts.size() != static_cast<size_t>(w.parameters) || !ParseFloat(parts[0], &parsed.alpha)) return false;
    if (w.parameters == 2 && !ParseFloat(parts[1], &parsed.beta)) return false;
    *value = parsed;
    return true;
  }
  return false;
}

bool Parse(std::string_view text, AttentionStrides* value, std::string* wanted) {
  *wanted = "three integers batch,row,head";
  const auto parts = SplitCommas(text);
  return parts.size() == 3 && ParseInt(parts[0], &value->batch) && ParseInt(parts[1], &value->row) &&
         ParseInt(parts[2], &value->head);
}

std::vector<std::string_view> Words(std::string_view text) {
  std::vector<std::string_view> words;
  constexpr std::string_view kBlanks = " \t\r\n";
  for (size_t begin = text.find_first_not_of(kBlanks); begin != std::string_view::npos;) {
    const size_t end = text.find_first_of(kBlanks, begin);
    words.push_back(text.substr(begin, end == std::string_view::npos ? end : end - begin));
    begin = text.find_first_not_of(kBlanks, end);
  }
  return words;
}

std::string Got(std::initializer_list<std::pair<const char*, int64_t>> values) {
  std::string out = "got";
  for (const auto& [name, value] : values) out += std::string(" ") + name + "=" + std::to_string(value);
  return out;
}

}  // namespace text

int64_t CheckedProduct(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (int64_t f : factors) {
    if (f < 0 || __builtin_mul_overflow(product, f, &product)) return -1;
  }
  return product > INT64_MAX / 16 ? -1 : product;
}

}  // namespace lamina
