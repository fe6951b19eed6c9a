// The parity check of any operator: every candidate on every SIMD target against the reference.
//
// For each target, candidate, fill, guard side and number of threads: weights and inputs between guard pages and made
// read-only, outputs poisoned, Run, every output element compared, what lies between the rows of a sliced output
// unchanged, and the bits equal for every number of threads. An operator supplies Case<Op> in harness/<op>.h.
#ifndef LAMINA_HARNESS_PARITY_H_
#define LAMINA_HARNESS_PARITY_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "harness/compare.h"
#include "harness/gpu.h"
#include "harness/guarded.h"
#include "lamina/context.h"
#include "lamina/status.h"

namespace lamina::harness {

enum class Fill {
  kExact,   // nonzero integers up to 4 (and what the operator needs to keep every sum exact): tolerance 0
  kNormal,  // N(0, 1): tolerance by bound
};

// The tensors of one case, owned between guard pages.
class TensorStore {
 public:
  TensorStore(Fill fill, Guard guard, uint64_t seed) : fill_(fill), guard_(guard), seed_(seed) {}
  Fill fill() const { return fill_; }
  // For timing: nothing that is left to run time and optional, no key lengths, no extra outputs.
  bool plain() const { return guard_ == Guard::kScattered; }

  // An input of `count` floats by the fill. Each call continues one random sequence, so inputs differ.
  // scale multiplies kNormal values.
  float* Input(int64_t count, double scale = 1.0);
  // The same as elements of any dtype, rounded to it.
  void* Input(DType dtype, int64_t count, double scale = 1.0);
  // An input holding these bytes.
  template <class T>
  T* Input(const std::vector<T>& values) {
    T* data = static_cast<T*>(Allocate(values.size() * sizeof(T)));
    if (!values.empty()) std::memcpy(data, values.data(), values.size() * sizeof(T));
    inputs_.push_back(&all_.back());
    return data;
  }
  // An output of `count` floats, all NaN of one pattern until written; and one of any dtype.
  float* Output(int64_t count);
  void* Output(DType dtype, int64_t count);

  uint64_t Random();                   // uniform over 64 bits
  int64_t RandomBelow(int64_t bound);  // uniform in [0, bound)
  double RandomNormal();

  void ProtectInputs();
  void PoisonOutputs();
  // All outputs' bytes, for comparing runs bit for bit.
  std::vector<std::byte> OutputBytes() const;
  struct Region {
    std::byte* data;
    int64_t count;
    DType dtype;
    int64_t element() const { return static_cast<int64_t>(SizeOf(dtype)); }
    bool poisoned(int64_t i) const;  // element i holds what it held before the run
  };
  const std::vector<Region>& outputs() const { return outputs_; }

  // NaNs that no kernel produces.
  static constexpr uint32_t kPoison = 0x7fc0de5a;
  static constexpr uint16_t kNarrowPoison = 0x7fd5;  // of bf16 and of f16

 private:
  void* Allocate(size_t bytes);

