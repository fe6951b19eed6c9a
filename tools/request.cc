#include "tools/request.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "harness/form.h"
#include "lamina/problem.h"
#include "tools/table.h"

namespace lamina::tools {
namespace {

void Append(harness::Network& all, harness::Network&& part) {
  all.layers.insert(all.layers.end(), part.layers.begin(), part.layers.end());
  all.extras.insert(all.extras.end(), part.extras.begin(), part.extras.end());
  if (part.width_rule != harness::WidthRule::kNone) all.width_rule = part.width_rule;
  if (part.resolution != 0) all.resolution = part.resolution;
}

// Whether a new problem begins with this word: only a problem's first one has no equals sign.
bool BeginsProblem(const std::string& word) { return word.find('=') == std::string::npos; }

// The problems among the words of the command line, each of which may have been quoted as one argument or not.
Result<harness::Network> ParseWords(const std::vector<std::string>& arguments) {
  std::string lines;
  for (const std::string& argument : arguments) {
    std::istringstream words(argument);
    for (std::string word; words >> word;) {
      if (!lines.empty()) lines += BeginsProblem(word) ? '\n' : ' ';
      lines += word;
    }
  }
  harness::Network network;
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) {
    const auto problem = ParseProblem(line);
    if (!problem.ok()) return problem.status();
    if (Status s = ValidateProblem(*problem); !s.ok()) return s;
    network.layers.push_back({ToString(*problem), 1, *problem});
  }
  return network;
}

}  // namespace

void ProblemOptions::AddNetwork(CLI::App& command) {
  command.add_option("--network", network,
                     "a network's layers: bahdanau, bert_base, gpt2_small, mobilenet_v1, "
                     "mobilenet_v2, resnet_50, xception");
  command.add_option("--width", width, "the network's width multiplier");
  command.add_option("--resolution", resolution, "the network's image height and width")
      ->check([](const std::string& text) { return text == "0" ? "resolution must be at least 1, got 0" : ""; });
}

void ProblemOptions::Add(CLI::App& command) {
  command.add_option("problem", words, "problems: an operator's name and field=value words (see include/lamina)");
  command.add_option("--batch", file, "a file of problems, a line each: \"name: conv2d ih=...\", # comments");
  AddNetwork(command);
  command.add_flag("--suite", suite, "the rows of bench/suite.txt");
  command.add_option("--form", form, "convolution blocks as: as_written, standard, dw_pw, pw_dw")
      ->capture_default_str();
}

Result<harness::Network> ProblemOptions::Load() const {
  harness::Network all;
  if (network.empty() && (width != 1 || resolution != 0)) {
    return InvalidArgument("--width and --resolution are of a network: give --network NAME");
  }
  if (!words.empty()) {
    auto part = ParseWords(words);
    if (!part.ok()) return part.status();
    Append(all, std::move(*part));
  }
  if (!file.empty()) {
    const auto text = ReadFile(file);
    if (!text.ok()) return text.status();
    auto part = harness::ParseNetwork(*text, file);
    if (!part.ok()) return part.status();
    Append(all, std::move(*part));
  }
  if (!network.empty()) {
    const auto base = harness::LoadNetwork(network);
    if (!base.ok()) return base.status();
    auto part = harness::Scale(*base, width, resolution);
    if (!part.ok()) return part.status();
    Append(all, std::move(*part));
  }
  if (suite) {
    auto part = harness::LoadSuite();
    if (!part.ok()) return part.status();
    Append(all, std::move(*part));
  }
  if (all.layers.empty()) {
    return InvalidArgument("no problem given: write one as arguments, or use --batch FILE, --network NAME or --suite");
  }
  const auto parsed_form = harness::ParseForm(form);
  if (!parsed_form.ok()) return InvalidArgument("--" + parsed_form.status().message());
  return harness::InForm(all, *parsed_form);
}

std::vector<std::string> ShortNames(const harness::Network& network) {
  std::vector<std::string> names;
  for (const harness::Layer& layer : network.layers) {
    const std::string text = ToString(layer.problem);
    const bool unnamed = layer.name == text;
    names.push_back(unnamed ? "#" + std::to_string(names.size() + 1) : layer.name);
    if (unnamed) std::printf("%s: %s\n", names.back().c_str(), text.c_str());
  }
  return names;
}

Status CheckSeconds(double seconds) {
  if (seconds > 0 && seconds <= 3600) return {};
  return InvalidArgument("--seconds must be more than 0 and at most 3600, got " + Fixed(seconds, 3));
}

