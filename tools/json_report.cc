#include "tools/json_report.h"

#include <unistd.h>

#include <cstdlib>
#include <ctime>

#include "harness/roof.h"

namespace lamina::tools {
namespace {

std::string Now() {
  const std::time_t now = std::time(nullptr);
  std::tm local;
  char text[64];
  localtime_r(&now, &local);
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S%z", &local);
  return text;
}

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

}  // namespace

nlohmann::ordered_json MachineJson(const Machine& m) {
  nlohmann::ordered_json json = {{"cpu", m.cpu}, {"threads", m.threads}};
  for (int i = 1; i < kIsaCount; ++i) {
    if (m.gflops_one[i] <= 0) continue;
    json["gflops"][std::string(ToString(static_cast<Isa>(i)))] = {{"one_thread", m.gflops_one[i]},
                                                                  {"all_threads", m.gflops_all[i]}};
  }
  const auto level = [](const Machine::Level& l) {
    return nlohmann::ordered_json{
        {"bytes", l.bytes}, {"gbps_one_thread", l.gbps_one}, {"gbps_all_threads", l.gbps_all}};
  };
  json["levels"] = {{"L1", level(m.l1)}, {"L2", level(m.l2)}, {"L3", level(m.l3)}, {"memory", level(m.memory)}};
  return json;
}

JsonReport::JsonReport(const Machine& machine, int threads, Isa isa)
    : machine_(harness::LimitedTo(machine, isa)), threads_(threads) {
  const Isa used = isa == Isa::kBest ? SupportedIsas().front() : isa;
  double load[3] = {};
  getloadavg(load, 3);
  const auto cache = [](const char* type, int level, const Machine::Level& l) {
    return nlohmann::ordered_json{{"type", type}, {"level", level}, {"size", l.bytes}, {"num_sharing", 1}};
  };
  json_["context"] = {
      {"date", Now()},
      {"host_name", HostName()},
      {"executable", "lamina"},
      {"num_cpus", static_cast<int64_t>(sysconf(_SC_NPROCESSORS_ONLN))},
      {"mhz_per_cpu", 0},
      {"cpu_scaling_enabled", false},
      {"caches", {cache("Data", 1, machine.l1), cache("Unified", 2, machine.l2), cache("Unified", 3, machine.l3)}},
      {"load_avg", load},
      {"library_build_type", "release"},
      {"threads", threads},
      {"isa", std::string(lamina::ToString(used))},
      {"machine", MachineJson(machine)},
      {"roof_gflops", machine_.Gflops(Isa::kBest, threads)}};
  json_["benchmarks"] = nlohmann::ordered_json::array();
}

nlohmann::ordered_json CostJson(const Cost& cost) {
  return {{"macs", cost.macs},
          {"flops", cost.flops()},
          {"transcendentals", cost.transcendentals},
          {"params", cost.params},
          {"weight_bytes", cost.weight_bytes},
          {"activation_bytes", cost.activation_bytes},
          {"arithmetic_intensity", cost.arithmetic_intensity()}};
}

nlohmann::ordered_json& JsonReport::Add(const std::string& name, const std::string& implementation,
                                        const harness::Timing& timing, const Cost& cost, int64_t count) {
  const double ns = timing.median();
  const harness::RoofShare share = harness::ShareOfRoof(cost, ns, machine_, threads_);
  nlohmann::ordered_json row = {{"name", name},
                                {"run_name", name},
                                {"run_type", "iteration"},
                                {"repetitions", 1},
                                {"repetition_index", 0},
                                {"threads", threads_},
                                {"iterations", timing.calls},
                                {"real_time", ns * 1e-3},
                                {"cpu_time", ns * 1e-3},
                                {"time_unit", "us"},
                                {"label", implementation},
                                {"count", count},
                                {"min_time", timing.min() * 1e-3},
                                {"gflops", static_cast<double>(cost.flops()) / ns},
                                {"gbps", static_cast<double>(cost.bytes()) / ns},
                                {"percent_of_roof", share.percent},
                                {"roof", share.roof}};
  row.update(CostJson(cost));
  json_["benchmarks"].push_back(std::move(row));
  return json_["benchmarks"].back();
}

}  // namespace lamina::tools
