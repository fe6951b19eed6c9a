// Operator<...>'s members, the same for all five. Included by kernels/operators/<op>.cc alone, which supplies, before
// it instantiates the template:
//   Fields<Desc>                                               the list of fields (text.h)
//   Traits<Op>::Offered(Backend)                               the backend's candidates, preferred first
//   Traits<Op>::CheckWeights(desc, weights)                    null pointers, as a Status
//   Traits<Op>::CheckTensors(desc, tensors)                    null pointers
//   Traits<Op>::CheckLengths(desc, tensors)                    run-time lengths, where the operator has them
//   Traits<Op>::IsEmpty(desc)                                  nothing to compute: Run returns at once
#ifndef LAMINA_KERNELS_OPERATORS_PREPARE_H_
#define LAMINA_KERNELS_OPERATORS_PREPARE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/thread_pool.h"
#include "kernels/operators/arena.h"
#include "kernels/operators/candidate.h"
#include "kernels/operators/packing.h"
#include "kernels/operators/resolve.h"
#include "kernels/operators/text.h"
#include "kernels/operators/verbose.h"
#include "lamina/operator.h"

namespace lamina {

template <class Op>
struct Traits;

// Calls run(memory) with `bytes` of scratch: the caller's own or, when that is null, this thread's arena's. On kCuda
// scratch is device memory, and null reaches the kernel, which then takes its own.
template <class Desc, class F>
Status WithScratch(const Desc& desc, Backend backend, size_t bytes, void* scratch, const F& run) {
  if (reinterpret_cast<uintptr_t>(scratch) % kScratchAlignment != 0) {
    return Refuse(desc, "scratch must lie at a multiple of 64 bytes",
                  {{"remainder", static_cast<int64_t>(reinterpret_cast<uintptr_t>(scratch) % kScratchAlignment)}});
  }
  if (scratch != nullptr || bytes == 0 || backend == Backend::kCuda) return run(static_cast<std::byte*>(scratch));
  const ArenaLease lease(bytes);
  if (lease.data() == nullptr) {
    return {StatusCode::kOutOfMemory,
            ToString(desc) + ": no memory for " + std::to_string(bytes) + " bytes of scratch"};
  }
  return run(lease.data());
}

template <class D, class W, class T>
struct Operator<D, W, T>::State {
  D desc;
  Context context;
  const Candidate<Operator>* candidate = nullptr;
  std::shared_ptr<const Kernel<Operator>> kernel;
  std::string implementation;
  bool serial;            // too little work to share
  D packed_for;           // the descriptor before any Reshape
  packing::Parts packed;  // the kernel's weights, of kCpu

