// The functions of lamina/c.h: each translates, calls the C++ interface and keeps exceptions and sentences in.
#include <cstring>
#include <variant>

#include "bindings/c/entry.h"
#include "bindings/c/guard.h"
#include "bindings/c/slots.h"
#include "lamina/problem.h"
#include "lamina/version.h"

struct lamina_pool {
  std::unique_ptr<lamina::ThreadPool> pool;
};

namespace lamina::c {
namespace {

static_assert(int32_t{LAMINA_DEVICE_ERROR} == static_cast<int32_t>(StatusCode::kDeviceError));
static_assert(int32_t{LAMINA_OUT_OF_MEMORY} == static_cast<int32_t>(StatusCode::kOutOfMemory));
static_assert(int32_t{LAMINA_F16} == static_cast<int32_t>(DType::kF16));
static_assert(int32_t{LAMINA_BACKEND_CUDA} == static_cast<int32_t>(Backend::kCuda));
static_assert(int32_t{LAMINA_ISA_AVX3} == static_cast<int32_t>(Isa::kAvx3));
static_assert(int32_t{LAMINA_IDLE_SPIN} == static_cast<int32_t>(Idle::kSpin));
static_assert(int32_t{LAMINA_ACCURACY_REDUCED} == static_cast<int32_t>(Accuracy::kReduced));

thread_local std::string last_error;
thread_local const char* last_error_text = "";

// The problem that the caller's text says, valid.
Result<Problem> ProblemOf(const char* desc) {
  if (desc == nullptr) return MustNotBeNull("desc");
  auto problem = ParseProblem(desc);
  if (!problem.ok()) return problem;
  if (Status s = ValidateProblem(*problem); !s.ok()) return s;
  return problem;
}

// f(desc, Entry<Desc>) of the problem's own descriptor.
template <class F>
auto Visit(const Problem& problem, const F& f) {
  return std::visit([&]<class Desc>(const Desc& desc) { return f(desc, Entry<Desc>()); }, problem);
}

Result<OwnedContext> ContextOf(const lamina_context* given) {
  OwnedContext owned;
  if (given == nullptr) return owned;
  lamina_context c;
  if (!CopySized(given, sizeof(lamina_context), &c, sizeof(c))) {
    return InvalidArgument("context: size must be sizeof(lamina_context)=" + std::to_string(sizeof(c)) + ", got " +
                           std::to_string(c.size));
  }
  owned.context.backend = static_cast<Backend>(c.backend);
  owned.context.isa = static_cast<Isa>(c.isa);
  owned.context.accuracy = static_cast<Accuracy>(c.accuracy);
  if (c.pool != nullptr) owned.context.pool = c.pool->pool.get();
  owned.context.stream = c.stream;
  if (c.implementation != nullptr) owned.context.implementation = c.implementation;
  if (c.machine != nullptr) {
    auto machine = ParseMachine(c.machine);
    if (!machine.ok()) return machine.status();
    owned.machine = std::make_shared<const Machine>(std::move(*machine));
    owned.context.machine = owned.machine.get();
  }
  return owned;
}

class WrappedPool final : public ThreadPool {
 public:
  explicit WrappedPool(const lamina_pool_functions& f) : f_(f) {}
  size_t num_threads() const override { return f_.num_threads(f_.self); }
  void ParallelFor(size_t count, void (*task)(void*, size_t), void* arg) override {
    f_.parallel_for(f_.self, count, task, arg);
  }
  double handoff_ns() const override { return f_.handoff_ns > 0 ? f_.handoff_ns : ThreadPool::handoff_ns(); }

 private:
  lamina_pool_functions f_;
};

// A question about a prepared operator: value(op) is a Result of the answer.
template <class T, class F>
int32_t Ask(const lamina_operator* op, T* answer, const F& value) {
  return Guard([&]() -> Status {
    if (op == nullptr) return MustNotBeNull("op");
    if (answer == nullptr) return MustNotBeNull("the place for the answer");
    const Result<T> result = value(*op);
    if (!result.ok()) return result.status();
    *answer = *result;
    return {};
  });
}

}  // namespace

int32_t Fail(int32_t code, std::string_view sentence) {
  try {
    last_error = sentence;
    last_error_text = last_error.c_str();
  } catch (...) {
    last_error_text = "out of memory while saying what failed";
  }
  return code;
}

}  // namespace lamina::c

