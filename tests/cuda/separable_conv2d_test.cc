// separable_conv2d on the emulated GPU: every order step by step, and depthwise with pointwise as one kernel.
#include "harness/separable_conv2d.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/core/fused_dw_pw.h"
#include "kernels/cuda/core/swizzle.h"
#include "kernels/cuda/emulator/runtime.h"
#include "tests/cuda/emulated.h"

namespace lamina::harness {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBf16, DType::kF16};
constexpr Layout kLayouts[] = {Layout::kNhwc, Layout::kNchw};

// Ways, each with three kinds of products in f32.
int Candidates(const SeparableConv2dDesc& d) {
  const bool fused = d.order == SeparableOrder::kDwPw && d.fusion != Fusion::kNever;
  return (fused + (d.fusion != Fusion::kAlways)) * (d.dtype == DType::kF32 ? 3 : 1);
}
void Expect(const SeparableConv2dDesc& d, uint64_t seed = 1) {
  ExpectEmulatedParity<SeparableConv2d>(d, Candidates(d), seed);
}

SeparableConv2dDesc DwPw(int64_t ih, int64_t iw, int64_t ic, int64_t oc) {
  SeparableConv2dDesc d{.n = 2, .ih = ih, .iw = iw, .ic = ic, .oc = oc};
  d.pad_top = d.pad_left = d.pad_bottom = d.pad_right = 1;
  d.depthwise_activation = d.project_activation = {ActivationKind::kRelu6};
  return d;
}

// A step's threads store every chunk of its tile once, the lanes of a quarter warp on all banks.
TEST(CudaCore, FusedStepsStoreEveryChunkOnce) {
  std::set<int> all;
  for (int i = 0; i < cuda::kFusedPixels; ++i) {
    for (int first = 0; first < cuda::kFusedStepThreads; first += 8) {
      std::set<int> banks;
      for (int thread = first; thread < first + 8; ++thread) {
        const int at = cuda::Swizzle64(thread / 4 + i * cuda::kFusedPixelPitch, thread % 4);
        all.insert(at);
        banks.insert(at % 128);
      }
      EXPECT_EQ(banks.size(), 8u);
    }
  }
  EXPECT_EQ(all.size(), static_cast<size_t>(cuda::kFusedRows * 4));
}

TEST(CudaSeparableConv2d, DepthwiseFirst) {
  for (const DType dtype : kDTypes) {
    for (const Layout layout : kLayouts) {
      for (const int64_t ic : {1, 8, 20, 40}) {
        SeparableConv2dDesc d = DwPw(9, 7, ic, ic == 8 ? 140 : 12);
        d.dtype = dtype;
        d.layout = layout;
        Expect(d);
      }
    }
  }
}

TEST(CudaSeparableConv2d, PointwiseFirst) {
  for (const DType dtype : kDTypes) {
    for (const Layout layout : kLayouts) {
      SeparableConv2dDesc d = DwPw(7, 6, 8, 12);
      d.dtype = dtype;
      d.layout = layout;
      d.order = SeparableOrder::kPwDw;
      d.expand_activation = {ActivationKind::kElu, 0.5f};
      d.residual = Residual::kAfterActivation;
      Expect(d);
      d.residual = Residual::kNone;
      d.depth_multiplier = 3;
      d.expand_activation = {ActivationKind::kClamp, 1, 2};  // zeros of padding are none of its results
      Expect(d);
    }
  }
}

TEST(CudaSeparableConv2d, InvertedResidual) {
  for (const DType dtype : kDTypes) {
    for (const Layout layout : kLayouts) {
      SeparableConv2dDesc d = DwPw(8, 7, 8, 8);
      d.dtype = dtype;
      d.layout = layout;
      d.order = SeparableOrder::kPwDwPw;
      d.hidden = 20;
      d.expand_activation = {ActivationKind::kRelu6};
      d.residual = Residual::kBeforeActivation;
      Expect(d);
      d.residual = Residual::kNone;
      d.hidden = 24;
      d.stride_h = d.stride_w = 2;
      d.depth_multiplier = 2;
      d.expand_bias = d.depthwise_bias = d.project_bias = false;
      Expect(d);
    }
  }
}

