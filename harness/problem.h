// What the parity check and a bench do to one operator, for a problem of any of them.
#ifndef LAMINA_HARNESS_PROBLEM_H_
#define LAMINA_HARNESS_PROBLEM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "harness/parity.h"
#include "lamina/context.h"
#include "lamina/problem.h"
#include "lamina/status.h"

namespace lamina::harness {

ParityReport CheckProblem(const Problem& problem, const ParityOptions& options);

Result<std::vector<CandidateReport>> CandidatesOf(const Problem& problem, const Context& context);

// A problem with random weights and tensors, prepared and ready to run again and again.
class Runner {
 public:
  virtual ~Runner() = default;
  virtual Status Run() = 0;
  // Puts an operator prepared anew in the place of the one that has run, on the same tensors and scratch.
  virtual Status PrepareAgain() = 0;
  virtual const std::string& implementation() const = 0;
  double prepare_ns() const { return prepare_ns_; }  // what the operator's last Prepare took
  // What one Run does. Keys of an additive attention are prepared beforehand, so their projection is not in it.
  virtual Cost cost() const = 0;
  virtual std::string Explain() const = 0;
  // Runs once on outputs that hold no result yet and compares with the reference; "" when right.
  virtual std::string Verify() = 0;
  // Reads the input of another runner's output, where the sizes are equal: layers of a network after one another.
  // False, and nothing changed, where they are not or the operator is no layer with one input.
  virtual bool Follow(const Runner& before) = 0;

  // Of the layer's output; null and 0 where Follow means nothing.
  const float* output() const { return output_; }
  int64_t output_count() const { return output_count_; }

 protected:
  const float* output_ = nullptr;
  int64_t output_count_ = 0;
  double prepare_ns_ = 0;
};

// The tensors' addresses differ in their last twelve bits from one another and from seed to seed, because speeds do
// too.
Result<std::unique_ptr<Runner>> MakeRunner(const Problem& problem, const Context& context, uint64_t seed);

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_PROBLEM_H_
