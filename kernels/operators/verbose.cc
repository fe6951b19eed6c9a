#include "kernels/operators/verbose.h"

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lamina::verbose {
namespace {

const char* Name(Event event) {
  switch (event) {
    case Event::kPrepare: return "prepare";
    case Event::kReshape: return "reshape";
    case Event::kRun: return "run";
    case Event::kPrepareKeys: return "prepare_keys";
  }
  return "";
}

const char* Name(StatusCode code) {
  switch (code) {
    case StatusCode::kOk: return "ok";
    case StatusCode::kInvalidArgument: return "invalid_argument";
    case StatusCode::kNotBuilt: return "not_built";
    case StatusCode::kUnsupportedHardware: return "unsupported_hardware";
    case StatusCode::kOutOfMemory: return "out_of_memory";
    case StatusCode::kDeviceError: return "device_error";
  }
  return "";
}

// Problems in the order of their first run, and how often each has run.
class Record {
 public:
  explicit Record(std::string path) : path_(std::move(path)) {}

  void Count(const std::string& problem) {
    const std::lock_guard lock(mutex_);
    const auto [known, is_new] = index_.emplace(problem, problems_.size());
    if (!is_new) {
      ++problems_[known->second].runs;
      return;
    }
    problems_.push_back({problem, 1});
    Write();
  }
  void WriteAtEnd() {
    const std::lock_guard lock(mutex_);
    if (!problems_.empty()) Write();
  }

 private:
  struct Problem {
    std::string text;
    int64_t runs;
  };

  void Write() {
    if (failed_) return;
    std::FILE* file = std::fopen(path_.c_str(), "w");
    bool written = file != nullptr;
    if (written) {
      std::fputs("# Problems in the order of their first run, each with the number of its runs.\n", file);
      for (size_t i = 0; i < problems_.size(); ++i) {
        std::fprintf(file, "p%zu x%lld: %s\n", i + 1, static_cast<long long>(problems_[i].runs),
                     problems_[i].text.c_str());
      }
      written = std::ferror(file) == 0;
      written = std::fclose(file) == 0 && written;
    }
    if (written) return;
    failed_ = true;
    std::fprintf(stderr, "lamina: LAMINA_VERBOSE: cannot write %s: %s\n", path_.c_str(), std::strerror(errno));
  }

  std::mutex mutex_;
  std::string path_;
  bool failed_ = false;
  std::vector<Problem> problems_;
  std::unordered_map<std::string, size_t> index_;
};

struct Settings {
  bool lines = false;
  Record* record = nullptr;
};

Settings Read() {
  constexpr std::string_view kRecord = "record:";
  const char* value = std::getenv("LAMINA_VERBOSE");
  const std::string_view text = value == nullptr ? "" : value;
  if (text.empty() || text == "0") return {};
  if (text == "1") {
    std::fputs("lamina_verbose,event,implementation,problem,threads,status,milliseconds\n", stderr);
    return {.lines = true};
  }
  if (text.size() > kRecord.size() && text.substr(0, kRecord.size()) == kRecord) {
    // Lives on: operators may run in the destructors of static objects.
    static auto* const record = new Record(std::string(text.substr(kRecord.size())));
    std::atexit([] { record->WriteAtEnd(); });
    return {.record = record};
  }
  std::fprintf(stderr, "lamina: LAMINA_VERBOSE must be 0, 1 or record:FILE, got \"%s\"\n", value);
  return {};
}

const Settings& TheSettings() {
  static const Settings settings = Read();
  return settings;
}

}  // namespace

bool On() { return TheSettings().lines || TheSettings().record != nullptr; }

void Tell(Event event, std::string_view implementation, const std::string& problem, size_t threads,
          const Status& status, double milliseconds) {
  if (TheSettings().lines) {  // in one write, so that threads' lines do not mix
    std::fprintf(stderr, "lamina_verbose,%s,%.*s,\"%s\",%zu,%s,%.6f\n", Name(event),
                 static_cast<int>(implementation.size()), implementation.data(), problem.c_str(), threads,
                 Name(status.code()), milliseconds);
  }
  if (TheSettings().record != nullptr && event == Event::kRun && status.ok()) TheSettings().record->Count(problem);
}

}  // namespace lamina::verbose