using namespace lamina;     // NOLINT: what follows is the border itself
using namespace lamina::c;  // NOLINT

extern "C" {

const char* lamina_version(void) {
  static const std::string version(BuildInfo().version);
  return version.c_str();
}

const char* lamina_build_info(void) {
  static const std::string info = ToString(BuildInfo());
  return info.c_str();
}

const char* lamina_last_error(void) { return last_error_text; }

int32_t lamina_pool_create(size_t threads, int32_t idle, lamina_pool** pool) {
  return Guard([&]() -> Status {
    if (pool == nullptr) return MustNotBeNull("pool");
    *pool = nullptr;
    auto made = MakeThreadPool(threads, static_cast<Idle>(idle));
    if (!made.ok()) return made.status();
    *pool = new lamina_pool{std::move(*made)};
    return {};
  });
}

int32_t lamina_pool_wrap(const lamina_pool_functions* functions, lamina_pool** pool) {
  return Guard([&]() -> Status {
    if (pool == nullptr) return MustNotBeNull("pool");
    *pool = nullptr;
    if (functions == nullptr) return MustNotBeNull("functions");
    lamina_pool_functions f;
    if (!CopySized(functions, sizeof(f), &f, sizeof(f))) {
      return InvalidArgument("pool: size must be sizeof(lamina_pool_functions)=" + std::to_string(sizeof(f)) +
                             ", got " + std::to_string(f.size));
    }
    if (f.num_threads == nullptr || f.parallel_for == nullptr) return MustNotBeNull("num_threads and parallel_for");
    *pool = new lamina_pool{std::make_unique<WrappedPool>(f)};
    return {};
  });
}

void lamina_pool_destroy(lamina_pool* pool) { delete pool; }

int32_t lamina_tensors(const char* desc, lamina_tensor* tensors, size_t capacity, size_t* count) {
  return Guard([&]() -> Status {
    if (count == nullptr) return MustNotBeNull("count");
    *count = 0;
    if (capacity > 0) {
      if (tensors == nullptr) return MustNotBeNull("tensors");
      if (tensors->size < sizeof(lamina_tensor)) {
        return InvalidArgument("size of tensors[0] must be sizeof(lamina_tensor)=" +
                               std::to_string(sizeof(lamina_tensor)) + ", got " + std::to_string(tensors->size));
      }
    }
    const auto problem = ProblemOf(desc);
    if (!problem.ok()) return problem.status();
    Visit(*problem, [&](const auto& d, auto entry) { entry.Describe(d, tensors, capacity, count); });
    return {};
  });
}

int32_t lamina_cost_of(const char* desc, lamina_cost* cost) {
  return Guard([&]() -> Status {
    if (cost == nullptr) return MustNotBeNull("cost");
    if (cost->size < sizeof(lamina_cost)) {
      return InvalidArgument("cost: size must be sizeof(lamina_cost)=" + std::to_string(sizeof(lamina_cost)) +
                             ", got " + std::to_string(cost->size));
    }
    const auto problem = ProblemOf(desc);
    if (!problem.ok()) return problem.status();
    const Cost c = CostOf(*problem);
    *cost = {cost->size, c.macs, c.flops(), c.transcendentals, c.params, c.weight_bytes, c.activation_bytes};
    return {};
  });
}

int32_t lamina_candidates(const char* desc, const lamina_context* context,
                          void (*visit)(void* arg, const lamina_candidate* candidate), void* arg) {
  return Guard([&]() -> Status {
    if (visit == nullptr) return MustNotBeNull("visit");
    const auto problem = ProblemOf(desc);
    if (!problem.ok()) return problem.status();
    const auto owned = ContextOf(context);
    if (!owned.ok()) return owned.status();
    const auto reports =
        Visit(*problem, [&](const auto& d, auto entry) { return entry.Candidates(d, owned->context); });
    if (!reports.ok()) return reports.status();
    for (const CandidateReport& r : *reports) {
      const lamina_candidate candidate = {sizeof(lamina_candidate),
                                          r.name.c_str(),
                                          r.accepted ? nullptr : r.reason.c_str(),
                                          r.predicted_ns,
                                          static_cast<int32_t>(r.accuracy),
                                          0};
      visit(arg, &candidate);
    }
    return {};
  });
}

int32_t lamina_prepare(const char* desc, const lamina_tensor* weights, size_t count, const lamina_context* context,
                       lamina_operator** op) {
  return Guard([&]() -> Status {
    if (op == nullptr) return MustNotBeNull("op");
    *op = nullptr;
    const auto problem = ProblemOf(desc);
    if (!problem.ok()) return problem.status();
    const auto owned = ContextOf(context);
    if (!owned.ok()) return owned.status();
    auto prepared =
        Visit(*problem, [&](const auto& d, auto entry) { return entry.Prepare(d, weights, count, *owned); });
    if (!prepared.ok()) return prepared.status();
    *op = prepared->release();
    return {};
  });
}

int32_t lamina_save_packed(const lamina_operator* op, const char* path) {
  return Guard([&]() -> Status {
    if (op == nullptr) return MustNotBeNull("op");
    if (path == nullptr) return MustNotBeNull("path");
    return op->SavePacked(path);
  });
}

int32_t lamina_load_packed(const char* path, const lamina_context* context, lamina_operator** op) {
  return Guard([&]() -> Status {
    if (op == nullptr) return MustNotBeNull("op");
    *op = nullptr;
    if (path == nullptr) return MustNotBeNull("path");
    const auto owned = ContextOf(context);
    if (!owned.ok()) return owned.status();
    const auto problem = PackedProblem(path);
    if (!problem.ok()) return problem.status();
    auto loaded = Visit(*problem, [&](const auto&, auto entry) { return entry.LoadPacked(path, *owned); });
    if (!loaded.ok()) return loaded.status();
    *op = loaded->release();
    return {};
  });
}

int32_t lamina_reshape(const lamina_operator* op, const char* desc, lamina_operator** reshaped) {
  return Guard([&]() -> Status {
    if (reshaped == nullptr) return MustNotBeNull("reshaped");
    *reshaped = nullptr;
    if (op == nullptr) return MustNotBeNull("op");
    if (desc == nullptr) return MustNotBeNull("desc");
    auto made = op->Reshape(desc);
    if (!made.ok()) return made.status();
    *reshaped = made->release();
    return {};
  });
}

int32_t lamina_run(const lamina_operator* op, const lamina_tensor* tensors, size_t count, void* scratch,
                   size_t scratch_bytes) {
  return Guard([&]() -> Status {
    if (op == nullptr) return MustNotBeNull("op");
    return op->Run(tensors, count, scratch, scratch_bytes);
  });
}

void lamina_destroy(lamina_operator* op) { delete op; }

int32_t lamina_scratch_bytes(const lamina_operator* op, size_t* bytes) {
  return Ask(op, bytes, [](const lamina_operator& o) -> Result<size_t> { return o.scratch_bytes; });
}

int32_t lamina_packed_bytes(const lamina_operator* op, size_t* bytes) {
  return Ask(op, bytes, [](const lamina_operator& o) -> Result<size_t> { return o.packed_bytes; });
}

int32_t lamina_implementation(const lamina_operator* op, const char** name) {
  return Ask(op, name, [](const lamina_operator& o) -> Result<const char*> { return o.implementation.c_str(); });
}

int32_t lamina_descriptor(const lamina_operator* op, const char** desc) {
  return Ask(op, desc, [](const lamina_operator& o) -> Result<const char*> { return o.desc.c_str(); });
}

int32_t lamina_explain(const lamina_operator* op, const char** text) {
  return Ask(op, text, [](const lamina_operator& o) -> Result<const char*> { return o.Explain().c_str(); });
}

int32_t lamina_prepared_keys_bytes(const lamina_operator* op, size_t* bytes) {
  return Ask(op, bytes, [](const lamina_operator& o) { return o.PreparedKeysBytes(); });
}

int32_t lamina_prepare_keys(const lamina_operator* op, const lamina_tensor* tensors, size_t count, void* prepared_keys,
                            void* scratch, size_t scratch_bytes) {
  return Guard([&]() -> Status {
    if (op == nullptr) return MustNotBeNull("op");
    return op->PrepareKeys(tensors, count, prepared_keys, scratch, scratch_bytes);
  });
}

}  // extern "C"
