#include "bindings/python/operator.h"

#include <utility>
#include <vector>

#include "lamina/context.h"

namespace lamina::python {
namespace {

// One call's tensors: the memory that they describe stays alive as long as this does.
class Bound {
 public:
  explicit Bound(const Tensors& given) {
    numbers_.reserve(given.size());  // their addresses are handed out
    for (auto [key, value] : given) {
      if (value.is_none()) continue;
      const char* name = nb::borrow<nb::str>(key).c_str();
      if (PyIndex_Check(value.ptr()) && !nb::hasattr(value, "__dlpack__")) {
        numbers_.push_back(nb::cast<int64_t>(value));
        lamina_tensor number = {};
        number.size = sizeof(number);
        number.name = name;
        number.data = &numbers_.back();
        number.dtype = LAMINA_I64;
        tensors_.push_back(number);
      } else {
        arrays_.push_back(Array::From(value, name));
        tensors_.push_back(arrays_.back().Named(name));
      }
    }
  }

  const lamina_tensor* data() const { return tensors_.data(); }
  size_t size() const { return tensors_.size(); }

 private:
  std::vector<int64_t> numbers_;
  std::vector<Array> arrays_;
  std::vector<lamina_tensor> tensors_;
};

// call(), a lamina_status, while other threads run Python. The sentence of a failure is this thread's own.
template <class F>
void CheckWithoutGil(const F& call) {
  int32_t status;
  {
    const nb::gil_scoped_release release;
    status = call();
  }
  Check(status);
}

// A question of the C interface about a prepared operator.
template <class T>
T Ask(int32_t (*question)(const lamina_operator*, T*), const lamina_operator* op) {
  T answer = {};
  Check(question(op, &answer));
  return answer;
}

template <class T>
int32_t Parsed(const Result<T>& word) {
  if (!word.ok()) Refuse(word.status().message());
  return static_cast<int32_t>(*word);
}

}  // namespace

Context::Context(const std::string& backend, const std::string& isa, const std::string& accuracy, size_t threads,
                 bool spin, std::string implementation, std::string machine, uintptr_t stream)
    : implementation_(std::move(implementation)), machine_(std::move(machine)) {
  c_.size = sizeof(c_);
  c_.backend = Parsed(ParseBackend(backend));
  c_.isa = Parsed(ParseIsa(isa));
  c_.accuracy = Parsed(ParseAccuracy(accuracy));
  c_.stream = reinterpret_cast<void*>(stream);
  if (threads == 0) {
    if (spin) Refuse("context: spin needs threads of its own, got threads=0");
    return;
  }
  lamina_pool* pool = nullptr;
  Check(lamina_pool_create(threads, spin ? LAMINA_IDLE_SPIN : LAMINA_IDLE_SLEEP, &pool));
  pool_ = {pool, lamina_pool_destroy};
}

lamina_context Context::Get() const {
  lamina_context c = c_;
  c.pool = pool_.get();
  c.implementation = implementation_.empty() ? nullptr : implementation_.c_str();
  c.machine = machine_.empty() ? nullptr : machine_.c_str();
  return c;
}

Operator::Operator(lamina_operator* op, std::shared_ptr<lamina_pool> pool, bool on_cuda)
    : pool_(std::move(pool)), op_(op, lamina_destroy), on_cuda_(on_cuda) {}

Operator::Operator(const std::string& desc, const Tensors& weights, const Context& context) : pool_(context.pool()) {
  const Bound bound(weights);
  const lamina_context c = context.Get();
  on_cuda_ = c.backend == LAMINA_BACKEND_CUDA;
  lamina_operator* op = nullptr;
  CheckWithoutGil([&] { return lamina_prepare(desc.c_str(), bound.data(), bound.size(), &c, &op); });
  op_ = {op, lamina_destroy};
}

Operator Operator::LoadPacked(const std::string& path, const Context& context) {
  const lamina_context c = context.Get();
  lamina_operator* op = nullptr;
  CheckWithoutGil([&] { return lamina_load_packed(path.c_str(), &c, &op); });
  return {op, context.pool(), c.backend == LAMINA_BACKEND_CUDA};
}

void Operator::Run(const Tensors& tensors) const {
  const Bound bound(tensors);
  CheckWithoutGil([&] { return lamina_run(op_.get(), bound.data(), bound.size(), nullptr, 0); });
}

Array Operator::PrepareKeys(const Tensors& tensors) const {
  if (on_cuda_) Refuse(desc() + ": prepare_keys has memory of the CPU only, got a context of backend cuda");
  const Bound bound(tensors);
  Array prepared = Array::Empty({static_cast<int64_t>(prepared_keys_bytes())}, "u8");
  CheckWithoutGil(
      [&] { return lamina_prepare_keys(op_.get(), bound.data(), bound.size(), prepared.data(), nullptr, 0); });
  return prepared;
}

Operator Operator::Reshape(const std::string& desc) const {
  lamina_operator* op = nullptr;
  Check(lamina_reshape(op_.get(), desc.c_str(), &op));
  return {op, pool_, on_cuda_};
}

void Operator::SavePacked(const std::string& path) const {
  CheckWithoutGil([&] { return lamina_save_packed(op_.get(), path.c_str()); });
}

std::string Operator::desc() const { return Ask(lamina_descriptor, op_.get()); }
std::string Operator::implementation() const { return Ask(lamina_implementation, op_.get()); }
std::string Operator::Explain() const { return Ask(lamina_explain, op_.get()); }
size_t Operator::scratch_bytes() const { return Ask(lamina_scratch_bytes, op_.get()); }
size_t Operator::packed_bytes() const { return Ask(lamina_packed_bytes, op_.get()); }
size_t Operator::prepared_keys_bytes() const { return Ask(lamina_prepared_keys_bytes, op_.get()); }

}  // namespace lamina::python