TEST(CudaSeparableConv2d, TakesEveryShape) {
  const auto check = [](const auto& change) {
    for (const DType dtype : kDTypes) {
      SeparableConv2dDesc d = DwPw(8, 9, 16, 24);
      d.dtype = dtype;
      change(d);
      Expect(d);
    }
  };
  check([](SeparableConv2dDesc& d) { d.kh = 5, d.kw = 2, d.stride_h = 2, d.pad_left = 3; });
  check([](SeparableConv2dDesc& d) { d.dilation_h = 2, d.dilation_w = 3, d.pad_right = 4; });
  check([](SeparableConv2dDesc& d) { d.kh = d.kw = 1, d.stride_w = 3; });
  check([](SeparableConv2dDesc& d) { d.depth_multiplier = 3, d.ic = 5; });
  check([](SeparableConv2dDesc& d) { d.pad_top = d.pad_bottom = 9, d.pad_left = 11; });  // windows of padding alone
  check([](SeparableConv2dDesc& d) { d.x_stride = 24, d.y_stride = 40, d.residual_stride = 28; });
  check([](SeparableConv2dDesc& d) {
    d.x_stride = 17, d.y_stride = 25, d.residual_stride = 27, d.residual = Residual::kAfterActivation;
  });
  // Padded channels of the depthwise step must not leak what their activation makes of zero.
  check([](SeparableConv2dDesc& d) { d.ic = 5, d.depthwise_activation = {ActivationKind::kHardsigmoid, 0.2f, 0.5f}; });
  // More steps of channels than a block computes at a time, more outputs than it multiplies at a time.
  check([](SeparableConv2dDesc& d) { d.n = 1, d.ih = d.iw = 5, d.ic = 168, d.oc = 264; });
  check([](SeparableConv2dDesc& d) { d.n = 3, d.ih = 7, d.iw = 7, d.fusion = Fusion::kAlways; });
  check([](SeparableConv2dDesc& d) { d.n = 1, d.fusion = Fusion::kNever; });
}

TEST(CudaSeparableConv2d, RandomShapes) {
  TensorStore random(Fill::kNormal, Guard::kEnd, 11);
  const auto from = [&](int64_t low, int64_t high) { return low + random.RandomBelow(high - low + 1); };
  int valid = 0;
  for (int i = 0; i < 60; ++i) {
    SeparableConv2dDesc d = DwPw(from(1, 9), from(1, 9), from(1, 3) * (from(0, 1) ? 8 : 1), from(1, 20));
    d.n = from(1, 3);
    d.order = static_cast<SeparableOrder>(from(0, 2));
    if (d.order == SeparableOrder::kPwDwPw) d.hidden = from(1, 30);
    d.kh = from(1, 4), d.kw = from(1, 4);
    d.stride_h = from(1, 2), d.stride_w = from(1, 2);
    d.pad_top = from(0, 3), d.pad_left = from(0, 3);
    d.depth_multiplier = from(1, 2);
    d.layout = static_cast<Layout>(from(0, 1));
    d.dtype = static_cast<DType>(from(0, 2));
    if (!d.Validate().ok()) continue;
    ++valid;
    Expect(d, static_cast<uint64_t>(i));
  }
  EXPECT_GT(valid, 30);
}

// What a caller brings no scratch for lies in memory of the operator's own, also after Reshape to larger images.
TEST(CudaSeparableConv2d, RunsWithoutScratch) {
  SeparableConv2dDesc d = DwPw(5, 6, 8, 4);
  d.order = SeparableOrder::kPwDwPw;
  d.hidden = 12;
  const auto run = [](const SeparableConv2d& op, const std::vector<float>& x, bool scratch) {
    std::vector<float> y(static_cast<size_t>(op.desc().n * op.desc().oh() * op.desc().ow() * op.desc().oc));
    const auto memory = GuardedScratch(op.scratch_bytes());
    EXPECT_TRUE(op.Run({x.data(), y.data()}, scratch ? memory->data() : nullptr).ok());
    return y;
  };
  TensorStore store(Fill::kNormal, Guard::kEnd, 3);
  const Case<SeparableConv2d> c(d, store);
  const auto op = SeparableConv2d::Prepare(d, c.weights, {.backend = Backend::kCuda});
  ASSERT_TRUE(op.ok()) << op.status().message();
  EXPECT_GT(op->scratch_bytes(), 0u);
  d.n = 3, d.ih = 9;
  const auto larger = op->Reshape(d);
  ASSERT_TRUE(larger.ok()) << larger.status().message();
  const std::vector<float> x(static_cast<size_t>(d.n * d.ih * d.iw * d.ic), 0.5f);
  EXPECT_EQ(run(*op, x, false), run(*op, x, true));
  EXPECT_EQ(run(*larger, x, false), run(*larger, x, true));
  d.n = 0;
  EXPECT_TRUE(op->Reshape(d).ok());
}

