// ParallelTasks: each task once whatever their number and the pool's, and nobody's share left where a thread is away.
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "kernels/cpu/thread_pool.h"

namespace lamina {
namespace {

// So many threads in name; runs `present` of the workers, in turn, on the caller's thread.
class Workers final : public ThreadPool {
 public:
  Workers(size_t threads, size_t present) : threads_(threads), present_(present) {}
  size_t num_threads() const override { return threads_; }
  void ParallelFor(size_t count, void (*task)(void*, size_t), void* arg) override {
    for (size_t i = count; i-- > 0;) {  // the last one first: it must find the others' shares
      if (i + present_ >= count) task(arg, i);
    }
  }

 private:
  size_t threads_, present_;
};

TEST(ParallelTasks, EachOnceWhoeverComes) {
  for (size_t threads : {1, 2, 3, 63, 64, 65, 200}) {
    for (size_t tasks : {0, 1, 2, 3, 64, 65, 130, 1000}) {
      for (size_t present : {size_t{1}, threads}) {
        Workers pool(threads, present);
        std::vector<int> done(tasks, 0);
        cpu::ParallelTasks(pool, tasks, [&](size_t task, size_t worker) {
          EXPECT_LT(worker, threads);
          ++done[task];
        });
        EXPECT_EQ(done, std::vector<int>(tasks, 1)) << threads << " threads, " << present << " of them there";
      }
    }
  }
}

TEST(ParallelTasks, EachOnceOnRealThreads) {
  const auto pool = MakeThreadPool(4);
  ASSERT_TRUE(pool.ok());
  for (int call = 0; call < 200; ++call) {
    std::vector<std::atomic<int>> done(37);
    cpu::ParallelTasks(**pool, done.size(), [&](size_t task, size_t) { ++done[task]; });
    for (const auto& count : done) ASSERT_EQ(count.load(), 1);
  }
}

// Whoever comes does its own share first, and then the others' in their order.
TEST(ParallelTasks, AWorkerBeginsWithItsOwnShare) {
  Workers pool(4, 1);
  for (int call = 0; call < 2; ++call) {
    std::vector<size_t> order;
    cpu::ParallelTasks(pool, 8, [&](size_t task, size_t worker) {
      EXPECT_EQ(worker, 3u);
      order.push_back(task);
    });
    EXPECT_EQ(order, (std::vector<size_t>{6, 7, 0, 1, 2, 3, 4, 5}));
  }
}

}  // namespace
}  // namespace lamina
