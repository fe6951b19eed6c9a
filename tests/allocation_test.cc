// Run's memory: none with the caller's scratch, none after a thread's first call without it. Every candidate on every
// SIMD target, with one thread and two; whatever asks the C library for memory is counted, on any thread.
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "harness/additive_attention.h"
#include "harness/conv2d.h"
#include "harness/fully_connected.h"
#include "harness/multi_head_attention.h"
#include "harness/separable_conv2d.h"
#include "lamina/c.h"

// A sanitizer brings an allocator of its own, and only glibc has a second name for each of its functions.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define LAMINA_COUNTS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define LAMINA_COUNTS 0
#endif
#endif
#ifndef LAMINA_COUNTS
#define LAMINA_COUNTS 1
#endif

namespace {
std::atomic<int64_t> allocations{0};
}  // namespace

#if LAMINA_COUNTS
extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* p, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);

// The program's own, which its libraries call too. operator new is among the callers of malloc.
void* malloc(size_t bytes) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, bytes);
}
void* realloc(void* p, size_t bytes) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(p, bytes);
}
void* memalign(size_t alignment, size_t bytes) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) noexcept { return memalign(alignment, bytes); }
int posix_memalign(void** p, size_t alignment, size_t bytes) noexcept {
  *p = memalign(alignment, bytes);
  return *p == nullptr ? ENOMEM : 0;
}
}
#endif

