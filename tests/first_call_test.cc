// Nothing is put off to the first Run after Prepare: weights are packed, and their pages touched, in Prepare. Tensors
// and scratch are warm.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>

#include "harness/network.h"
#include "harness/problem.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LAMINA_TIMES 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define LAMINA_TIMES 0
#endif
#endif
#ifndef LAMINA_TIMES
#define LAMINA_TIMES 1
#endif

namespace lamina {
namespace {

int64_t PageFaults() {
  rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

// The least of a few first calls: the kernel takes a page away now and then.
TEST(FirstCall, TouchesNoPageForTheFirstTime) {
  if (!LAMINA_TIMES) GTEST_SKIP() << "a sanitizer has pages of its own";
  const auto suite = harness::LoadSuite();
  ASSERT_TRUE(suite.ok()) << suite.status().message();
  for (const harness::Layer& layer : suite->layers) {
    const auto runner = harness::MakeRunner(layer.problem, {.pool = &harness::PoolOf(1)}, 1);
    ASSERT_TRUE(runner.ok()) << runner.status().message();
    ASSERT_TRUE((*runner)->Run().ok());
    int64_t least = std::numeric_limits<int64_t>::max();
    for (int i = 0; i < 5 && least > 0; ++i) {
      ASSERT_TRUE((*runner)->PrepareAgain().ok());
      const int64_t before = PageFaults();
      ASSERT_TRUE((*runner)->Run().ok());
      least = std::min(least, PageFaults() - before);
    }
    EXPECT_EQ(least, 0) << layer.name;
  }
}

double NsOfRun(harness::Runner& runner) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(runner.Run().ok());
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
}

// Times of the least of a few calls: other work on the machine lengthens some of them.
TEST(FirstCall, TakesNoLongerThanALaterOne) {
  if (!LAMINA_TIMES) GTEST_SKIP() << "a sanitizer's times say nothing";
  const auto suite = harness::LoadSuite();
  ASSERT_TRUE(suite.ok()) << suite.status().message();
  for (const harness::Layer& layer : suite->layers) {
    const auto runner = harness::MakeRunner(layer.problem, {.pool = &harness::PoolOf(1)}, 1);
    ASSERT_TRUE(runner.ok()) << runner.status().message();
    // Long calls are interrupted too often, and what Prepare and the tensors do not leave in the caches is not warm.
    if ((*runner)->cost().macs > 60'000'000 || (*runner)->cost().bytes() > 5 << 20) continue;
    double first = NsOfRun(**runner), later = first;
    for (int i = 0; i < 8; ++i) {
      for (int n = 0; n < 3; ++n) later = std::min(later, NsOfRun(**runner));
      const Status prepared = (*runner)->PrepareAgain();
      ASSERT_TRUE(prepared.ok()) << prepared.message();
      first = std::min(first, NsOfRun(**runner));
    }
    // Hardly above 1 on an idle machine (docs/performance.md).
    EXPECT_LT(first, 3 * later) << layer.name;
    RecordProperty(layer.name, std::to_string(first / later));
  }
}

}  // namespace
}  // namespace lamina