  Fill fill_;
  Guard guard_;
  uint64_t seed_;
  std::deque<Guarded> all_;
  std::vector<Guarded*> inputs_;
  std::vector<Region> outputs_;
};

// Specialised per operator, constructed as Case(desc, store):
//   Weights weights; Tensors tensors;         in the store
//   static bool Exact(desc)                   whether the exact fill's outputs are exact for this descriptor
//   std::vector<Expected> Reference() const   want and tolerance of every output; called after the inputs are made;
//                                             takes an Accuracy where the operator has candidates of several
//   static Status RunOnce(const Op&, const Tensors&, void* scratch)  usually op.Run; PrepareKeys and the like go here
template <class Op>
class Case;

// What a candidate of this accuracy should give.
template <class Op>
std::vector<Expected> ReferenceFor(const Case<Op>& c, Accuracy accuracy) {
  if constexpr (requires { c.Reference(accuracy); }) {
    return c.Reference(accuracy);
  } else {
    return c.Reference();
  }
}

struct ParityOptions {
  Backend backend = Backend::kCpu;
  std::vector<Isa> isas = {};               // empty: every supported one; of the CPU backend
  std::vector<size_t> threads = {1, 2, 3};  // the first is compared with the reference, the others bit for bit with it
  std::string implementation = {};          // empty: every candidate
  std::optional<Accuracy> accuracy = {};    // whose tolerance holds; empty: the candidate's own
  uint64_t seed = 1;
  // The runs: what tensors hold, and on which side of them the inaccessible page lies.
  std::vector<std::pair<Fill, Guard>> tensors = {{Fill::kExact, Guard::kEnd},
                                                 {Fill::kExact, Guard::kBegin},
                                                 {Fill::kNormal, Guard::kEnd},
                                                 {Fill::kNormal, Guard::kBegin}};
};

struct ParityReport {
  int passed = 0, failed = 0, refused = 0;  // counted per target x candidate
  double worst = 0;                         // largest error / tolerance seen
  std::vector<std::string> failures;        // "<desc> on <implementation>: <what>"
  std::vector<std::string> refusals;        // "<desc> on <implementation>: <reason>"
  ParityReport& operator+=(const ParityReport& other);
};

// Pools of 1, 2, 3 .. threads that live as long as the process and take every work, small as it is.
ThreadPool& PoolOf(size_t threads);

// Scratch of exactly `bytes`, against a guard page at its end as far as 64-byte alignment allows.
std::unique_ptr<Guarded> GuardedScratch(size_t bytes);

// "" when nothing between the rows of sliced outputs was written, else what was.
std::string CheckGaps(const TensorStore& store, std::span<const Expected> outputs);

// Runs one candidate once per number of threads on the tensors of `c` and compares; "" when all is right.
template <class Op>
std::string CheckOne(const typename Op::Desc& desc, const Context& context, const ParityOptions& options,
                     TensorStore& store, const Case<Op>& c, const std::vector<Expected>& expected, double* worst) {
  std::vector<std::byte> first;
  for (size_t threads : options.threads) {
    Context with = context;
    with.pool = &PoolOf(threads);
    auto op = Op::Prepare(desc, c.weights, with);
    if (!op.ok()) return "Prepare: " + op.status().message();
    const auto scratch = GuardedScratch(op->scratch_bytes());
    store.PoisonOutputs();
    if (Status s = Case<Op>::RunOnce(*op, c.tensors, scratch->data()); !s.ok()) return "Run: " + s.message();
    if (Status s = WaitForGpu(); !s.ok()) return s.message();
    if (first.empty()) {
      for (const Expected& e : expected) {
        const Comparison comparison = Compare(e);
        *worst = std::max(*worst, comparison.worst);
        if (!comparison.ok)
          return (store.fill() == Fill::kExact ? "exact fill: " : "normal fill: ") + comparison.message;
      }
      if (std::string gap = CheckGaps(store, expected); !gap.empty()) return gap;
      first = store.OutputBytes();
    } else if (store.OutputBytes() != first) {
      return std::to_string(threads) + " threads give other bits than " + std::to_string(options.threads[0]);
    }
  }
  return "";
}

// One candidate on one target, to be checked.
struct Checked {
  Context context;
  Accuracy accuracy;
  std::string where, failure;
};

// The accepted candidates that `options` ask for; the others are counted in `report`.
template <class Op>
std::vector<Checked> CandidatesToCheck(const typename Op::Desc& desc, const ParityOptions& options,
                                       ParityReport& report) {
  std::vector<Checked> checked;
  std::vector<Isa> isas = options.isas.empty() ? SupportedIsas() : options.isas;
  if (options.backend != Backend::kCpu) isas = {Isa::kBest};
  for (Isa isa : isas) {
    Context context{.backend = options.backend, .isa = isa, .accuracy = Accuracy::kReduced};  // none is held back
    const auto candidates = Op::Candidates(desc, context);
    if (!candidates.ok()) {
      ++report.failed;
      report.failures.push_back(candidates.status().message());
      continue;
    }
    for (const CandidateReport& candidate : *candidates) {
      const std::string where = ToString(desc) + " on " + candidate.name + ": ";
      if (!options.implementation.empty() && candidate.name != options.implementation &&
          candidate.name.substr(candidate.name.rfind('/') + 1) != options.implementation) {
        continue;
      }
      if (!candidate.accepted) {
        ++report.refused;
        report.refusals.push_back(where + candidate.reason);
        continue;
      }
      context.implementation = candidate.name;
      checked.push_back({context, options.accuracy.value_or(candidate.accuracy), where, ""});
    }
  }
  return checked;
}

// The reference runs once per fill, guard and accuracy, whatever the number of candidates: it is the slowest of them.
template <class Op>
ParityReport CheckParity(const typename Op::Desc& desc, const ParityOptions& options = {}) {
  ParityReport report;
  std::vector<Checked> checked = CandidatesToCheck<Op>(desc, options, report);
  for (const auto& [fill, guard] : options.tensors) {
    if (checked.empty() || (fill == Fill::kExact && !Case<Op>::Exact(desc))) continue;
    TensorStore store(fill, guard, options.seed);
    const Case<Op> c(desc, store);
    std::map<Accuracy, std::vector<Expected>> expected;
    for (const Checked& one : checked) {
      if (!expected.contains(one.accuracy)) expected[one.accuracy] = ReferenceFor(c, one.accuracy);
    }
    store.ProtectInputs();
    for (Checked& one : checked) {
      if (one.failure.empty()) {
        one.failure = CheckOne<Op>(desc, one.context, options, store, c, expected[one.accuracy], &report.worst);
      }
    }
  }
  for (const Checked& one : checked) {
    if (one.failure.empty()) {
      ++report.passed;
    } else {
      ++report.failed;
      report.failures.push_back(one.where + one.failure);
    }
  }
  return report;
}

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_PARITY_H_
