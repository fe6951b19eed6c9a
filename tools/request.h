// What the subcommands' common options ask for: problems, and where to run them.
#ifndef LAMINA_TOOLS_REQUEST_H_
#define LAMINA_TOOLS_REQUEST_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "harness/network.h"
#include "lamina/context.h"
#include "lamina/machine.h"

namespace lamina::tools {

// Problems: as arguments, of a file, of a network, of the suite.
struct ProblemOptions {
  std::vector<std::string> words;
  std::string file, network;
  double width = 1;
  int64_t resolution = 0;
  bool suite = false;
  std::string form = "as_written";

  void Add(CLI::App& command);
  void AddNetwork(CLI::App& command);  // --network, --width and --resolution alone
  // All of them, in that order; refuses an empty request.
  Result<harness::Network> Load() const;
};

// The layers' names for a table; a problem without one becomes "#<its place>", and its text is printed.
std::vector<std::string> ShortNames(const harness::Network& network);

// Refuses a --seconds of nothing or of more than an hour.
Status CheckSeconds(double seconds);

struct ContextOptions {
  std::string backend = "cpu", isa = "best", accuracy = "default", implementation;
  int64_t threads = 0;
  bool threads_given = false, spin = false;

  void Add(CLI::App& command);
  void AddThreads(CLI::App& command);
  void AddChoice(CLI::App& command);  // --accuracy and --isa
  // A context and the pool in it, which lives as long as the process.
  Result<Context> Make() const;
};

// The machine whose roofs percentages refer to: of a file, else measured now, which takes a second or two.
struct MachineOptions {
  std::string file;

  void Add(CLI::App& command);
  Result<Machine> Make(ThreadPool& pool) const;
};

Result<std::string> ReadFile(const std::string& path);
// "-" is the standard output.
Status WriteFile(const std::string& path, const std::string& text);

// Says on the standard error when other programs keep the CPUs busy: what is timed now means little.
void WarnWhenBusy();

// Says on the standard error what is wrong with the request; returns 2.
int Wrong(const Status& status);

// One line on the standard error that follows the work: on a terminal each replaces the one before.
class Progress {
 public:
  Progress();
  ~Progress();
  void Show(const std::string& line);
  void Clear();

 private:
  bool terminal_;
};

}  // namespace lamina::tools

#endif  // LAMINA_TOOLS_REQUEST_H_
