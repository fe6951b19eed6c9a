// Results in Google Benchmark's JSON format, so that its tools (compare.py) and everybody's plots read them.
#ifndef LAMINA_TOOLS_JSON_REPORT_H_
#define LAMINA_TOOLS_JSON_REPORT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "harness/measure.h"
#include "lamina/cost.h"
#include "lamina/machine.h"

namespace lamina::tools {

class JsonReport {
 public:
  JsonReport(const Machine& machine, int threads, Isa isa);
  // A row: the time, and what follows from it and the cost. More fields may be added to what is returned.
  nlohmann::ordered_json& Add(const std::string& name, const std::string& implementation, const harness::Timing& timing,
                              const Cost& cost, int64_t count = 1);
  nlohmann::ordered_json& context() { return json_["context"]; }
  std::string ToString() const { return json_.dump(2) + "\n"; }

 private:
  Machine machine_;
  int threads_;
  nlohmann::ordered_json json_;
};

// A cost's counts as JSON fields.
nlohmann::ordered_json CostJson(const Cost& cost);
nlohmann::ordered_json MachineJson(const Machine& machine);

}  // namespace lamina::tools

#endif  // LAMINA_TOOLS_JSON_REPORT_H_
