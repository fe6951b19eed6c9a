// The default pool: pthreadpool (BSD, from the distribution), because its workers wake in microseconds and sleep when
// idle.
#include "kernels/cpu/thread_pool.h"

#include <pthreadpool.h>
#include <sched.h>

#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#if defined(__SANITIZE_THREAD__)
#define LAMINA_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LAMINA_TSAN 1
#endif
#endif
#ifdef LAMINA_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace lamina {

ThreadPool::~ThreadPool() = default;
double ThreadPool::handoff_ns() const { return 20e3; }

namespace {

// True on a thread that runs a task of any pool, or work too small to share. Whatever parallel call comes then runs
// serially.
thread_local bool in_task = false;

// pthreadpool is not built with the sanitizer, so the happens-before edges of its hand-over are told here.
void Release([[maybe_unused]] void* address) {
#ifdef LAMINA_TSAN
  __tsan_release(address);
#endif
}
void Acquire([[maybe_unused]] void* address) {
#ifdef LAMINA_TSAN
  __tsan_acquire(address);
#endif
}

class PthreadPool final : public ThreadPool {
 public:
  PthreadPool(pthreadpool_t pool, Idle idle) : pool_(pool), idle_(idle) {}
  ~PthreadPool() override { pthreadpool_destroy(pool_); }
  size_t num_threads() const override { return pthreadpool_get_threads_count(pool_); }

  void ParallelFor(size_t count, void (*task)(void*, size_t), void* arg) override {
    struct Call {
      void (*task)(void*, size_t);
      void* arg;
    } call{task, arg};
    if (in_task) {  // pthreadpool would wait for itself for ever
      for (size_t i = 0; i < count; ++i) task(arg, i);
      return;
    }
    Release(&call);
    pthreadpool_parallelize_1d(
        pool_,
        [](void* c, size_t i) {
          Acquire(c);
          {
            const cpu::SerialScope scope;
            static_cast<Call*>(c)->task(static_cast<Call*>(c)->arg, i);
          }
          Release(c);
        },
        &call, count, idle_ == Idle::kSleep ? PTHREADPOOL_FLAG_YIELD_WORKERS : 0);
    Acquire(&call);
  }

  double handoff_ns() const override { return idle_ == Idle::kSleep ? ThreadPool::handoff_ns() : 2e3; }

 private:
  pthreadpool_t pool_;
  Idle idle_;
};

// CPUs' worth of time that the cgroup (version 2, then 1) grants, or a large number.
double CgroupQuota() {
  double quota = 0, period = 0;
  if (std::FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    const int read = std::fscanf(f, "%lf %lf", &quota, &period);
    std::fclose(f);
    if (read == 2 && period > 0) return quota / period;
    return 1e9;  // "max"
  }
  const auto read_one = [](const char* path, double* value) {
    std::FILE* f = std::fopen(path, "r");
    if (f == nullptr) return false;
    const bool ok = std::fscanf(f, "%lf", value) == 1;
    std::fclose(f);
    return ok;
  };
  if (read_one("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", &quota) &&
      read_one("/sys/fs/cgroup/cpu/cpu.cfs_period_us", &period) && quota > 0 && period > 0) {
    return quota / period;
  }
  return 1e9;
}

}  // namespace

size_t AvailableThreads() {
  size_t threads = std::max(1u, std::thread::hardware_concurrency());
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) threads = std::max(1, CPU_COUNT(&set));
  const double quota = CgroupQuota();
  if (quota < static_cast<double>(threads)) threads = std::max<size_t>(1, static_cast<size_t>(quota + 0.5));
  return threads;
}

Result<std::unique_ptr<ThreadPool>> MakeThreadPool(size_t threads, Idle idle) {
  if (threads == 0) return InvalidArgument("thread pool: threads must be at least 1, got threads=0");
  if (idle != Idle::kSleep && idle != Idle::kSpin) {
    return InvalidArgument("thread pool: idle must be a member of Idle, got " + std::to_string(static_cast<int>(idle)));
  }
  pthreadpool_t pool = pthreadpool_create(threads);
  if (pool == nullptr) {
    return Status{StatusCode::kOutOfMemory, "thread pool: cannot create " + std::to_string(threads) + " threads"};
  }
  return std::unique_ptr<ThreadPool>(new PthreadPool(pool, idle));
}

namespace cpu {

ThreadPool& DefaultThreadPool() {
  // Never destroyed: a kernel may still run in another thread while the process ends.
  static ThreadPool* const pool = [] {
    for (size_t threads = AvailableThreads();; threads /= 2) {
      auto made = MakeThreadPool(std::max<size_t>(1, threads));
      if (made.ok()) return made->release();
    }
  }();
  return *pool;
}

bool InParallel() { return in_task; }

SerialScope::SerialScope(bool serial) : outer_(in_task) { in_task = outer_ || serial; }
SerialScope::~SerialScope() { in_task = outer_; }

void RunWorkers(ThreadPool& pool, size_t count, void (*body)(void*, size_t), void* arg) {
  if (in_task) return body(arg, 0);
  struct Call {
    void (*body)(void*, size_t);
    void* arg;
  } call{body, arg};
  pool.ParallelFor(
      count,
      [](void* c, size_t worker) {
        const cpu::SerialScope scope;
        static_cast<Call*>(c)->body(static_cast<Call*>(c)->arg, worker);
      },
      &call);
}

}  // namespace cpu
}  // namespace lamina
