// What the C interface needs of an operator, once for all five: a prepared one behind a handle, and its problems by
// text. bindings/c/<op>.cc supplies Border<Op> and defines the operator's entry with LAMINA_C_OPERATOR.
#ifndef LAMINA_BINDINGS_C_HANDLE_H_
#define LAMINA_BINDINGS_C_HANDLE_H_

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/c/slots.h"
#include "lamina/cost.h"
#include "lamina/machine.h"
#include "lamina/operator.h"

namespace lamina::c {

// A context and the machine that the caller gave as text, which must live as long as what is prepared with it.
struct OwnedContext {
  Context context;
  std::shared_ptr<const Machine> machine;
};

}  // namespace lamina::c

struct lamina_operator {
  virtual ~lamina_operator() = default;
  virtual lamina::Result<std::unique_ptr<lamina_operator>> Reshape(std::string_view text) const = 0;
  virtual lamina::Status Run(const lamina_tensor* tensors, size_t count, void* scratch, size_t scratch_bytes) const = 0;
  virtual lamina::Status PrepareKeys(const lamina_tensor* tensors, size_t count, void* prepared_keys, void* scratch,
                                     size_t scratch_bytes) const = 0;
  virtual lamina::Result<size_t> PreparedKeysBytes() const = 0;
  virtual const std::string& Explain() const = 0;

  // Asked once, when the operator is prepared: these never change.
  std::string desc, implementation;
  size_t scratch_bytes = 0, packed_bytes = 0;
};

namespace lamina::c {

// Specialised per operator:
//   static Result<Desc> Parse(std::string_view text)
//   static void Weights(const Desc&, Weights&, Slots&)                    declares the weights
//   static void Tensors(const Desc&, const Op* prepared, Tensors&, Slots&)  the inputs and outputs; prepared may be
//   null
// and, where there is something to prepare of the keys, static void Keys(const Desc&, const void*& keys,
// const int32_t*& key_lengths, Slots&).
template <class Op>
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

template <class Op>
class Handle final : public lamina_operator {
 public:
  Handle(Op op, std::shared_ptr<const Machine> machine) : op_(std::move(op)), machine_(std::move(machine)) {
    desc = ToString(op_.desc());
    implementation = op_.implementation();
    scratch_bytes = op_.scratch_bytes();
    packed_bytes = op_.packed_bytes();
  }

  Result<std::unique_ptr<lamina_operator>> Reshape(std::string_view text) const override {
    auto d = Border<Op>::Parse(text);
    if (!d.ok()) return d.status();
    auto reshaped = op_.Reshape(*d);
    if (!reshaped.ok()) return reshaped.status();
    return std::unique_ptr<lamina_operator>(new Handle(std::move(*reshaped), machine_));
  }

  Status Run(const lamina_tensor* tensors, size_t count, void* scratch, size_t given) const override {
    Slots slots;
    typename Op::Tensors t;
    Border<Op>::Tensors(op_.desc(), &op_, t, slots);
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
      Border<Op>::Keys(op_.desc(), keys, key_lengths, slots);
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

// One operator's problems, by their text.
struct OperatorType {
  std::string_view name;
  Status (*describe)(std::string_view text, lamina_tensor* tensors, size_t capacity, size_t* count);
  Result<Cost> (*cost)(std::string_view text);
  Result<std::vector<CandidateReport>> (*candidates)(std::string_view text, const Context& context);
  Result<std::unique_ptr<lamina_operator>> (*prepare)(std::string_view text, const lamina_tensor* weights, size_t count,
                                                      const OwnedContext& context);
};

template <class Op>
Result<typename Op::Desc> ParseValid(std::string_view text) {
  auto d = Border<Op>::Parse(text);
  if (!d.ok()) return d;
  if (Status s = d->Validate(); !s.ok()) return s;
  return d;
}

template <class Op>
constexpr OperatorType MakeOperatorType(std::string_view name) {
  OperatorType type;
  type.name = name;
  type.describe = [](std::string_view text, lamina_tensor* tensors, size_t capacity, size_t* count) -> Status {
    const auto d = ParseValid<Op>(text);
    if (!d.ok()) return d.status();
    typename Op::Weights w;
    typename Op::Tensors t;
    Slots slots;
    Border<Op>::Weights(*d, w, slots);
    slots.Describe(tensors, capacity, count);
    slots = {};
    Border<Op>::Tensors(*d, nullptr, t, slots);
    slots.Describe(tensors, capacity, count);
    return {};
  };
  type.cost = [](std::string_view text) -> Result<Cost> {
    const auto d = ParseValid<Op>(text);
    if (!d.ok()) return d.status();
    return CostOf(*d);
  };
  type.candidates = [](std::string_view text, const Context& context) -> Result<std::vector<CandidateReport>> {
    const auto d = Border<Op>::Parse(text);
    if (!d.ok()) return d.status();
    return Op::Candidates(*d, context);
  };
  type.prepare = [](std::string_view text, const lamina_tensor* weights, size_t count,
                    const OwnedContext& context) -> Result<std::unique_ptr<lamina_operator>> {
    const auto d = ParseValid<Op>(text);  // before shapes are derived from it
    if (!d.ok()) return d.status();
    typename Op::Weights w;
    Slots slots;
    Border<Op>::Weights(*d, w, slots);
    if (Status s = slots.Bind(weights, count, DeviceOf(context.context), [&] { return ToString(*d); }); !s.ok())
      return s;
    auto op = Op::Prepare(*d, w, context.context);
    if (!op.ok()) return op.status();
    return std::unique_ptr<lamina_operator>(new Handle<Op>(std::move(*op), context.machine));
  };
  return type;
}

}  // namespace lamina::c

// Defines the entry of one operator: LAMINA_C_OPERATOR(conv2d, Conv2d).
#define LAMINA_C_OPERATOR(name, Op)                                    \
  const OperatorType& name##_type() {                                  \
    static constexpr OperatorType kType = MakeOperatorType<Op>(#name); \
    return kType;                                                      \
  }

#endif  // LAMINA_BINDINGS_C_HANDLE_H_
