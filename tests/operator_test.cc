// What all five operators share: contexts, scratch, threads, Reshape. allocation_test.cc counts what Run allocates.
#include "lamina/operator.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "harness/additive_attention.h"
#include "harness/conv2d.h"
#include "harness/fully_connected.h"
#include "harness/multi_head_attention.h"
#include "harness/network.h"
#include "harness/problem.h"
#include "harness/separable_conv2d.h"
#include "lamina/machine.h"
#include "lamina/version.h"

namespace lamina {
namespace {

using harness::Case;
using harness::Fill;
using harness::Guard;
using harness::TensorStore;

// A pool that runs in the caller's thread, counts its calls, and claims any number of threads.
class CountingPool final : public ThreadPool {
 public:
  explicit CountingPool(size_t threads, double handoff_ns = 0) : threads_(threads), handoff_ns_(handoff_ns) {}
  size_t num_threads() const override { return threads_; }
  void ParallelFor(size_t count, void (*task)(void*, size_t), void* arg) override {
    ++calls;
    EXPECT_LE(count, threads_);
    for (size_t i = count; i-- > 0;) task(arg, i);  // any order is allowed: the last first
  }
  double handoff_ns() const override { return handoff_ns_; }
  int calls = 0;

 private:
  size_t threads_;
  double handoff_ns_;
};

template <class Op>
struct Sample;
template <>
struct Sample<Conv2d> {
  static constexpr const char* kText = "conv2d n=2 ih=17 iw=15 ic=24 oc=40 kh=3 kw=3 pad_top=1 pad_left=1";
  static auto Parse() { return ParseConv2d(kText); }
  static void Grow(Conv2dDesc& d) { d.ih += 5; }
  static void Alter(Conv2dDesc& d) { d.oc += 1; }
};
template <>
struct Sample<SeparableConv2d> {
  static constexpr const char* kText = "separable_conv2d n=2 ih=17 iw=15 ic=24 oc=40 pad_top=1 pad_left=1";
  static auto Parse() { return ParseSeparableConv2d(kText); }
  static void Grow(SeparableConv2dDesc& d) { d.ih += 5; }
  static void Alter(SeparableConv2dDesc& d) { d.oc += 1; }
};
template <>
struct Sample<FullyConnected> {
  static constexpr const char* kText = "fully_connected m=37 ic=50 oc=90";
  static auto Parse() { return ParseFullyConnected(kText); }
  static void Grow(FullyConnectedDesc& d) { d.m += 30; }
  static void Alter(FullyConnectedDesc& d) { d.ic += 1; }
};
template <>
struct Sample<AdditiveAttention> {
  static constexpr const char* kText = "additive_attention batch=3 queries=5 keys=20 query_dim=24 key_dim=16 units=40";
  static auto Parse() { return ParseAdditiveAttention(kText); }
  static void Grow(AdditiveAttentionDesc& d) { d.keys += 30; }
  static void Alter(AdditiveAttentionDesc& d) { d.units += 1; }
};
template <>
struct Sample<MultiHeadAttention> {
  static constexpr const char* kText =
      "multi_head_attention batch=2 num_heads=3 seqlen_q=40 seqlen_kv=50 head_dim=24 projections=1 model_dim=72 "
      "memory_dim=30";
  static auto Parse() { return ParseMultiHeadAttention(kText); }
  static void Grow(MultiHeadAttentionDesc& d) { d.seqlen_kv += 30; }
  static void Alter(MultiHeadAttentionDesc& d) { d.num_heads += 1; }
};

template <class Op>
class EveryOperator : public testing::Test {};
using Operators = testing::Types<Conv2d, SeparableConv2d, FullyConnected, AdditiveAttention, MultiHeadAttention>;
TYPED_TEST_SUITE(EveryOperator, Operators);

TYPED_TEST(EveryOperator, UsesTheInjectedPoolAndScratch) {
  const auto desc = Sample<TypeParam>::Parse();
  ASSERT_TRUE(desc.ok()) << desc.status().message();
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  Case<TypeParam> c(*desc, store);
  CountingPool pool(4);
  auto op = TypeParam::Prepare(*desc, c.weights, {.pool = &pool});
  ASSERT_TRUE(op.ok()) << op.status().message();
  const auto scratch = harness::GuardedScratch(op->scratch_bytes());
  const Status status = op->Run(c.tensors, scratch->data());
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_GT(pool.calls, 0);
  for (const auto& expected : harness::ReferenceFor(c, Accuracy::kDefault)) {
    const auto comparison = harness::Compare(expected);
    EXPECT_TRUE(comparison.ok) << comparison.message;
  }
}

TYPED_TEST(EveryOperator, KeepsSmallWorkInTheCallersThread) {
  const auto desc = Sample<TypeParam>::Parse();
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  Case<TypeParam> c(*desc, store);
  CountingPool pool(4, 1e12);
  auto op = TypeParam::Prepare(*desc, c.weights, {.pool = &pool});
  ASSERT_TRUE(op.ok()) << op.status().message();
  ASSERT_TRUE(op->Run(c.tensors).ok());
  EXPECT_EQ(pool.calls, 0);
  auto reshaped = op->Reshape(*desc);
  ASSERT_TRUE(reshaped.ok()) << reshaped.status().message();
  ASSERT_TRUE(reshaped->Run(c.tensors).ok());
  EXPECT_EQ(pool.calls, 0);
  for (const auto& expected : harness::ReferenceFor(c, Accuracy::kDefault)) {
    const auto comparison = harness::Compare(expected);
    EXPECT_TRUE(comparison.ok) << comparison.message;
  }
}

TYPED_TEST(EveryOperator, RunsFromManyThreadsAtOnce) {
  const auto desc = Sample<TypeParam>::Parse();
  TensorStore first(Fill::kNormal, Guard::kEnd, 1);
  Case<TypeParam> c(*desc, first);
  auto op = TypeParam::Prepare(*desc, c.weights, {.pool = &harness::PoolOf(2)});
  ASSERT_TRUE(op.ok());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      TensorStore store(Fill::kNormal, Guard::kEnd, 1);  // the same weights, outputs of its own
      Case<TypeParam> own(*desc, store);
      for (int repeat = 0; repeat < 5; ++repeat) {
        store.PoisonOutputs();
        if (!op->Run(own.tensors).ok()) ++wrong;
      }
      for (const auto& expected : harness::ReferenceFor(own, Accuracy::kDefault))
        wrong += !harness::Compare(expected).ok;
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0);
}

TYPED_TEST(EveryOperator, ReshapeKeepsTheImplementationAndGivesWhatPrepareGives) {
  const auto desc = Sample<TypeParam>::Parse();
  auto grown = *desc;
  Sample<TypeParam>::Grow(grown);
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  Case<TypeParam> c(grown, store);
  auto small = TypeParam::Prepare(*desc, c.weights, {.pool = &harness::PoolOf(1)});
  ASSERT_TRUE(small.ok()) << small.status().message();
  auto op = small->Reshape(grown);
  ASSERT_TRUE(op.ok()) << op.status().message();
  EXPECT_EQ(op->desc(), grown);
  EXPECT_EQ(op->implementation(), small->implementation());
  EXPECT_EQ(op->packed_bytes(), small->packed_bytes());
  store.PoisonOutputs();
  ASSERT_TRUE(op->Run(c.tensors).ok());
  for (const auto& expected : harness::ReferenceFor(c, Accuracy::kDefault)) {
    const auto comparison = harness::Compare(expected);
    EXPECT_TRUE(comparison.ok) << comparison.message;
  }
}

TYPED_TEST(EveryOperator, ReshapeRefusesAnotherLayer) {
  const auto desc = Sample<TypeParam>::Parse();
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  Case<TypeParam> c(*desc, store);
  auto op = TypeParam::Prepare(*desc, c.weights);
  ASSERT_TRUE(op.ok()) << op.status().message();
  auto other = *desc;
  Sample<TypeParam>::Alter(other);
  const auto refused = op->Reshape(other);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(refused.status().message().find("Reshape may change only run-time sizes"), std::string::npos)
      << refused.status().message();
}

TYPED_TEST(EveryOperator, ReshapeCostsMicroseconds) {
  const auto desc = Sample<TypeParam>::Parse();
  auto grown = *desc;
  Sample<TypeParam>::Grow(grown);
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  Case<TypeParam> c(*desc, store);
  auto op = TypeParam::Prepare(*desc, c.weights);
  ASSERT_TRUE(op.ok());
  double best = 1e9;
  for (int i = 0; i < 50; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const auto reshaped = op->Reshape(grown);
    best = std::min(best, std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
    ASSERT_TRUE(reshaped.ok());
  }
  EXPECT_LT(best, 1000) << "microseconds";  // measured: a few; the bound leaves room for sanitizers and busy machines
}

TYPED_TEST(EveryOperator, RefusesScratchThatIsNotAligned) {
  const auto desc = Sample<TypeParam>::Parse();
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  Case<TypeParam> c(*desc, store);
  auto op = TypeParam::Prepare(*desc, c.weights);
  ASSERT_TRUE(op.ok());
  const auto scratch = harness::GuardedScratch(op->scratch_bytes() + 64);
  const Status status = op->Run(c.tensors, scratch->template as<std::byte>() + 4);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("scratch must lie at a multiple of 64 bytes, got remainder=4"), std::string::npos)
      << status.message();
}

TYPED_TEST(EveryOperator, RefusesNullTensorsAndWeights) {
  const auto desc = Sample<TypeParam>::Parse();
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  Case<TypeParam> c(*desc, store);
  const auto unprepared = TypeParam::Prepare(*desc, {});
  ASSERT_FALSE(unprepared.ok());
  EXPECT_NE(unprepared.status().message().find("must not be null"), std::string::npos) << unprepared.status().message();
  auto op = TypeParam::Prepare(*desc, c.weights);
  ASSERT_TRUE(op.ok());
  const Status status = op->Run({});
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("must not be null"), std::string::npos) << status.message();
}

