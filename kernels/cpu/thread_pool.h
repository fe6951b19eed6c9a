// Tasks over a ThreadPool: shares that balance themselves on top of its plain ParallelFor, nested calls serial.
#ifndef LAMINA_KERNELS_CPU_THREAD_POOL_H_
#define LAMINA_KERNELS_CPU_THREAD_POOL_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <iterator>

#include "lamina/context.h"

namespace lamina::cpu {

// The pool that contexts without one share; made on first use.
ThreadPool& DefaultThreadPool();

// True on a thread that is running a task.
bool InParallel();

// While it lives, parallel calls of this thread run serially.
class SerialScope {
 public:
  explicit SerialScope(bool serial = true);
  ~SerialScope();
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;

 private:
  bool outer_;
};

// Runs body(arg, worker) for workers 0..count-1 on the pool, or worker 0 alone here when nested, then returns.
void RunWorkers(ThreadPool& pool, size_t count, void (*body)(void* arg, size_t worker), void* arg);

// f(task, worker) once for each task in [0, tasks), in any order on any worker; worker < pool.num_threads() names a
// part of scratch that no other task uses meanwhile. What a task computes must not depend on the worker, so that
// results do not depend on the number of threads.
//
// Each worker begins with a share of its own, the same one in every call, and then helps the others: what a task wrote
// in the last call is still in its core's caches. Where tasks went to whoever came first, 14x14x512 depthwise took 37
// us instead of 25, 5x5 at 28x28x120 43 instead of 31 (two threads, Zen 4, 2026-11-26, medians).
template <class F>
void ParallelTasks(ThreadPool& pool, size_t tasks, const F& f) {
  const size_t workers = std::min(tasks, pool.num_threads());
  if (workers <= 1 || InParallel()) {
    for (size_t t = 0; t < tasks; ++t) f(t, size_t{0});
    return;
  }
  struct Job {
    struct alignas(64) Share {
      std::atomic<size_t> next;
      size_t end;
    };
    Share shares[64];  // of more workers several begin in one
    size_t count;
    const F* f;
  } job;
  job.count = std::min(workers, std::size(job.shares));
  for (size_t i = 0; i < job.count; ++i) {
    job.shares[i].next.store(i * tasks / job.count, std::memory_order_relaxed);
    job.shares[i].end = (i + 1) * tasks / job.count;
  }
  job.f = &f;
  RunWorkers(
      pool, workers,
      [](void* arg, size_t worker) {
        Job& j = *static_cast<Job*>(arg);
        for (size_t i = 0; i < j.count; ++i) {
          typename Job::Share& share = j.shares[(worker + i) % j.count];
          for (size_t t; (t = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) (*j.f)(t, worker);
        }
      },
      &job);
}

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_THREAD_POOL_H_
