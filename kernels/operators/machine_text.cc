// The text form of a Machine, one field a line, # comments:
//   cpu=Intel AVX-512 server (Intel(R) Xeon(R) Processor)
//   threads=2
//   gflops_AVX3=175,350          one thread, all together; a line per SIMD target that the CPU runs
//   l1=49152,410,820             bytes, GB/s of one thread, of all together; also l2, l3, memory
#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>

#include "kernels/operators/text.h"
#include "lamina/machine.h"

namespace lamina {
namespace {

constexpr std::string_view kBlanks = " \t\r";

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

std::string Format(double value) {
  char buffer[32];  // the shortest text that reads back as the same number
  return std::string(buffer, std::to_chars(buffer, buffer + sizeof(buffer), value).ptr);
}

// `count` positive numbers between commas.
bool ParseNumbers(std::string_view text, size_t count, double* values) {
  for (size_t i = 0; i < count; ++i) {
    const size_t comma = i + 1 < count ? text.find(',') : text.size();
    if (comma == std::string_view::npos) return false;
    const std::string_view part = Trim(text.substr(0, comma));
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), values[i]);
    if (error != std::errc() || end != part.data() + part.size()) return false;
    if (!std::isfinite(values[i]) || values[i] <= 0) return false;
    text.remove_prefix(std::min(text.size(), comma + 1));
  }
  return true;
}

struct LevelName {
  const char* name;
  Machine::Level Machine::*level;
};
constexpr LevelName kLevels[] = {
    {"l1", &Machine::l1}, {"l2", &Machine::l2}, {"l3", &Machine::l3}, {"memory", &Machine::memory}};

// Sets the field `name` of `m`; says what would be right when `value` is not, or that there is no such field.
std::string SetField(Machine& m, std::string_view name, std::string_view value) {
  const std::string got = ", got \"" + std::string(value) + "\"";
  if (name == "cpu") {
    m.cpu = value;
    return value.empty() ? "field cpu wants a name" : "";
  }
  double v[3];
  if (name == "threads") {
    const bool ok = ParseNumbers(value, 1, v) && v[0] == std::floor(v[0]) && v[0] <= 1 << 20;
    m.threads = ok ? static_cast<int>(v[0]) : 1;
    return ok ? "" : "field threads wants a whole number of at least 1" + got;
  }
  for (int i = 1; i < kIsaCount; ++i) {
    if (name != "gflops_" + std::string(ToString(static_cast<Isa>(i)))) continue;
    if (!ParseNumbers(value, 2, v)) {
      return "field " + std::string(name) + " wants two positive numbers, of one thread and of all" + got;
    }
    m.gflops_one[i] = v[0];
    m.gflops_all[i] = v[1];
    return "";
  }
  for (const LevelName& l : kLevels) {
    if (name != l.name) continue;
    if (!ParseNumbers(value, 3, v) || v[0] != std::floor(v[0]) || v[0] > 0x1p60) {
      return "field " + std::string(name) + " wants bytes, GB/s of one thread and GB/s of all, three positive numbers" +
             got;
    }
    m.*l.level = {static_cast<int64_t>(v[0]), v[1], v[2]};
    return "";
  }
  return "unknown field \"" + std::string(name) +
         "\", the fields are cpu threads gflops_scalar gflops_SSE4 gflops_AVX2 gflops_AVX3 l1 l2 l3 memory";
}

}  // namespace

std::string ToString(const Machine& m) {
  std::string out = "cpu=" + m.cpu + "\nthreads=" + std::to_string(m.threads) + "\n";
  for (int i = 1; i < kIsaCount; ++i) {
    if (m.gflops_one[i] <= 0) continue;
    out += "gflops_" + std::string(ToString(static_cast<Isa>(i))) + "=" + Format(m.gflops_one[i]) + "," +
           Format(m.gflops_all[i]) + "\n";
  }
  for (const LevelName& l : kLevels) {
    const Machine::Level& level = m.*l.level;
    out += std::string(l.name) + "=" + std::to_string(level.bytes) + "," + Format(level.gbps_one) + "," +
           Format(level.gbps_all) + "\n";
  }
  return out;
}

Result<Machine> ParseMachine(std::string_view text) {
  Machine m;
  m.threads = 0;
  std::vector<std::string_view> seen;
  for (int line_number = 1; !text.empty(); ++line_number) {
    const size_t newline = text.find('\n');
    std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    line = Trim(line);
    if (line.empty() || line[0] == '#') continue;
    const auto refuse = [&](const std::string& sentence) {
      return InvalidArgument("machine: line " + std::to_string(line_number) + ": " + sentence);
    };
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos)
      return refuse("fields are written name=value, got \"" + std::string(line) + "\"");
    const std::string_view name = Trim(line.substr(0, equals)), value = Trim(line.substr(equals + 1));
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
      return refuse("field " + std::string(name) + " is given twice");
    }
    seen.push_back(name);
    if (std::string wrong = SetField(m, name, value); !wrong.empty()) return refuse(wrong);
  }
  for (const char* name : {"cpu", "threads", "l1", "l2", "l3", "memory"}) {
    if (std::find(seen.begin(), seen.end(), name) == seen.end()) {
      return InvalidArgument("machine: field " + std::string(name) + " is missing");
    }
  }
  if (m.l1.bytes > m.l2.bytes || m.l2.bytes > m.l3.bytes || m.l3.bytes > m.memory.bytes) {
    return InvalidArgument(
        "machine: l1, l2, l3 and memory must not shrink from one to the next, " +
        text::Got({{"l1", m.l1.bytes}, {"l2", m.l2.bytes}, {"l3", m.l3.bytes}, {"memory", m.memory.bytes}}));
  }
  for (int i = kIsaCount - 1; i > 0 && m.gflops_one[0] == 0; --i) {  // the widest one that it has
    m.gflops_one[0] = m.gflops_one[i];
    m.gflops_all[0] = m.gflops_all[i];
  }
  if (m.gflops_one[0] == 0) return InvalidArgument("machine: at least one field gflops_<SIMD target> must be given");
  return m;
}

}  // namespace lamina
