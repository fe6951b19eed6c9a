#include "harness/problem.h"

#include <chrono>
#include <cstring>
#include <type_traits>

#include "harness/additive_attention.h"
#include "harness/conv2d.h"
#include "harness/fully_connected.h"
#include "harness/multi_head_attention.h"
#include "harness/separable_conv2d.h"

namespace lamina::harness {
namespace {

// The operator of a descriptor.
template <class Desc>
struct OperatorOf;
template <>
struct OperatorOf<Conv2dDesc> {
  using type = Conv2d;
};
template <>
struct OperatorOf<SeparableConv2dDesc> {
  using type = SeparableConv2d;
};
template <>
struct OperatorOf<FullyConnectedDesc> {
  using type = FullyConnected;
};
template <>
struct OperatorOf<AdditiveAttentionDesc> {
  using type = AdditiveAttention;
};
template <>
struct OperatorOf<MultiHeadAttentionDesc> {
  using type = MultiHeadAttention;
};

// Elements of x and y of those operators that are one layer of a chain; {0, 0} of the others.
struct Flow {
  int64_t input = 0, output = 0;
};
template <class Desc>
Flow FlowOf(const Desc& d) {
  if constexpr (requires { d.oh(); }) {
    return {d.n * d.ih * d.iw * d.ic, d.n * d.oh() * d.ow() * d.oc};
  } else if constexpr (requires { d.m; }) {
    return {d.m * d.ic, d.m * d.oc};
  } else if constexpr (requires { d.model_dim; }) {
    return {d.batch * d.seqlen_q * d.model_dim, d.batch * d.seqlen_q * d.model_dim};  // 0 without projections
  } else {
    return {};
  }
}

template <class Desc>
Cost CostOfRun(const Desc& d) {
  return CostOf(d);
}
Cost CostOfRun(const AdditiveAttentionDesc& d) {
  Cost cost = CostOf(d);
  const auto element = static_cast<int64_t>(SizeOf(d.dtype));
  cost.macs -= d.batch * d.keys * d.key_dim * d.units;
  cost.weight_bytes -= d.units * d.key_dim * element;
  cost.activation_bytes += d.batch * d.keys * d.units * element;  // the prepared keys
  return cost;
}

template <class Op>
class OperatorRunner final : public Runner {
 public:
  using Desc = typename Op::Desc;

  OperatorRunner(const Desc& desc, uint64_t seed)
      : store_(Fill::kNormal, Guard::kScattered, seed),
        case_(desc, store_),
        flow_(FlowOf(desc)),
        tensors_(case_.tensors) {
    store_.PoisonOutputs();
    if constexpr (requires { case_.tensors.y; }) {
      output_ = static_cast<const float*>(case_.tensors.y);
      output_count_ = flow_.output;
    }
  }

  Status Prepare(const Desc& desc, const Context& context) {
    const auto start = std::chrono::steady_clock::now();
    auto op = Op::Prepare(desc, case_.weights, context);
    prepare_ns_ = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
    if (!op.ok()) return op.status();
    if (op_ == nullptr) {
      scratch_ = Guarded((op->scratch_bytes() + 63) / 64 * 64, Guard::kEnd);
      // The pages of a caller's scratch exist long before a layer's first Run.
      if (op->scratch_bytes() > 0) std::memset(scratch_.data(), 0, op->scratch_bytes());
    }
    if constexpr (requires { op->prepared_keys_bytes(); }) {
      if (op_ == nullptr) prepared_keys_ = Guarded((op->prepared_keys_bytes() + 63) / 64 * 64, Guard::kEnd);
      const auto& t = case_.tensors;
      if (Status s = op->PrepareKeys(t.keys, t.key_lengths, prepared_keys_.data(), scratch_.data()); !s.ok()) return s;
      tensors_.prepared_keys = prepared_keys_.data();
    }
    op_ = std::make_unique<Op>(*std::move(op));
    return {};
  }

  Status PrepareAgain() override { return Prepare(op_->desc(), op_->context()); }
  Status Run() override { return op_->Run(tensors_, scratch_.data()); }
  const std::string& implementation() const override { return op_->implementation(); }
  Cost cost() const override { return CostOfRun(op_->desc()); }
  std::string Explain() const override { return op_->Explain(); }

  std::string Verify() override {
    const std::vector<Expected> expected = ReferenceFor(case_, op_->context().accuracy);
    store_.PoisonOutputs();
    if (Status s = Case<Op>::RunOnce(*op_, case_.tensors, scratch_.data()); !s.ok()) return s.message();
    for (const Expected& e : expected) {
      if (const Comparison c = Compare(e); !c.ok) return c.message;
    }
    return "";
  }

  bool Follow(const Runner& before) override {
    if constexpr (requires { tensors_.x; }) {
      if (flow_.input == 0 || flow_.input != before.output_count()) return false;
      tensors_.x = before.output();
      return true;
    }
    return false;
  }

 private:
  TensorStore store_;
  Case<Op> case_;
  Flow flow_;
  typename Op::Tensors tensors_;
  std::unique_ptr<Op> op_;
  Guarded scratch_, prepared_keys_;
};

}  // namespace

ParityReport CheckProblem(const Problem& problem, const ParityOptions& options) {
  return std::visit(
      [&]<class Desc>(const Desc& desc) { return CheckParity<typename OperatorOf<Desc>::type>(desc, options); },
      problem);
}

Result<std::vector<CandidateReport>> CandidatesOf(const Problem& problem, const Context& context) {
  return std::visit([&]<class Desc>(const Desc& desc) { return OperatorOf<Desc>::type::Candidates(desc, context); },
                    problem);
}

Result<std::unique_ptr<Runner>> MakeRunner(const Problem& problem, const Context& context, uint64_t seed) {
  if (context.backend == Backend::kCuda) {  // whose times are those of device memory, which runners do not have
    return InvalidArgument("backend cuda is timed by tools/gpu_evidence, not here");
  }
  return std::visit(
      [&]<class Desc>(const Desc& desc) -> Result<std::unique_ptr<Runner>> {
        if (Status s = desc.Validate(); !s.ok()) return s;
        auto runner = std::make_unique<OperatorRunner<typename OperatorOf<Desc>::type>>(desc, seed);
        if (Status s = runner->Prepare(desc, context); !s.ok()) return s;
        return std::unique_ptr<Runner>(std::move(runner));
      },
      problem);
}

}  // namespace lamina::harness