TEST(CudaSeparableConv2d, FailuresAreSaidAndLeakNothing) {
  SeparableConv2dDesc d = DwPw(5, 6, 8, 4);
  d.order = SeparableOrder::kPwDwPw;
  d.hidden = 12;
  TensorStore store(Fill::kNormal, Guard::kEnd, 3);
  const Case<SeparableConv2d> c(d, store);
  const int64_t before = cuda::emulator::LiveAllocations();
  const auto prepare = [&] {
    return SeparableConv2d::Prepare(d, c.weights, {.backend = Backend::kCuda, .implementation = "unfused"});
  };
  for (int64_t left = 0; left < 7; ++left) {  // two for the weights and biases of each step, one for what lies between
    cuda::emulator::TheFaults().allocations_left = left;
    const auto op = prepare();
    ASSERT_FALSE(op.ok());
    EXPECT_EQ(op.status().code(), StatusCode::kOutOfMemory);
    EXPECT_EQ(cuda::emulator::LiveAllocations(), before);
  }
  cuda::emulator::TheFaults() = {};
  const auto op = prepare();
  ASSERT_TRUE(op.ok()) << op.status().message();
  cuda::emulator::TheFaults() = {.launch = 719, .allocations_left = 0};
  EXPECT_EQ(op->Run(c.tensors).code(), StatusCode::kDeviceError);
  cuda::emulator::TheFaults() = {.allocations_left = 0};
  EXPECT_TRUE(op->Run(c.tensors).ok());
  cuda::emulator::TheFaults() = {};
}

// 3 x TF32 keeps the bound of fused multiply-adds.
TEST(CudaSeparableConv2d, ThreeTf32ProductsKeepTheAccuracyOfF32) {
  SeparableConv2dDesc d = DwPw(9, 7, 40, 36);
  for (const char* way : {"fused_dw_pw_tf32x3", "unfused_tf32x3", "unfused_wgmma_tf32x3"}) {
    ExpectEmulatedParity<SeparableConv2d>(d, 1, 1, way, Accuracy::kStrict);
  }
  d.order = SeparableOrder::kPwDwPw;
  d.hidden = 72;
  for (const char* way : {"unfused_tf32x3", "unfused_wgmma_tf32x3"}) {
    ExpectEmulatedParity<SeparableConv2d>(d, 1, 1, way, Accuracy::kStrict);
  }
}

std::string Refusal(const SeparableConv2dDesc& d, const std::string& candidate) {
  const auto reports = SeparableConv2d::Candidates(d, {.backend = Backend::kCuda});
  for (const CandidateReport& r : *reports) {
    if (r.name.substr(r.name.rfind('/') + 1) == candidate) return r.reason;
  }
  return "no such candidate";
}

TEST(CudaSeparableConv2d, RefusesInASentence) {
  SeparableConv2dDesc d = DwPw(9, 9, 16, 16);
  EXPECT_EQ(Refusal(d, "fused_dw_pw"), "");
  EXPECT_EQ(Refusal(d, "unfused"), "");
  EXPECT_EQ(Refusal(d, "unfused_wgmma"), "multiplies 16-bit elements, got f32");
  d.dtype = DType::kBf16;
  EXPECT_EQ(Refusal(d, "unfused_wgmma"), "");
  d.dtype = DType::kF32;
  d.fusion = Fusion::kAlways;
  EXPECT_EQ(Refusal(d, "unfused"), "fusion=always: this goes step by step");
  d.fusion = Fusion::kNever;
  EXPECT_EQ(Refusal(d, "fused_dw_pw"), "fusion=never: this is one kernel");
  d.fusion = Fusion::kAuto;
  d.ic = 2048;
  EXPECT_EQ(Refusal(d, "fused_dw_pw"), "needs 548864 bytes of shared memory, a block can have 232448");
  d.order = SeparableOrder::kPwDw;
  EXPECT_EQ(Refusal(d, "fused_dw_pw"), "only order=dw_pw is fused");
}

// Large batches of MobileNetV1's layers move more than they compute, so one kernel wins; one small image makes too few
// blocks of 64 pixels, each with all the channels. Among what any GPU has: sm90_fused_dw_pw_test.cc is about Hopper's.
TEST(CudaSeparableConv2d, FusesWhereItPays) {
  const auto chosen = [](const SeparableConv2dDesc& d) {
    const auto reports = SeparableConv2d::Candidates(d, {.backend = Backend::kCuda});
    const CandidateReport* best = nullptr;
    for (const CandidateReport& r : *reports) {
      const bool portable = r.name.find("wgmma") == std::string::npos;
      if (r.accepted && portable && (best == nullptr || r.predicted_ns < best->predicted_ns)) best = &r;
    }
    return best->name.substr(best->name.rfind('/') + 1);
  };
  SeparableConv2dDesc d = DwPw(56, 56, 128, 128);
  d.n = 64;
  d.dtype = DType::kBf16;
  EXPECT_EQ(chosen(d), "fused_dw_pw");
  d.ih = d.iw = 28, d.ic = d.oc = 256;
  EXPECT_EQ(chosen(d), "fused_dw_pw");
  d.n = 1;
  EXPECT_EQ(chosen(d), "unfused");
}

}  // namespace
}  // namespace lamina::harness
