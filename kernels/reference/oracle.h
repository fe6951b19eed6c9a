// Backend::kReference, common to its five operators: weights are kept as they came, Run is the reference's loops and a
// rounding of its doubles to the caller's element type.
#ifndef LAMINA_KERNELS_REFERENCE_ORACLE_H_
#define LAMINA_KERNELS_REFERENCE_ORACLE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/operators/candidate.h"
#include "lamina/cost.h"
#include "reference/element.h"

namespace lamina::oracle {

// A copy of a weight tensor; `pointer` is redirected to it.
inline void Keep(const void*& pointer, int64_t count, DType dtype, std::vector<std::vector<std::byte>>& kept) {
  if (pointer == nullptr) return;
  const size_t bytes = static_cast<size_t>(count) * SizeOf(dtype);
  std::vector<std::byte> copy(bytes);
  std::memcpy(copy.data(), pointer, bytes);
  pointer = copy.data();
  kept.push_back(std::move(copy));  // moving a vector keeps its data in place
}

// What a kernel shares with those it is reshaped to.
template <class Op>
struct KeptWeights {
  typename Op::Weights weights;
  std::vector<std::vector<std::byte>> kept;
};

// Implemented per operator: copies the weights; scratch doubles of a Run; runs and rounds.
template <class Op>
struct Oracle;

template <class Op>
class OracleKernel final : public Kernel<Op> {
 public:
  OracleKernel(const typename Op::Desc& desc, std::shared_ptr<const KeptWeights<Op>> kept)
      : desc_(desc), kept_(std::move(kept)) {}
  Status Run(const typename Op::Tensors& tensors, std::byte* scratch) const override {
    Oracle<Op>::Run(desc_, kept_->weights, tensors, reinterpret_cast<double*>(scratch));
    return {};
  }
  size_t scratch_bytes() const override { return Oracle<Op>::ScratchDoubles(desc_) * sizeof(double); }
  size_t packed_bytes() const override {
    size_t bytes = 0;
    for (const auto& k : kept_->kept) bytes += k.size();
    return bytes;
  }
  Result<std::shared_ptr<const Kernel<Op>>> Reshape(const typename Op::Desc& desc) const override {
    return std::shared_ptr<const Kernel<Op>>(std::make_shared<OracleKernel>(desc, kept_));
  }

 private:
  typename Op::Desc desc_;
  std::shared_ptr<const KeptWeights<Op>> kept_;
};

// The one candidate, "naive"; predicts 1 ns a multiply-accumulate.
template <class Op>
CandidateList<Op> NaiveCandidate() {
  using Desc = typename Op::Desc;
  using Weights = typename Op::Weights;
  static constexpr Candidate<Op> kCandidates[] = {
      {"naive", [](const Desc& d, const Context&) { return Accepted(static_cast<double>(CostOf(d).macs)); },
       [](const Desc& d, const Weights& w, const Context&) {
         auto kept = std::make_shared<KeptWeights<Op>>();
         kept->weights = w;
         Oracle<Op>::KeepWeights(d, *kept);
         return Result<std::shared_ptr<const Kernel<Op>>>(
             std::shared_ptr<const Kernel<Op>>(std::make_shared<OracleKernel<Op>>(d, std::move(kept))));
       }}};
  return kCandidates;
}

}  // namespace lamina::oracle

#endif  // LAMINA_KERNELS_REFERENCE_ORACLE_H_
