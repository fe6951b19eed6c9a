// The one shape that all five operators have: Prepare, then Run as often as wanted, Reshape for another size.
#ifndef LAMINA_OPERATOR_H_
#define LAMINA_OPERATOR_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "lamina/context.h"
#include "lamina/export.h"
#include "lamina/status.h"

namespace lamina {

// A prepared operator: a descriptor, a chosen implementation and its packed weights. Copies share them; every const
// member may be called from several threads at once.
template <class DescT, class WeightsT, class TensorsT>
class LAMINA_API Operator {
 public:
  using Desc = DescT;
  using Weights = WeightsT;
  using Tensors = TensorsT;

  // Validates, chooses an implementation and packs the weights, which lie on the host whatever the backend and may be
  // freed afterwards. All that is slow or can fail is here. Errors name the rule and the values that broke it; when no
  // candidate accepts, each one's reason.
  static Result<Operator> Prepare(const Desc& desc, const Weights& weights, const Context& context = {});

  // Every candidate of the context's backend in the order of preference, accepted or refused, best prediction first
  // among the accepted. Prepares nothing.
  static Result<std::vector<CandidateReport>> Candidates(const Desc& desc, const Context& context = {});

  // The same operator for other run-time sizes (batch, image, pads, rows, sequence lengths, strides): same
  // implementation, shared packed weights, microseconds. Refused with the reason where another field differs or the
  // implementation cannot serve.
  Result<Operator> Reshape(const Desc& desc) const;

  // Computes the outputs. Re-entrant. Outputs must not overlap inputs (a residual may be the output itself). `scratch`
  // is scratch_bytes() bytes at a multiple of 64, used until the call returns; null takes a per-thread arena that grows
  // on that thread's first call. Otherwise nothing is allocated.
  // On kCuda: device pointers, enqueued on the context's stream, no wait, nothing allocated; fit for a CUDA graph. Null
  // scratch is then memory that the operator has had since Prepare and shares with those that Reshape makes: their Runs
  // must follow each other on that stream.
  Status Run(const Tensors& tensors, void* scratch = nullptr) const;

  // The packed weights as a file, for kCpu: a later process maps it instead of packing, and shares its memory with
  // others that do. The same weights give the same bytes. The file must not change while an operator uses it.
  Status SavePacked(const std::string& path) const;
  // The operator as it was prepared, before any Reshape. Refused with the reason: no such file, one that was cut short
  // or altered, of another version of the library, of another family of CPU or SIMD target, or of an implementation
  // that the context does not allow.
  static Result<Operator> LoadPacked(const std::string& path, const Context& context = {});

  const Desc& desc() const;
  const Context& context() const;             // with backend, isa, pool and machine filled in
  size_t scratch_bytes() const;               // 0: none needed
  size_t packed_bytes() const;                // memory that the packed weights take
  const std::string& implementation() const;  // "cpu/AVX3/implicit_gemm"
  std::string Explain() const;                // every candidate with its predicted time or its reason, as text

 protected:
  struct State;  // kernels/operators/prepare.h
  explicit Operator(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace lamina

#endif  // LAMINA_OPERATOR_H_