  // The candidate that the context allows and predicts best, prepared in a session of packing.
  __attribute__((visibility("hidden"))) static Result<Operator> Make(const D& desc, const W& weights,
                                                                     const Context& asked,
                                                                     const packing::Session& session);
};

template <class D, class W, class T>
Result<std::vector<CandidateReport>> Operator<D, W, T>::Candidates(const D& desc, const Context& asked) {
  if (Status s = desc.Validate(); !s.ok()) return s;
  Result<Context> context = Resolve(asked);
  if (!context.ok()) return context.status();
  const Context one_thread = OnOneThread(*context);
  std::vector<CandidateReport> reports;
  for (const auto& candidate : Traits<Operator>::Offered(context->backend)) {
    Judgement judgement = candidate.judge(desc, one_thread);
    if (context->accuracy == Accuracy::kStrict && candidate.accuracy != Accuracy::kStrict) {
      judgement = Refused("does not keep the direct algorithm's bound, which accuracy=strict asks for");
    } else if (context->accuracy == Accuracy::kDefault && candidate.accuracy == Accuracy::kReduced) {
      judgement = Refused("rounds the factors of its products, which accuracy=reduced allows");
    }
    const std::string name = ImplementationName(*context, candidate.name);
    const bool accepted = judgement.refusal.empty();
    reports.push_back({name, accepted, std::move(judgement.refusal), judgement.predicted_ns, candidate.accuracy});
  }
  return reports;
}

template <class D, class W, class T>
Result<Operator<D, W, T>> Operator<D, W, T>::State::Make(const D& desc, const W& weights, const Context& asked,
                                                         const packing::Session& session) {
  Result<std::vector<CandidateReport>> reports = Candidates(desc, asked);
  if (!reports.ok()) return reports.status();
  const Context context = *Resolve(asked);
  if (!session.loading()) {
    if (Status s = Traits<Operator>::CheckWeights(desc, weights); !s.ok()) return s;
  }
  const auto candidates = Traits<Operator>::Offered(context.backend);
  const Result<size_t> best = Choose(ToString(desc), context, *reports);
  if (!best.ok()) return best.status();
  const Candidate<Operator>& candidate = candidates[*best];
  auto kernel = candidate.prepare(desc, weights, context);
  if (!kernel.ok()) return kernel.status();
  return Operator(std::make_shared<const State>(
      State{desc, context, &candidate, std::move(*kernel), (*reports)[*best].name,
            StaysInOneThread(context, (*reports)[*best].predicted_ns), desc, session.parts()}));
}

template <class D, class W, class T>
Result<Operator<D, W, T>> Operator<D, W, T>::Prepare(const D& desc, const W& weights, const Context& asked) {
  return verbose::Making<Operator>(verbose::Event::kPrepare, desc, [&] {
    const packing::Session session;
    return State::Make(desc, weights, asked, session);
  });
}

template <class D, class W, class T>
Status Operator<D, W, T>::SavePacked(const std::string& path) const {
  const State& s = *state_;
  if (s.context.backend != Backend::kCpu) {
    return Refuse(s.desc, "packed weights are saved of the backend cpu, got " + s.implementation);
  }
  return packing::Write(path, s.implementation, ToString(s.packed_for), s.packed);
}

template <class D, class W, class T>
Result<Operator<D, W, T>> Operator<D, W, T>::LoadPacked(const std::string& path, const Context& asked) {
  const auto file = packing::Read(path);
  if (!file.ok()) return file.status();
  const auto refuse = [&](const std::string& sentence) { return InvalidArgument(path + ": " + sentence); };
  const Result<D> desc = text::Read<D>(file->problem);
  if (!desc.ok()) return refuse(desc.status().message());
  Context context = asked;
  if (Status s = packing::Require(file->implementation, context); !s.ok()) return refuse(s.message());
  return verbose::Making<Operator>(verbose::Event::kPrepare, *desc, [&]() -> Result<Operator> {
    const packing::Session session(file->parts, file->owner);
    auto op = State::Make(*desc, W{}, context, session);
    if (std::string mismatch = session.Mismatch(); !mismatch.empty()) return refuse(mismatch);
    return op;
  });
}

template <class D, class W, class T>
Result<Operator<D, W, T>> Operator<D, W, T>::Reshape(const D& desc) const {
  const auto reshape = [&]() -> Result<Operator> {
    if (Status s = desc.Validate(); !s.ok()) return s;
    if (const std::string fixed = text::FixedDifferences(state_->desc, desc); !fixed.empty()) {
      return Refuse(desc, "Reshape may change only run-time sizes, pads and strides, not " + fixed +
                              " of the prepared " + ToString(state_->desc));
    }
    const Judgement judgement = state_->candidate->judge(desc, OnOneThread(state_->context));
    if (!judgement.refusal.empty()) {
      return Refuse(desc, "the prepared " + state_->implementation + " cannot serve: " + judgement.refusal);
    }
    auto kernel = state_->kernel->Reshape(desc);
    if (!kernel.ok()) return kernel.status();
    return Operator(std::make_shared<const State>(
        State{desc, state_->context, state_->candidate, std::move(*kernel), state_->implementation,
              StaysInOneThread(state_->context, judgement.predicted_ns), state_->packed_for, state_->packed}));
  };
  return verbose::Making<Operator>(verbose::Event::kReshape, desc, reshape);
}

template <class D, class W, class T>
Status Operator<D, W, T>::Run(const T& tensors, void* scratch) const {
  const State& s = *state_;
  if (Traits<Operator>::IsEmpty(s.desc)) return {};
  return verbose::Doing(verbose::Event::kRun, *this, [&]() -> Status {
    if (Status status = Traits<Operator>::CheckTensors(s.desc, tensors); !status.ok()) return status;
    if constexpr (requires { Traits<Operator>::CheckLengths(s.desc, tensors); }) {
      if (s.context.backend != Backend::kCuda) {  // there they lie on the device
        if (Status status = Traits<Operator>::CheckLengths(s.desc, tensors); !status.ok()) return status;
      }
    }
    const cpu::SerialScope scope(s.serial);
    return WithScratch(s.desc, s.context.backend, s.kernel->scratch_bytes(), scratch,
                       [&](std::byte* memory) { return s.kernel->Run(tensors, memory); });
  });
}

template <class D, class W, class T>
const D& Operator<D, W, T>::desc() const {
  return state_->desc;
}
template <class D, class W, class T>
const Context& Operator<D, W, T>::context() const {
  return state_->context;
}
template <class D, class W, class T>
size_t Operator<D, W, T>::scratch_bytes() const {
  return state_->kernel->scratch_bytes();
}
template <class D, class W, class T>
size_t Operator<D, W, T>::packed_bytes() const {
  return state_->kernel->packed_bytes();
}
template <class D, class W, class T>
const std::string& Operator<D, W, T>::implementation() const {
  return state_->implementation;
}
template <class D, class W, class T>
std::string Operator<D, W, T>::Explain() const {
  const auto reports = Candidates(state_->desc, state_->context);
  return ToString(state_->desc) + "\n" + ExplainReports(*reports, state_->implementation);
}

}  // namespace lamina

#endif  // LAMINA_KERNELS_OPERATORS_PREPARE_H_
