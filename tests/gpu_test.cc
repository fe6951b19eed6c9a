// Parity of the CUDA backend on a real GPU, the tensors between guard pages that the GPU faults on too. Skipped where
// there is none; tests/cuda/ proves the same kernels on an emulated one everywhere.
#include "harness/gpu.h"

#include <gtest/gtest.h>

#include "harness/problem.h"

namespace lamina::harness {
namespace {

void ExpectParity(const char* text) {
  const auto problem = ParseProblem(text);
  ASSERT_TRUE(problem.ok()) << problem.status().message();
  const ParityReport report = CheckProblem(*problem, {.backend = Backend::kCuda, .threads = {1}});
  EXPECT_GT(report.passed, 0) << text;
  for (const std::string& failure : report.failures) ADD_FAILURE() << failure;
}

class Gpu : public testing::Test {
 protected:
  void SetUp() override {
    if (const Status s = UseGpu(); !s.ok()) GTEST_SKIP() << s.message();
  }
  void Check(const std::string& text) {
    for (const char* dtype : {"", " dtype=bf16", " dtype=f16"}) ExpectParity((text + dtype).c_str());
  }
};

TEST_F(Gpu, Conv2d) {
  Check("conv2d n=2 ih=14 iw=10 ic=64 oc=72 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 activation=relu");
  Check("conv2d n=2 ih=15 iw=9 ic=3 oc=40 kh=5 kw=3 pad_top=2 pad_right=1 stride_h=2 layout=nchw");
  Check("conv2d n=2 ih=13 iw=11 ic=40 oc=40 groups=40 kh=3 kw=3 pad_top=1 pad_left=1 residual=after");
}

TEST_F(Gpu, SeparableConv2d) {
  Check("separable_conv2d n=2 ih=14 iw=12 ic=64 oc=128 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1");
  Check("separable_conv2d n=1 ih=9 iw=9 ic=16 hidden=96 oc=16 order=pw_dw_pw pad_top=1 pad_left=1 residual=after");
}

TEST_F(Gpu, FullyConnected) {
  Check("fully_connected m=1 ic=513 oc=127");
  Check("fully_connected m=130 ic=72 oc=264 activation=gelu_erf residual=before");
}

TEST_F(Gpu, AdditiveAttention) {
  Check("additive_attention batch=2 queries=70 keys=130 query_dim=64 key_dim=96 units=100 bias=1");
  Check("additive_attention batch=2 queries=1 keys=300 query_dim=32 key_dim=32 units=64 mask=1");
  Check("additive_attention batch=40 queries=60 keys=190 query_dim=16 key_dim=16 units=40");  // in tiles
}

TEST_F(Gpu, MultiHeadAttention) {
  Check(
      "multi_head_attention batch=2 num_heads=4 num_kv_heads=2 seqlen_q=100 seqlen_kv=130 head_dim=64 "
      "causal=bottom_right");
  Check("multi_head_attention batch=2 num_heads=4 seqlen_q=1 seqlen_kv=700 head_dim=128");
  Check("multi_head_attention batch=1 num_heads=2 seqlen_q=20 seqlen_kv=20 head_dim=32 projections=1 model_dim=64");
}

}  // namespace
}  // namespace lamina::harness