namespace lamina {
namespace {

using harness::Case;
using harness::Fill;
using harness::Guard;
using harness::TensorStore;

// Problems that each operator's candidates accept among them, every kind of epilogue included.
template <class Op>
struct Problems;
template <>
struct Problems<Conv2d> {
  static constexpr const char* kTexts[] = {
      "conv2d ih=17 iw=15 ic=24 oc=40 activation=gelu_erf residual=before",
      "conv2d n=2 ih=17 iw=15 ic=24 oc=40 kh=3 kw=3 pad_top=1 pad_left=1 residual=after",
      "conv2d n=2 ih=17 iw=15 ic=24 oc=40 kh=3 kw=3 pad_top=1 pad_left=1 layout=nchw weight_layout=oihw",
      "conv2d ih=14 iw=14 ic=40 oc=100 kh=5 kw=5 pad_top=2 pad_left=2 activation=gelu_erf residual=before",
      "conv2d ih=33 iw=33 ic=3 oc=20 kh=7 kw=7 stride_h=2 stride_w=2 pad_top=3 pad_left=3",
      "conv2d ih=17 iw=15 ic=24 oc=40 layout=nchw activation=relu",
      "conv2d ih=17 iw=15 ic=32 oc=64 kh=3 kw=3 groups=8 pad_top=1 pad_left=1 activation=gelu_erf",
      "conv2d ih=17 iw=15 ic=37 oc=37 kh=3 kw=3 groups=37 pad_top=1 pad_left=1 activation=gelu_erf residual=before",
      "conv2d ih=17 iw=15 ic=24 oc=48 kh=4 kw=4 groups=24 stride_h=2 stride_w=2 layout=nchw",
      "conv2d ih=17 iw=15 ic=24 oc=24 kh=3 kw=3 groups=24 pad_top=1 pad_left=1 layout=nchw"};
  static auto Parse(const char* text) { return ParseConv2d(text); }
};
template <>
struct Problems<SeparableConv2d> {
  static constexpr const char* kTexts[] = {
      "separable_conv2d n=2 ih=17 iw=15 ic=24 oc=40 pad_top=1 pad_left=1 depthwise_activation=gelu_erf residual=before",
      "separable_conv2d ih=17 iw=15 ic=24 oc=40 stride_h=2 stride_w=2 layout=nchw project_activation=gelu_erf",
      "separable_conv2d ih=17 iw=15 ic=24 oc=40 order=pw_dw pad_top=1 pad_left=1 depthwise_activation=relu",
      "separable_conv2d ih=17 iw=15 ic=24 hidden=70 oc=24 order=pw_dw_pw expand_activation=relu6 residual=after"};
  static auto Parse(const char* text) { return ParseSeparableConv2d(text); }
};
template <>
struct Problems<FullyConnected> {
  static constexpr const char* kTexts[] = {"fully_connected m=37 ic=50 oc=90 activation=gelu_erf residual=before",
                                           "fully_connected ic=1700 oc=300", "fully_connected m=70 ic=1700 oc=30"};
  static auto Parse(const char* text) { return ParseFullyConnected(text); }
};
template <>
struct Problems<AdditiveAttention> {
  static constexpr const char* kTexts[] = {
      "additive_attention batch=3 queries=5 keys=20 query_dim=24 key_dim=16 units=40",
      "additive_attention batch=2 keys=70 query_dim=24 key_dim=16 units=40 value_dim=30 bias=1 normalized=1 mask=1"};
  static auto Parse(const char* text) { return ParseAdditiveAttention(text); }
};
template <>
struct Problems<MultiHeadAttention> {
  static constexpr const char* kTexts[] = {
      "multi_head_attention batch=2 num_heads=3 seqlen_q=40 seqlen_kv=50 head_dim=24 causal=bottom_right alibi=1",
      "multi_head_attention batch=2 num_heads=4 num_kv_heads=2 seqlen_q=1 seqlen_kv=1100 head_dim=64 layout=bhsd",
      "multi_head_attention num_heads=3 seqlen_q=5 seqlen_kv=50 head_dim=24 mask=1 bias=1 softcap=4",
      "multi_head_attention num_heads=3 seqlen_q=40 seqlen_kv=50 head_dim=24 projections=1 model_dim=72 memory_dim=30",
      "multi_head_attention num_heads=4 seqlen_q=40 seqlen_kv=40 head_dim=16 projections=1 model_dim=64"};
  static auto Parse(const char* text) { return ParseMultiHeadAttention(text); }
};

// How often memory was asked for while `call` ran.
template <class F>
int64_t AllocationsOf(const F& call) {
  const int64_t before = allocations.load();
  const Status status = call();
  const int64_t after = allocations.load();
  EXPECT_TRUE(status.ok()) << status.message();
  return after - before;
}

// All entry points of a prepared operator, on a thread that has never called the library.
template <class Op>
void CheckCalls(const Op& op, const typename Op::Tensors& tensors, const std::string& where) {
  const auto scratch = harness::GuardedScratch(op.scratch_bytes());
  const auto check = [&](const char* what, const auto& run) {
    std::thread([&] {
      EXPECT_EQ(AllocationsOf([&] { return run(scratch->data()); }), 0) << where << what << ", the caller's scratch";
    }).join();
    std::thread([&] {
      AllocationsOf([&] { return run(nullptr); });
      EXPECT_EQ(AllocationsOf([&] { return run(nullptr); }), 0) << where << what << ", the second call of a thread";
    }).join();
  };
  check("Run", [&](void* memory) { return op.Run(tensors, memory); });
  if constexpr (requires { op.prepared_keys_bytes(); }) {
    const auto keys = harness::GuardedScratch(op.prepared_keys_bytes());
    typename Op::Tensors prepared = tensors;
    prepared.prepared_keys = keys->data();
    check("PrepareKeys",
          [&](void* memory) { return op.PrepareKeys(tensors.keys, tensors.key_lengths, keys->data(), memory); });
    check("Run with prepared keys", [&](void* memory) { return op.Run(prepared, memory); });
  }
}

template <class Op>
class Allocation : public testing::Test {};
using Operators = testing::Types<Conv2d, SeparableConv2d, FullyConnected, AdditiveAttention, MultiHeadAttention>;
TYPED_TEST_SUITE(Allocation, Operators);

TYPED_TEST(Allocation, RunOfEveryCandidateAllocatesNothing) {
  if (!LAMINA_COUNTS) GTEST_SKIP() << "allocations cannot be counted here";
  using Op = TypeParam;
  std::set<std::string> names, run;
  for (const char* text : Problems<Op>::kTexts) {
    const auto desc = Problems<Op>::Parse(text);
    ASSERT_TRUE(desc.ok()) << desc.status().message();
    for (const CandidateReport& candidate : *Op::Candidates(*desc)) names.insert(candidate.name);
    TensorStore store(Fill::kNormal, Guard::kEnd, 1);
    const Case<Op> c(*desc, store);
    harness::ParityReport refused;
    for (const harness::Checked& checked : harness::CandidatesToCheck<Op>(*desc, {}, refused)) {
      run.insert(checked.context.implementation);
      for (size_t threads : {1, 2}) {
        Context context = checked.context;
        context.pool = &harness::PoolOf(threads);
        const auto op = Op::Prepare(*desc, c.weights, context);
        ASSERT_TRUE(op.ok()) << op.status().message();
        CheckCalls(*op, c.tensors, checked.where + std::to_string(threads) + " threads: ");
      }
    }
  }
  for (const std::string& name : names) EXPECT_TRUE(run.contains(name)) << "no problem here that takes " << name;
}

// A problem through the C interface, without optional tensors but those that attentions read.
class CProblem {
 public:
  explicit CProblem(const char* text) {
    size_t count = 0;
    EXPECT_EQ(lamina_tensors(text, nullptr, 0, &count), LAMINA_OK) << lamina_last_error();
    tensors_.resize(count);
    tensors_[0].size = sizeof(lamina_tensor);
    EXPECT_EQ(lamina_tensors(text, tensors_.data(), count, &count), LAMINA_OK) << lamina_last_error();
    memory_.reserve(count);
    for (lamina_tensor& t : tensors_) {
      size_t elements = 1;
      for (int i = 0; i < t.ndim; ++i) elements *= static_cast<size_t>(std::max<int64_t>(1, t.shape[i]));
      memory_.emplace_back(elements, 1.0f);
      const std::string_view name = t.name;
      if (name == "mask") std::memset(memory_.back().data(), 1, elements);  // bytes, all true
      if (!t.optional || name == "memory" || name == "keys") t.data = memory_.back().data();
      weights_ += t.role == LAMINA_WEIGHT;
    }
    EXPECT_EQ(lamina_prepare(text, tensors_.data(), weights_, nullptr, &op_), LAMINA_OK) << lamina_last_error();
    EXPECT_EQ(lamina_scratch_bytes(op_, &scratch_bytes_), LAMINA_OK);
  }
  ~CProblem() { lamina_destroy(op_); }
  CProblem(const CProblem&) = delete;
  CProblem& operator=(const CProblem&) = delete;

