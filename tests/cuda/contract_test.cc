// What kCuda promises beside right results: refusals in a sentence, nothing leaked, later calls that still work.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "harness/additive_attention.h"
#include "harness/conv2d.h"
#include "harness/fully_connected.h"
#include "harness/multi_head_attention.h"
#include "kernels/cuda/emulator/runtime.h"
#include "lamina/version.h"
#include "tests/cuda/emulated.h"

namespace lamina {
namespace {

using cuda::emulator::Faults;
using cuda::emulator::LiveAllocations;
using cuda::emulator::TheFaults;

class CudaContract : public testing::Test {
 protected:
  void TearDown() override {
    TheFaults() = {};
    unsetenv("LAMINA_VALIDATE");
  }

  Result<FullyConnected> Prepare(Accuracy accuracy = Accuracy::kDefault) const {
    return FullyConnected::Prepare({.m = 2, .ic = 8, .oc = 4, .bias = false}, {.w = w_.data()},
                                   {.backend = Backend::kCuda, .accuracy = accuracy});
  }
  Status Run(const FullyConnected& op) { return op.Run({.x = x_.data(), .y = y_.data()}); }

  std::vector<float> w_ = std::vector<float>(32, 0.5f), x_ = std::vector<float>(16, 1.0f), y_ = std::vector<float>(8);
};

TEST_F(CudaContract, IsBuiltIn) { EXPECT_TRUE(BuildInfo().cuda); }

TEST_F(CudaContract, NoDeviceIsSaidInPrepare) {
  TheFaults().no_device = true;
  const auto op = Prepare();
  ASSERT_FALSE(op.ok());
  EXPECT_EQ(op.status().code(), StatusCode::kUnsupportedHardware);
  EXPECT_EQ(op.status().message(), "context: backend cuda is not available: no CUDA device");
  TheFaults() = {};
  EXPECT_TRUE(Prepare().ok());
}

TEST_F(CudaContract, OutOfMemoryAtPrepareLeaksNothing) {
  const int64_t before = LiveAllocations();
  for (int64_t left = 0; left < 2; ++left) {
    TheFaults().allocations_left = left;
    const auto op = Prepare();
    ASSERT_FALSE(op.ok());
    EXPECT_EQ(op.status().code(), StatusCode::kOutOfMemory);
    EXPECT_NE(op.status().message().find("fully_connected m=2 ic=8 oc=4 bias=0: allocating "), std::string::npos)
        << op.status().message();
    EXPECT_EQ(LiveAllocations(), before);
  }
}

TEST_F(CudaContract, RunAllocatesNothingAndFreesWithTheLastCopy) {
  const int64_t before = LiveAllocations();
  {
    const auto op = Prepare();
    ASSERT_TRUE(op.ok());
    const int64_t prepared = LiveAllocations();
    EXPECT_GT(prepared, before);
    TheFaults().allocations_left = 0;
    EXPECT_TRUE(Run(*op).ok());
    EXPECT_EQ(y_, std::vector<float>(8, 4.0f));
    auto larger = op->desc();
    larger.m = 1;
    const auto reshaped = op->Reshape(larger);
    ASSERT_TRUE(reshaped.ok()) << reshaped.status().message();
    EXPECT_TRUE(Run(*reshaped).ok());
    EXPECT_EQ(LiveAllocations(), prepared);
  }
  EXPECT_EQ(LiveAllocations(), before);
}

// Workspace of the operator's own where no scratch is given: the same bits.
TEST_F(CudaContract, ScratchMayBeNull) {
  const FullyConnectedDesc desc{.m = 33, .ic = 1024, .oc = 20, .bias = false};
  std::vector<float> w(20 * 1024), x(33 * 1024), with(33 * 20), without(33 * 20);
  for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i % 13) - 6.25f;
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 3.125f;
  const auto op =
      FullyConnected::Prepare(desc, {.w = w.data()}, {.backend = Backend::kCuda, .implementation = "implicit_gemm"});
  ASSERT_TRUE(op.ok()) << op.status().message();
  ASSERT_GT(op->scratch_bytes(), 0u);
  const auto scratch = harness::GuardedScratch(op->scratch_bytes());
  EXPECT_TRUE(op->Run({.x = x.data(), .y = with.data()}, scratch->data()).ok());
  EXPECT_TRUE(op->Run({.x = x.data(), .y = without.data()}).ok());
  EXPECT_EQ(with, without);
}

// Reshape to what its workspace holds asks the device for no memory.
TEST_F(CudaContract, ReshapeSharesWorkspace) {
  const auto smaller = [](const auto& op, auto desc) {
    TheFaults().allocations_left = 0;
    const auto reshaped = op->Reshape(desc);
    TheFaults() = {};
    EXPECT_TRUE(reshaped.ok()) << reshaped.status().message();
    desc.batch = 3;
    TheFaults().allocations_left = 0;
    EXPECT_EQ(op->Reshape(desc).status().code(), StatusCode::kOutOfMemory);
    TheFaults() = {};
    EXPECT_TRUE(op->Reshape(desc).ok());
  };
  const std::vector<float> w(64 * 64, 0.5f);
  AdditiveAttentionDesc additive{.batch = 2, .queries = 70, .keys = 90, .query_dim = 8, .key_dim = 8, .units = 64};
  const auto attention =
      AdditiveAttention::Prepare(additive, {.query_w = w.data(), .key_w = w.data(), .v = w.data()}, {Backend::kCuda});
  ASSERT_TRUE(attention.ok()) << attention.status().message();
  additive.batch = 1;
  smaller(attention, additive);
  MultiHeadAttentionDesc decode{.batch = 2, .num_heads = 2, .seqlen_q = 1, .seqlen_kv = 2048, .head_dim = 64};
  const auto heads = MultiHeadAttention::Prepare(decode, {}, {.backend = Backend::kCuda, .implementation = "split_kv"});
  ASSERT_TRUE(heads.ok()) << heads.status().message();
  decode.batch = 1;
  smaller(heads, decode);

  // With few tiles of output, k is shared out, and the parts' sums need memory.
  FullyConnectedDesc layer{.m = 64, .ic = 4096, .oc = 64, .bias = false};
  const std::vector<float> matrix(64 * 4096, 0.5f);
  const auto op = FullyConnected::Prepare(layer, {.w = matrix.data()},
                                          {.backend = Backend::kCuda, .implementation = "implicit_gemm"});
  ASSERT_TRUE(op.ok());
  ASSERT_GT(op->scratch_bytes(), 0u);
  layer.m = 40;
  TheFaults().allocations_left = 0;
  const auto reshaped = op->Reshape(layer);
  ASSERT_TRUE(reshaped.ok()) << reshaped.status().message();
  EXPECT_LT(reshaped->scratch_bytes(), op->scratch_bytes());
}

TEST_F(CudaContract, AFailedLaunchIsSaidAndLaterOnesWork) {
  const auto op = Prepare();
  ASSERT_TRUE(op.ok());
  TheFaults().launch = 719;
  const Status failed = Run(*op);
  EXPECT_EQ(failed.code(), StatusCode::kDeviceError);
  EXPECT_NE(failed.message().find("starting the kernel failed: "), std::string::npos) << failed.message();
  TheFaults() = {};
  EXPECT_TRUE(Run(*op).ok());
}

TEST_F(CudaContract, ValidateFindsPointersOfTheHost) {
  const auto op = Prepare();
  ASSERT_TRUE(op.ok());
  TheFaults().host_memory = x_.data();
  EXPECT_TRUE(Run(*op).ok());  // not looked at unless asked
  setenv("LAMINA_VALIDATE", "1", 1);
  const Status s = Run(*op);
  EXPECT_EQ(s.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(s.message().find(": x must be device memory, got memory of the host"), std::string::npos) << s.message();
  TheFaults().host_memory = y_.data();
  EXPECT_NE(Run(*op).message().find(": y must be"), std::string::npos);
  TheFaults() = {};
  EXPECT_TRUE(Run(*op).ok());
}

TEST_F(CudaContract, AccuracyDecidesAboutTf32) {
  const auto names = [](Accuracy accuracy) {
    const auto reports = FullyConnected::Candidates({.m = 4096, .ic = 4096, .oc = 4096},
                                                    {.backend = Backend::kCuda, .accuracy = accuracy});
    std::string accepted;
    for (const CandidateReport& r : *reports) {
      if (r.accepted) accepted += r.name.substr(r.name.rfind('/') + 1) + " ";
    }
    return accepted;
  };
  EXPECT_EQ(names(Accuracy::kStrict).find("tf32"), std::string::npos);
  EXPECT_EQ(names(Accuracy::kDefault).find("tf32"), std::string::npos);
  EXPECT_NE(names(Accuracy::kReduced).find("tf32"), std::string::npos);
  const auto fast = Prepare(Accuracy::kReduced);
  ASSERT_TRUE(fast.ok());
  EXPECT_NE(fast->Explain().find("cuda/"), std::string::npos);
}

}  // namespace
}  // namespace lamina