TYPED_TEST(EveryOperator, ExplainsEveryCandidate) {
  const auto desc = Sample<TypeParam>::Parse();
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  Case<TypeParam> c(*desc, store);
  auto op = TypeParam::Prepare(*desc, c.weights);
  ASSERT_TRUE(op.ok());
  const std::string text = op->Explain();
  EXPECT_EQ(text.find(ToString(*desc)), 0u) << text;
  EXPECT_NE(text.find("* " + op->implementation()), std::string::npos) << text;
  const auto reports = TypeParam::Candidates(*desc);
  ASSERT_TRUE(reports.ok());
  for (const auto& report : *reports) {
    EXPECT_NE(text.find(report.name), std::string::npos) << text;
    EXPECT_TRUE(report.accepted || !report.reason.empty());
    EXPECT_TRUE(!report.accepted || report.predicted_ns > 0) << report.name;
  }
}

TYPED_TEST(EveryOperator, EmptyWorkIsLegal) {
  auto desc = *Sample<TypeParam>::Parse();
  if constexpr (requires { desc.n; }) desc.n = 0;
  if constexpr (requires { desc.m; }) desc.m = 0;
  if constexpr (requires { desc.batch; }) desc.batch = 0;
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  Case<TypeParam> c(desc, store);
  auto op = TypeParam::Prepare(desc, c.weights);
  ASSERT_TRUE(op.ok()) << op.status().message();
  EXPECT_TRUE(op->Run({}).ok());
}

