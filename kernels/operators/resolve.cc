#include "kernels/operators/resolve.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "kernels/cpu/thread_pool.h"
#include "kernels/operators/backends.h"
#include "lamina/machine.h"

namespace lamina {
namespace {

constexpr std::string_view kIsaNames[kIsaCount] = {"best", "scalar", "SSE4", "AVX2", "AVX3"};
constexpr std::string_view kBackendNames[] = {"cpu", "reference", "cuda"};
constexpr std::string_view kAccuracyNames[] = {"default", "strict", "reduced"};

std::string Lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

// LAMINA_MACHINE's file, read once; null when the variable is not set.
const Result<Machine>* MachineFromEnvironment() {
  static const Result<Machine>* const machine = []() -> const Result<Machine>* {
    const char* path = std::getenv("LAMINA_MACHINE");
    if (path == nullptr || *path == '\0') return nullptr;
    std::ifstream in(path);
    if (!in) return new Result<Machine>(InvalidArgument(std::string("LAMINA_MACHINE: cannot read the file ") + path));
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    return new Result<Machine>(ParseMachine(text));
  }();
  return machine;
}

}  // namespace

std::string_view ToString(Isa isa) {
  const auto i = static_cast<size_t>(isa);
  return i < kIsaCount ? kIsaNames[i] : "unknown";
}

std::string_view ToString(Backend backend) {
  const auto i = static_cast<size_t>(backend);
  return i < std::size(kBackendNames) ? kBackendNames[i] : "unknown";
}

std::string_view ToString(Accuracy accuracy) {
  const auto i = static_cast<size_t>(accuracy);
  return i < std::size(kAccuracyNames) ? kAccuracyNames[i] : "unknown";
}

Result<Isa> ParseIsa(std::string_view text) {
  for (int i = 0; i < kIsaCount; ++i) {
    if (Lower(text) == Lower(kIsaNames[i])) return static_cast<Isa>(i);
  }
  return InvalidArgument("isa must be one of best scalar SSE4 AVX2 AVX3, got \"" + std::string(text) + "\"");
}

Result<Backend> ParseBackend(std::string_view text) {
  for (size_t i = 0; i < std::size(kBackendNames); ++i) {
    if (Lower(text) == kBackendNames[i]) return static_cast<Backend>(i);
  }
  return InvalidArgument("backend must be one of cpu reference cuda, got \"" + std::string(text) + "\"");
}

Result<Accuracy> ParseAccuracy(std::string_view text) {
  for (size_t i = 0; i < std::size(kAccuracyNames); ++i) {
    if (Lower(text) == kAccuracyNames[i]) return static_cast<Accuracy>(i);
  }
  return InvalidArgument("accuracy must be one of default strict reduced, got \"" + std::string(text) + "\"");
}

Result<Context> Resolve(const Context& asked) {
  Context context = asked;
  if (static_cast<size_t>(asked.backend) >= std::size(kBackendNames)) {
    return InvalidArgument("context: backend must be a member of Backend, got " +
                           std::to_string(static_cast<int>(asked.backend)));
  }
  if (static_cast<size_t>(asked.isa) >= kIsaCount) {
    return InvalidArgument("context: isa must be a member of Isa, got " + std::to_string(static_cast<int>(asked.isa)));
  }
  if (static_cast<size_t>(asked.accuracy) >= std::size(kAccuracyNames)) {
    return InvalidArgument("context: accuracy must be a member of Accuracy, got " +
                           std::to_string(static_cast<int>(asked.accuracy)));
  }
  if (asked.backend == Backend::kCuda) {
    if (Status s = cuda::Available(asked.stream); !s.ok()) return s;
  }
  const std::vector<Isa> supported = SupportedIsas();
  if (asked.isa == Isa::kBest) {
    context.isa = supported.front();
  } else if (std::find(supported.begin(), supported.end(), asked.isa) == supported.end()) {
    const std::vector<Isa> compiled = UnsupportedIsas();
    const bool built = std::find(compiled.begin(), compiled.end(), asked.isa) != compiled.end();
    return Status{built ? StatusCode::kUnsupportedHardware : StatusCode::kNotBuilt,
                  "context: isa " + std::string(ToString(asked.isa)) +
                      (built ? " does not run on this CPU" : " is not compiled into this library") +
                      ", the widest that does is " + std::string(ToString(supported.front()))};
  }
  if (context.machine == nullptr) {
    const Result<Machine>* machine = MachineFromEnvironment();
    if (machine != nullptr && !machine->ok()) return machine->status();
    context.machine = machine != nullptr ? &**machine : &BuiltInMachine();
  }
  if (context.pool == nullptr) context.pool = &cpu::DefaultThreadPool();
  if (context.pool->num_threads() == 0) {
    return InvalidArgument("context: pool must have at least one thread, got num_threads()=0");
  }
  return context;
}

Context OnOneThread(const Context& context) {
  class OneThread final : public ThreadPool {
    size_t num_threads() const override { return 1; }
    void ParallelFor(size_t count, void (*task)(void*, size_t), void* arg) override {
      for (size_t i = 0; i < count; ++i) task(arg, i);
    }
  };
  static OneThread pool;
  Context one = context;
  one.pool = &pool;
  return one;
}

bool StaysInOneThread(const Context& context, double predicted_ns) {
  const auto threads = static_cast<double>(context.pool->num_threads());
  return predicted_ns * (threads - 1) / threads < context.pool->handoff_ns();
}

std::string ImplementationName(const Context& context, std::string_view candidate) {
  std::string name(ToString(context.backend));
  if (context.backend == Backend::kCpu) name += "/" + std::string(ToString(context.isa));
  return name + "/" + std::string(candidate);
}

Result<size_t> Choose(const std::string& desc, const Context& context, const std::vector<CandidateReport>& reports) {
  size_t best = reports.size();
  std::string reasons;
  for (size_t i = 0; i < reports.size(); ++i) {
    const CandidateReport& r = reports[i];
    if (!context.implementation.empty()) {
      const std::string last = r.name.substr(r.name.rfind('/') + 1);
      if (context.implementation != r.name && context.implementation != last) {
        reasons += "; " + r.name + " was not asked for";
        continue;
      }
    }
    if (!r.accepted) {
      reasons += "; " + r.name + " refused: " + r.reason;
    } else if (best == reports.size() || r.predicted_ns < reports[best].predicted_ns) {
      best = i;
    }
  }
  if (best < reports.size()) return best;
  const std::string wanted = context.implementation.empty()
                                 ? "no implementation takes this"
                                 : "implementation \"" + context.implementation + "\" cannot be had";
  return Status{context.implementation.empty() ? StatusCode::kNotBuilt : StatusCode::kInvalidArgument,
                desc + ": " + wanted + reasons};
}

std::string ExplainReports(const std::vector<CandidateReport>& reports, std::string_view chosen) {
  std::string out;
  for (const CandidateReport& r : reports) {
    char line[64] = "";
    if (r.accepted) std::snprintf(line, sizeof(line), "predicted %.3g us", r.predicted_ns * 1e-3);
    out += (r.name == chosen ? "* " : "  ") + r.name + std::string(r.name.size() < 36 ? 36 - r.name.size() : 1, ' ') +
           (r.accepted ? line : "refused: " + r.reason) + "\n";
  }
  return out;
}

}  // namespace lamina