  size_t scratch_bytes() const { return scratch_bytes_; }
  Status Run(void* scratch) const {
    const size_t given = scratch == nullptr ? 0 : scratch_bytes_;
    const int32_t code = lamina_run(op_, tensors_.data() + weights_, tensors_.size() - weights_, scratch, given);
    return code == LAMINA_OK ? Status() : Status{static_cast<StatusCode>(code), lamina_last_error()};
  }

 private:
  std::vector<lamina_tensor> tensors_;
  std::vector<std::vector<float>> memory_;
  size_t weights_ = 0, scratch_bytes_ = 0;
  lamina_operator* op_ = nullptr;
};

TYPED_TEST(Allocation, TheCInterfaceAddsNone) {
  if (!LAMINA_COUNTS) GTEST_SKIP() << "allocations cannot be counted here";
  for (const char* text : Problems<TypeParam>::kTexts) {
    const CProblem problem(text);
    const auto scratch = harness::GuardedScratch(problem.scratch_bytes());
    std::thread([&] { EXPECT_EQ(AllocationsOf([&] { return problem.Run(scratch->data()); }), 0) << text; }).join();
    std::thread([&] {
      AllocationsOf([&] { return problem.Run(nullptr); });
      EXPECT_EQ(AllocationsOf([&] { return problem.Run(nullptr); }), 0) << text;
    }).join();
  }
}

TEST(AllocationCount, SeesWhatIsAllocated) {
  if (!LAMINA_COUNTS) GTEST_SKIP() << "allocations cannot be counted here";
  const auto allocate = [](auto get) {
    return AllocationsOf([&] {
      void* volatile p = get();
      std::free(p);
      return Status();
    });
  };
  EXPECT_EQ(allocate([] { return std::malloc(10); }), 1);
  EXPECT_EQ(allocate([] { return std::calloc(10, 1); }), 1);
  EXPECT_EQ(allocate([] { return std::aligned_alloc(64, 128); }), 1);
  EXPECT_EQ(allocate([] { return ::operator new(10); }), 1);
}

}  // namespace
}  // namespace lamina