TEST(Contexts, AreRefusedWithTheReason) {
  const Conv2dDesc desc{.ih = 4, .iw = 4, .ic = 4, .oc = 4};
  const auto refusal = [&](const Context& context) {
    const auto op = Conv2d::Candidates(desc, context);
    return op.ok() ? Status{} : op.status();
  };
  const Status cuda = refusal({.backend = Backend::kCuda});
  if (!BuildInfo().cuda) {
    EXPECT_EQ(cuda.code(), StatusCode::kNotBuilt);
    EXPECT_NE(cuda.message().find("built without CUDA"), std::string::npos) << cuda.message();
  } else if (!cuda.ok()) {  // no GPU here
    EXPECT_EQ(cuda.code(), StatusCode::kUnsupportedHardware);
    EXPECT_NE(cuda.message().find("no CUDA device"), std::string::npos) << cuda.message();
  }
  EXPECT_NE(refusal({.backend = static_cast<Backend>(9)}).message().find("member of Backend, got 9"),
            std::string::npos);
  EXPECT_NE(refusal({.isa = static_cast<Isa>(9)}).message().find("member of Isa, got 9"), std::string::npos);
  EXPECT_NE(refusal({.accuracy = static_cast<Accuracy>(9)}).message().find("member of Accuracy, got 9"),
            std::string::npos);
  CountingPool none(0);
  EXPECT_NE(refusal({.pool = &none}).message().find("at least one thread"), std::string::npos);
  for (Isa isa : UnsupportedIsas()) EXPECT_EQ(refusal({.isa = isa}).code(), StatusCode::kUnsupportedHardware);
}

