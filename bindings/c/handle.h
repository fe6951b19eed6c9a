// What the C interface needs of an operator, once for all five: a prepared one behind a handle, and its problems.
// bindings/c/<op>.cc supplies Border<Desc> and instantiates Entry<Desc>.
#ifndef LAMINA_BINDINGS_C_HANDLE_H_
#define LAMINA_BINDINGS_C_HANDLE_H_

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "bindings/c/entry.h"
#include "bindings/c/slots.h"
#include "lamina/operator.h"
#include "lamina/problem.h"

namespace lamina::c {

// Specialised per operator:
//   using Op = ..;
//   static void Weights(const Desc&, Op::Weights&, Slots&)                    declares the weights
//   static void Tensors(const Desc&, const Op* prepared, Op::Tensors&, Slots&)  inputs and outputs; prepared may be
//   null
// and, where there is something to prepare of the keys, static void Keys(const Desc&, const void*& keys,
// const int32_t*& key_lengths, Slots&).
template <class Desc>
struct Border;

template <class Op>
concept PreparesKeys = requires(const Op& op) {
  op.prepared_keys_bytes();
};

inline Status CheckScratch(const std::string& desc, void* scratch, size_t given, size_t needed) {
  if (scratch == nullptr || given >= needed) return {};
  return InvalidArgument(desc + ": scratch must be " + std::to_string(needed) +
                         " bytes, got scratch_bytes=" + std::to_string(given));
}

inline int32_t DeviceOf(const Context& context) {
  return context.backend == Backend::kCuda ? LAMINA_DEVICE_CUDA : LAMINA_DEVICE_CPU;
}

template <class Desc>
class Handle final : public lamina_operator {
 public:
  using Op = typename Border<Desc>::Op;

  Handle(Op op, std::shared_ptr<const Machine> machine) : op_(std::move(op)), machine_(std::move(machine)) {
    desc = ToString(op_.desc());
    implementation = op_.implementation();
    scratch_bytes = op_.scratch_bytes();
    packed_bytes = op_.packed_bytes();
  }

  Result<std::unique_ptr<lamina_operator>> Reshape(std::string_view text) const override {
    const auto problem = ParseProblem(text);
    if (!problem.ok()) return problem.status();
    const Desc* d = std::get_if<Desc>(&*problem);
    if (d == nullptr) {
      return InvalidArgument(ToString(*problem) + ": Reshape keeps the operator, got a prepared " + desc);
    }
    auto reshaped = op_.Reshape(*d);
    if (!reshaped.ok()) return reshaped.status();
    return std::unique_ptr<lamina_operator>(new Handle(std::move(*reshaped), machine_));
  }

  Status Run(const lamina_tensor* tensors, size_t count, void* scratch, size_t given) const override {
    Slots slots;
    typename Op::Tensors t;
    Border<Desc>::Tensors(op_.desc(), &op_, t, slots);
    if (Status s = Bind(slots, tensors, count); !s.ok()) return s;
    if (Status s = CheckScratch(desc, scratch, given, scratch_bytes); !s.ok()) return s;
    return op_.Run(t, scratch);
  }

  Status PrepareKeys([[maybe_unused]] const lamina_tensor* tensors, [[maybe_unused]] size_t count,
                     [[maybe_unused]] void* prepared_keys, [[maybe_unused]] void* scratch,
                     [[maybe_unused]] size_t given) const override {
    if constexpr (PreparesKeys<Op>) {
      Slots slots;
      const void* keys = nullptr;
      const int32_t* key_lengths = nullptr;
      Border<Desc>::Keys(op_.desc(), keys, key_lengths, slots);
      if (Status s = Bind(slots, tensors, count); !s.ok()) return s;
      if (Status s = CheckScratch(desc, scratch, given, scratch_bytes); !s.ok()) return s;
      return op_.PrepareKeys(keys, key_lengths, prepared_keys, scratch);
    } else {
      return NoKeys();
    }
  }

  Result<size_t> PreparedKeysBytes() const override {
    if constexpr (PreparesKeys<Op>) {
      return op_.prepared_keys_bytes();
    } else {
      return NoKeys();
    }
  }

  Status SavePacked(const std::string& path) const override { return op_.SavePacked(path); }

  const std::string& Explain() const override {
    std::call_once(explained_, [this] { explanation_ = op_.Explain(); });
    return explanation_;
  }

 private:
  Status Bind(Slots& slots, const lamina_tensor* tensors, size_t count) const {
    return slots.Bind(tensors, count, DeviceOf(op_.context()), [&] { return desc; });
  }
  Status NoKeys() const { return InvalidArgument(desc + ": only additive_attention has keys to prepare"); }

  Op op_;
  std::shared_ptr<const Machine> machine_;
  mutable std::once_flag explained_;  // Reshape is too frequent to write a text in it that few ask for
  mutable std::string explanation_;
};

template <class Desc>
void Entry<Desc>::Describe(const Desc& desc, lamina_tensor* tensors, size_t capacity, size_t* count) {
  using Op = typename Border<Desc>::Op;
  typename Op::Weights w;
  typename Op::Tensors t;
  Slots slots;
  Border<Desc>::Weights(desc, w, slots);
  slots.Describe(tensors, capacity, count);
  slots = {};
  Border<Desc>::Tensors(desc, nullptr, t, slots);
  slots.Describe(tensors, capacity, count);
}

template <class Desc>
Result<std::vector<CandidateReport>> Entry<Desc>::Candidates(const Desc& desc, const Context& context) {
  return Border<Desc>::Op::Candidates(desc, context);
}

template <class Desc>
Result<std::unique_ptr<lamina_operator>> Entry<Desc>::Prepare(const Desc& desc, const lamina_tensor* weights,
                                                              size_t count, const OwnedContext& context) {
  using Op = typename Border<Desc>::Op;
  typename Op::Weights w;
  Slots slots;
  Border<Desc>::Weights(desc, w, slots);
  const auto where = [&] { return ToString(desc); };
  if (Status s = slots.Bind(weights, count, LAMINA_DEVICE_CPU, where); !s.ok()) return s;
  auto op = Op::Prepare(desc, w, context.context);
  if (!op.ok()) return op.status();
  return std::unique_ptr<lamina_operator>(new Handle<Desc>(std::move(*op), context.machine));
}

template <class Desc>
Result<std::unique_ptr<lamina_operator>> Entry<Desc>::LoadPacked(const std::string& path, const OwnedContext& context) {
  auto op = Border<Desc>::Op::LoadPacked(path, context.context);
  if (!op.ok()) return op.status();
  return std::unique_ptr<lamina_operator>(new Handle<Desc>(std::move(*op), context.machine));
}

}  // namespace lamina::c

#endif  // LAMINA_BINDINGS_C_HANDLE_H_
