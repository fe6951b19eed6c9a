// fully_connected on the CPU: one matrix product over weights packed at Prepare, for every number of rows.
#include <memory>
#include <utility>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/round.h"
#include "kernels/operators/backends.h"

namespace lamina::cpu {
namespace {

class PackedGemm final : public Kernel<FullyConnected> {
 public:
  PackedGemm(const FullyConnectedDesc& desc, ThreadPool* pool, std::shared_ptr<const PackedMatrix> weights)
      : desc_(desc), pool_(pool), weights_(std::move(weights)) {}

  Status Run(const FullyConnectedTensors& tensors, std::byte*) const override {
    const FullyConnectedDesc& d = desc_;
    MatMul(*pool_, *weights_,
           {.m = d.m,
            .a = static_cast<const float*>(tensors.x),
            .a_stride = StrideOr(d.x_stride, d.ic),
            .c = static_cast<float*>(tensors.y),
            .c_stride = StrideOr(d.y_stride, d.oc),
            .residual = static_cast<const float*>(tensors.residual),
            .residual_stride = StrideOr(d.residual_stride, d.oc),
            .residual_kind = d.residual,
            .activation = d.activation});
    return {};
  }

  size_t packed_bytes() const override { return weights_->bytes(); }
  Result<std::shared_ptr<const Kernel<FullyConnected>>> Reshape(const FullyConnectedDesc& desc) const override {
    return std::shared_ptr<const Kernel<FullyConnected>>(std::make_shared<PackedGemm>(desc, pool_, weights_));
  }

 private:
  FullyConnectedDesc desc_;
  ThreadPool* pool_;
  std::shared_ptr<const PackedMatrix> weights_;
};

Judgement Judge(const FullyConnectedDesc& d, const Context& context) {
  if (d.dtype != DType::kF32) return Refused("computes in f32, got another dtype");
  return Accepted(
      PredictMatMul(*context.machine, context.isa, static_cast<int>(context.pool->num_threads()), d.m, d.oc, d.ic));
}

Result<std::shared_ptr<const Kernel<FullyConnected>>> Prepare(const FullyConnectedDesc& d,
                                                              const FullyConnectedWeights& weights,
                                                              const Context& context) {
  const bool oi = d.weight_layout == MatrixLayout::kOi;
  auto packed =
      PackedMatrix::Pack(context.isa, MatMulKernel(context.isa, d.m), d.ic, d.oc, static_cast<const float*>(weights.w),
                         oi ? d.ic : 1, oi ? 1 : d.oc, static_cast<const float*>(d.bias ? weights.bias : nullptr));
  if (!packed.ok()) return packed.status();
  return std::shared_ptr<const Kernel<FullyConnected>>(
      std::make_shared<PackedGemm>(d, context.pool, std::make_shared<const PackedMatrix>(std::move(*packed))));
}

}  // namespace

CandidateList<FullyConnected> FullyConnectedCandidates() {
  static constexpr Candidate<FullyConnected> kCandidates[] = {{"packed_gemm", Judge, Prepare}};
  return kCandidates;
}

}  // namespace lamina::cpu