TEST(Contexts, AnUnknownImplementationIsRefused) {
  const Conv2dDesc desc{.ih = 4, .iw = 4, .ic = 4, .oc = 4};
  const std::vector<float> w(16), bias(4);
  const auto op = Conv2d::Prepare(desc, {w.data(), bias.data()}, {.implementation = "magic"});
  ASSERT_FALSE(op.ok());
  EXPECT_NE(op.status().message().find("implementation \"magic\" cannot be had"), std::string::npos);
}

TEST(ThreadPools, ZeroThreadsAreRefused) {
  const auto pool = MakeThreadPool(0);
  ASSERT_FALSE(pool.ok());
  EXPECT_EQ(pool.status().message(), "thread pool: threads must be at least 1, got threads=0");
  EXPECT_GE(AvailableThreads(), 1u);
}

TEST(ThreadPools, ANestedCallRunsSerially) {
  // An operator run from within a task of its own pool: pthreadpool itself would wait for ever.
  auto pool = MakeThreadPool(2);
  ASSERT_TRUE(pool.ok());
  const auto desc = ParseFullyConnected("fully_connected m=300 ic=64 oc=64");
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  Case<FullyConnected> c(*desc, store);
  auto op = FullyConnected::Prepare(*desc, c.weights, {.pool = pool->get()});
  ASSERT_TRUE(op.ok());
  struct Outer {
    const FullyConnected* op;
    const FullyConnectedTensors* tensors;
    std::atomic<int> failed{0};
  } outer{&*op, &c.tensors};
  (*pool)->ParallelFor(
      1,
      [](void* arg, size_t) {
        auto& o = *static_cast<Outer*>(arg);
        o.failed += !o.op->Run(*o.tensors).ok();
      },
      &outer);
  EXPECT_EQ(outer.failed.load(), 0);
  for (const auto& expected : c.Reference()) EXPECT_TRUE(harness::Compare(expected).ok);
}

// An algorithm that changed with the pool would change bits with it.
TEST(Choice, DoesNotDependOnTheNumberOfThreads) {
  const auto suite = harness::LoadSuite();
  ASSERT_TRUE(suite.ok()) << suite.status().message();
  for (const harness::Layer& layer : suite->layers) {
    const auto one = harness::CandidatesOf(layer.problem, {.pool = &harness::PoolOf(1)});
    const auto many = harness::CandidatesOf(layer.problem, {.pool = &harness::PoolOf(5)});
    ASSERT_TRUE(one.ok() && many.ok()) << layer.name;
    ASSERT_EQ(one->size(), many->size());
    for (size_t i = 0; i < one->size(); ++i) {
      EXPECT_EQ((*one)[i].reason, (*many)[i].reason) << layer.name;
      EXPECT_EQ((*one)[i].predicted_ns, (*many)[i].predicted_ns) << layer.name;
    }
  }
}

}  // namespace
}  // namespace lamina
