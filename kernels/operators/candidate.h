// What a backend offers for one operator: a list of candidates, each of which judges a problem and prepares a kernel.
#ifndef LAMINA_KERNELS_OPERATORS_CANDIDATE_H_
#define LAMINA_KERNELS_OPERATORS_CANDIDATE_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "lamina/additive_attention.h"
#include "lamina/context.h"
#include "lamina/status.h"

namespace lamina {

// A candidate's answer: a reason to refuse, or else the time that it predicts.
struct Judgement {
  std::string refusal;
  double predicted_ns = 0;
};
inline Judgement Accepted(double predicted_ns) { return {"", predicted_ns}; }
inline Judgement Refused(std::string reason) { return {std::move(reason), 0}; }

// What kernels of one operator do beyond Run: nothing, unless specialised.
template <class Op>
class KernelExtras {};

template <>
class KernelExtras<AdditiveAttention::Base> {
 public:
  virtual size_t prepared_keys_bytes() const = 0;
  // Pointers and, but on kCuda, lengths have been checked; the batch is not empty; scratch holds scratch_bytes(),
  // 64-byte aligned.
  virtual Status PrepareKeys(const void* keys, const int32_t* key_lengths, std::byte* prepared_keys,
                             std::byte* scratch) const = 0;

 protected:
  ~KernelExtras() = default;
};

// A prepared implementation, immutable: Run may be called from several threads at once.
template <class Op>
class Kernel : public KernelExtras<Op> {
 public:
  virtual ~Kernel() = default;
  // Pointers have been checked; sizes are not empty; scratch holds scratch_bytes(), 64-byte aligned.
  virtual Status Run(const typename Op::Tensors& tensors, std::byte* scratch) const = 0;
  virtual size_t scratch_bytes() const { return 0; }
  virtual size_t packed_bytes() const { return 0; }
  // The same kernel for other run-time sizes, sharing what is packed. `desc` is valid and this candidate accepts it.
  virtual Result<std::shared_ptr<const Kernel>> Reshape(const typename Op::Desc& desc) const = 0;
};

// Both functions get a valid descriptor (empty batches included) and a context in which nothing is left open: isa is
// not kBest, pool and machine are not null.
template <class Op>
struct Candidate {
  std::string_view name;  // says what it does: "implicit_gemm"
  Judgement (*judge)(const typename Op::Desc& desc, const Context& context);
  Result<std::shared_ptr<const Kernel<Op>>> (*prepare)(const typename Op::Desc& desc,
                                                       const typename Op::Weights& weights, const Context& context);
  Accuracy accuracy = Accuracy::kStrict;  // the least demanding that may choose it
};

template <class Op>
using CandidateList = std::span<const Candidate<Op>>;

}  // namespace lamina

#endif  // LAMINA_KERNELS_OPERATORS_CANDIDATE_H_
