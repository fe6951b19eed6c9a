// Where and how an operator is prepared: backend, instruction set, threads, accuracy, and the caller's own resources.
#ifndef LAMINA_CONTEXT_H_
#define LAMINA_CONTEXT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/export.h"
#include "lamina/status.h"

namespace lamina {

struct Machine;  // machine.h

enum class Backend : int32_t {
  kCpu = 0,
  kReference = 1,  // naive loops in double, the oracle of every test; slow
  kCuda = 2,
};

// SIMD targets of the CPU path, as Highway names them. kBest is the widest one that this CPU runs.
enum class Isa : int32_t { kBest = 0, kScalar = 1, kSse4 = 2, kAvx2 = 3, kAvx3 = 4 };
inline constexpr int kIsaCount = 5;

// Which algorithms may be chosen.
enum class Accuracy : int32_t {
  kDefault = 0,  // fp32 algorithms within a stated multiple of the direct algorithm's bound
  kStrict = 1,   // the direct algorithm's bound
  kReduced = 2,  // products in TF32 or bf16 too
};

// The threads that kernels run on. An engine injects its own by deriving from this; Lamina then starts none.
class LAMINA_API ThreadPool {
 public:
  virtual ~ThreadPool();
  // Constant over the pool's life; at least 1.
  virtual size_t num_threads() const = 0;
  // Calls task(arg, i) once for each i in [0, count), count <= num_threads(), possibly at the same time, and returns
  // when all have returned. Never called from within a task.
  virtual void ParallelFor(size_t count, void (*task)(void* arg, size_t index), void* arg) = 0;
  // Nanoseconds that handing work to idle threads and waiting for them takes. What would gain less by sharing stays in
  // the caller's thread. 20 us unless overridden: sleeping threads.
  virtual double handoff_ns() const;
};

// What a pool's threads do between calls.
enum class Idle : int32_t {
  kSleep = 0,  // they leave their cores to others, and take some 20 us to wake
  kSpin = 1,   // they wait busily for a while before they sleep: for layers that follow each other closely
};

// A pool of `threads` threads (the caller's counts as one; 1 runs everything in the caller's thread). Fails on 0.
LAMINA_API Result<std::unique_ptr<ThreadPool>> MakeThreadPool(size_t threads, Idle idle = Idle::kSleep);

// The threads this process may use: the lesser of its CPU affinity and its cgroup's quota.
LAMINA_API size_t AvailableThreads();

struct Context {
  Backend backend = Backend::kCpu;
  Isa isa = Isa::kBest;  // kCpu: the SIMD target to use
  Accuracy accuracy = Accuracy::kDefault;
  ThreadPool* pool = nullptr;  // null: one shared pool of AvailableThreads(). Must outlive what is prepared with it
  void* stream = nullptr;      // kCuda: the cudaStream_t that Run enqueues on
  const Machine* machine = nullptr;  // of predictions; null: LAMINA_MACHINE's file, else built-in figures
  std::string implementation = {};   // empty: the least predicted time; else this candidate or a refusal
};

// One candidate's answer to one problem.
struct CandidateReport {
  std::string name;  // "cpu/AVX3/implicit_gemm"
  bool accepted = false;
  std::string reason;       // why it was refused; empty when accepted
  double predicted_ns = 0;  // when accepted; on one thread, so that no choice depends on the number of threads
  Accuracy accuracy = Accuracy::kStrict;  // whose bound it keeps; kStrict refuses all others
};

// The SIMD targets that are compiled in and that this CPU runs, widest first; and those compiled in that it does not.
LAMINA_API std::vector<Isa> SupportedIsas();
LAMINA_API std::vector<Isa> UnsupportedIsas();

LAMINA_API std::string_view ToString(Isa isa);            // "AVX3"
LAMINA_API std::string_view ToString(Backend backend);    // "cpu"
LAMINA_API std::string_view ToString(Accuracy accuracy);  // "strict"
LAMINA_API Result<Isa> ParseIsa(std::string_view text);   // case-insensitive; "best" too
LAMINA_API Result<Backend> ParseBackend(std::string_view text);
LAMINA_API Result<Accuracy> ParseAccuracy(std::string_view text);

}  // namespace lamina

#endif  // LAMINA_CONTEXT_H_