void ContextOptions::AddThreads(CLI::App& command) {
  command.add_option("--threads", threads, "threads to run on; all that this process may use unless given")
      ->each([this](const std::string&) { threads_given = true; });
  command.add_flag("--spin", spin, "idle threads wait busily instead of sleeping, as OpenMP's do");
}

void ContextOptions::AddChoice(CLI::App& command) {
  command.add_option("--accuracy", accuracy, "which algorithms may be chosen: default, strict or reduced")
      ->capture_default_str();
  command.add_option("--isa", isa, "SIMD target: AVX3, AVX2, SSE4, scalar, or best");
}

void ContextOptions::Add(CLI::App& command) {
  command.add_option("--backend", backend, "cpu or reference")->capture_default_str();
  command.add_option("--implementation", implementation, "this candidate instead of the one with the best prediction");
  AddChoice(command);
  AddThreads(command);
}

Result<Context> ContextOptions::Make() const {
  const auto parsed_backend = ParseBackend(backend);
  if (!parsed_backend.ok()) return parsed_backend.status();
  const auto parsed_isa = ParseIsa(isa);
  if (!parsed_isa.ok()) return parsed_isa.status();
  const auto parsed_accuracy = ParseAccuracy(accuracy);
  if (!parsed_accuracy.ok()) return parsed_accuracy.status();
  if (threads_given && (threads < 1 || threads > 4096)) {
    return InvalidArgument("--threads must be between 1 and 4096, got " + std::to_string(threads));
  }
  auto pool = MakeThreadPool(threads_given ? static_cast<size_t>(threads) : AvailableThreads(),
                             spin ? Idle::kSpin : Idle::kSleep);
  if (!pool.ok()) return pool.status();
  static std::vector<std::unique_ptr<ThreadPool>> pools;  // as long as the program: contexts are copied freely
  pools.push_back(*std::move(pool));
  return Context{.backend = *parsed_backend,
                 .isa = *parsed_isa,
                 .accuracy = *parsed_accuracy,
                 .pool = pools.back().get(),
                 .implementation = implementation};
}

void MachineOptions::Add(CLI::App& command) {
  command.add_option("--machine", file, "take the roofs from this file of `lamina roof --save`; measured unless given");
}

Result<Machine> MachineOptions::Make(ThreadPool& pool) const {
  if (file.empty()) return MeasureMachine(pool);
  const auto text = ReadFile(file);
  if (!text.ok()) return text.status();
  auto machine = ParseMachine(*text);
  if (!machine.ok()) return InvalidArgument(file + ": " + machine.status().message());
  return machine;
}

Result<std::string> ReadFile(const std::string& path) {
  std::string text;
  std::FILE* file = std::fopen(path.c_str(), "rb");
  bool read = file != nullptr;
  if (read) {
    char buffer[1 << 14];
    for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), file)) > 0;) text.append(buffer, n);
    read = std::ferror(file) == 0;  // a directory opens, and fails here
  }
  const int error = errno;
  if (file != nullptr) std::fclose(file);
  if (!read) return InvalidArgument("cannot read " + path + ": " + std::strerror(error));
  return text;
}

void WarnWhenBusy() {
  double load = 0;
  if (getloadavg(&load, 1) != 1) return;
  const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  if (load <= static_cast<double>(cpus) / 2 + 0.5) return;
  std::fprintf(stderr,
               "note: this machine is busy (load average %.1f on %ld CPUs): times will be longer than they need be\n",
               load, cpus);
}

Status WriteFile(const std::string& path, const std::string& text) {
  std::FILE* file = path == "-" ? stdout : std::fopen(path.c_str(), "wb");
  if (file == nullptr) return InvalidArgument("cannot write " + path + ": " + std::strerror(errno));
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool closed = file == stdout ? std::fflush(file) == 0 : std::fclose(file) == 0;
  if (!written || !closed) return InvalidArgument("cannot write " + path + ": " + std::strerror(errno));
  return {};
}

int Wrong(const Status& status) {
  std::fprintf(stderr, "lamina: %s\n", status.message().c_str());
  return 2;
}

Progress::Progress() : terminal_(isatty(STDERR_FILENO)) {}
Progress::~Progress() { Clear(); }
void Progress::Clear() {
  if (terminal_) std::fprintf(stderr, "\r\033[K");
}
void Progress::Show(const std::string& line) {
  std::fprintf(stderr, terminal_ ? "\r\033[K%.100s" : "%s\n", line.c_str());
}

}  // namespace lamina::tools
