// Hopper's depthwise convolution through conv2d, its plan, and what it refuses.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "harness/conv2d.h"
#include "kernels/cuda/core/depthwise_strips.h"
#include "kernels/cuda/emulator/runtime.h"
#include "tests/cuda/emulated.h"

namespace lamina::harness {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBf16, DType::kF16};

Conv2dDesc Depthwise(int64_t ih, int64_t iw, int64_t channels, int64_t kernel, int64_t stride) {
  Conv2dDesc d{.n = 2, .ih = ih, .iw = iw, .ic = channels, .oc = channels, .kh = kernel, .kw = kernel};
  d.stride_h = d.stride_w = stride;
  d.groups = channels;
  d.pad_top = d.pad_left = d.pad_bottom = d.pad_right = kernel / 2;
  return d;
}

class Sm90Depthwise : public testing::Test {
 protected:
  void TearDown() override { cuda::emulator::TheFaults() = {}; }
  static void OnMultiprocessors(int count) { cuda::emulator::TheFaults().multiprocessors = count; }

  static void Check(Conv2dDesc d) {
    if (d.ic % 8 != 0 && d.x_stride == 0) d.x_stride = cuda::RoundUp(d.ic, 8);  // TMA's alignment
    for (const DType dtype : kDTypes) {
      d.dtype = dtype;
      ExpectEmulatedParity<Conv2d>(d, 1, 1, "cuda/depthwise_tma");
    }
  }
  // Every window, of an image of ih x iw outputs' inputs.
  template <class Change>
  static void CheckWindows(int64_t oh, int64_t ow, int64_t channels, const Change& change) {
    for (const auto& [kernel, stride] : {std::pair{3, 1}, {3, 2}, {5, 1}, {5, 2}, {7, 1}}) {
      Conv2dDesc d = Depthwise(oh * stride, ow * stride, channels, kernel, stride);
      change(d);
      Check(d);
    }
  }
  static CandidateReport Report(const Conv2dDesc& d, const std::string& name) {
    const auto reports = Conv2d::Candidates(d, {.backend = Backend::kCuda});
    for (const CandidateReport& r : *reports) {
      if (r.name == name) return r;
    }
    ADD_FAILURE() << name << " is not offered";
    return {};
  }
};
using Sm90DepthwisePlan = Sm90Depthwise;

cuda::StripWalks WalksOf(int64_t images, int64_t oh, int64_t ow, int64_t channels, int64_t warps, int kernel = 3,
                         int stride = 1) {
  return cuda::StripWalksOf(cuda::StripSizesOf(2, kernel, stride), kernel, stride, images, oh, ow, channels, kernel / 2,
                            warps);
}

TEST_F(Sm90DepthwisePlan, WalksCoverEveryOutputOnce) {
  for (const int64_t images : {1, 3}) {
    for (const int64_t size : {1, 7, 13, 14, 40, 70}) {
      for (const int64_t channels : {4, 64, 132}) {
        for (const int64_t warps : {1, 100, 100000}) {
          for (const int kernel : {3, 5, 7}) {
            const cuda::StripWalks w = WalksOf(images, size, size, channels, warps, kernel);
            const cuda::StripSizes sizes = cuda::StripSizesOf(2, kernel, 1);
            const int columns = sizes.columns, strips = sizes.strips() / w.images;
            EXPECT_LE(w.rows, cuda::kMostStripRows);
            std::set<std::tuple<int, int, int, int>> seen;
            int64_t outputs = 0;
            for (uint32_t walk = 0; walk < w.count; ++walk) {
              const cuda::StripBegin b = cuda::BeginOf(w, walk);
              for (int image = b.image; image < images && image < b.image + w.images; ++image) {
                for (int row = b.row; row < size && row < b.row + w.rows; ++row) {
                  for (int strip = b.tile * strips; strip < (b.tile + 1) * strips; ++strip) {
                    if (strip * columns >= size) continue;
                    seen.insert({image, row, strip, b.group});
                    ++outputs;
                  }
                }
              }
            }
            EXPECT_EQ(outputs, images * size * cuda::DivUp(size, columns) * cuda::DivUp(channels, 64));
            EXPECT_EQ(seen.size(), static_cast<size_t>(outputs));
          }
        }
      }
    }
  }
}

TEST_F(Sm90DepthwisePlan, WalksSuitTheProblem) {
  constexpr int64_t kWarps = 132 * 2 * 4;
  EXPECT_EQ(WalksOf(256, 56, 56, 128, kWarps).rows, 56);  // enough of them: as long as they can be
  EXPECT_EQ(WalksOf(256, 56, 56, 128, kWarps).images, 1);
  EXPECT_EQ(WalksOf(256, 7, 7, 1024, kWarps).images, 2);  // a strip is all of an image's columns
  EXPECT_EQ(WalksOf(256, 14, 14, 512, kWarps).images, 1);
  EXPECT_EQ(WalksOf(1, 112, 112, 64, kWarps).rows, 1);  // few: as many as there are warps
  EXPECT_EQ(WalksOf(256, 7, 7, 1024, kWarps, 5).images, 1);
  EXPECT_EQ(WalksOf(256, 4, 4, 1024, kWarps, 7).images, 1);  // a strip is all that a warp has
  EXPECT_EQ(WalksOf(0, 7, 7, 1024, kWarps).count, 0u);
  // Rows above the image are left out where they are no more than padding.
  EXPECT_EQ(WalksOf(1, 56, 56, 64, 1).lead, 2);
  EXPECT_EQ(WalksOf(1, 56, 56, 64, 1).top_lead, 1);
  EXPECT_EQ(WalksOf(1, 56, 56, 64, 1, 5, 2).lead, 2);
  EXPECT_EQ(WalksOf(1, 56, 56, 64, 1, 5, 2).top_lead, 1);
  for (const int pad_top : {2, 3, 9}) {
    EXPECT_EQ(cuda::StripWalksOf(cuda::StripSizesOf(2, 3, 1), 3, 1, 1, 9, 9, 64, pad_top, 1).top_lead, 0);
  }
}

TEST_F(Sm90DepthwisePlan, IsChosenWhereItShouldWin) {
  for (const DType dtype : kDTypes) {
    for (const int64_t kernel : {3, 5, 7}) {
      for (const auto& [size, channels] : {std::pair{112, 64}, {56, 128}, {28, 256}, {14, 512}, {7, 1024}}) {
        Conv2dDesc d = Depthwise(size, size, channels, kernel, 1);
        d.n = 64;
        d.dtype = dtype;
        const auto reports = Conv2d::Candidates(d, {.backend = Backend::kCuda});
        const CandidateReport tma = Report(d, "cuda/depthwise_tma");
        for (const CandidateReport& r : *reports) {
          EXPECT_TRUE(!r.accepted || tma.predicted_ns <= r.predicted_ns)
              << ToString(d) << ": " << tma.predicted_ns << " and " << r.predicted_ns << " of " << r.name;
        }
      }
    }
  }
}

TEST_F(Sm90Depthwise, EveryWindowWithEveryPad) {
  OnMultiprocessors(1);
  CheckWindows(9, 11, 12, [](Conv2dDesc& d) { d.activation = {ActivationKind::kRelu6}; });
  CheckWindows(6, 15, 68, [](Conv2dDesc& d) { d.pad_top = 0, d.pad_left = 2, d.pad_bottom = 3, d.pad_right = 1; });
  CheckWindows(5, 4, 8, [](Conv2dDesc& d) { d.pad_top = 7, d.pad_left = 9, d.pad_bottom = 1, d.pad_right = 8; });
  CheckWindows(1, 1, 4, [](Conv2dDesc&) {});  // an image smaller than the window
}

// Walks of several boxes, several to a warp, so that rings go round, the last ones short; and warps without a walk.
TEST_F(Sm90Depthwise, RingsGoRound) {
  OnMultiprocessors(1);
  CheckWindows(23, 8, 8, [](Conv2dDesc& d) { d.n = 5; });
  CheckWindows(15, 30, 72, [](Conv2dDesc& d) { d.n = 1, d.pad_top = 0; });
  CheckWindows(7, 4, 20, [](Conv2dDesc& d) { d.n = 9; });  // pairs of images, the last one alone
  OnMultiprocessors(132);
  CheckWindows(7, 16, 68, [](Conv2dDesc&) {});
}

TEST_F(Sm90Depthwise, TakesStridesResidualsAndActivations) {
  OnMultiprocessors(1);
  for (const Residual residual : {Residual::kBeforeActivation, Residual::kAfterActivation}) {
    Conv2dDesc d = Depthwise(9, 15, 8, 3, 1);
    d.residual = residual;
    d.activation = {ActivationKind::kHardswish};
    Check(d);
    d.x_stride = 16, d.y_stride = 12, d.residual_stride = 20;
    Check(d);
    d.kh = d.kw = 5, d.stride_h = d.stride_w = 2;
    d.bias = false;
    d.activation = {ActivationKind::kSilu};
    Check(d);
    d.kh = d.kw = 7, d.stride_h = d.stride_w = 1;
    Check(d);
  }
  Conv2dDesc odd = Depthwise(9, 15, 12, 3, 1);  // channels that TMA's boxes end within
  odd.x_stride = 16;
  Check(odd);
}

TEST_F(Sm90Depthwise, EveryActivation) {
  OnMultiprocessors(1);
  for (int kind = 0; kind <= static_cast<int>(ActivationKind::kElu); ++kind) {
    Conv2dDesc d = Depthwise(4, 7, 8, 3, 1);
    d.dtype = DType::kBf16;
    d.activation = {static_cast<ActivationKind>(kind), 0.25f, 0.75f};
    ExpectEmulatedParity<Conv2d>(d, 1, 1, "cuda/depthwise_tma");
  }
}

TEST_F(Sm90Depthwise, RandomShapes) {
  TensorStore random(Fill::kNormal, Guard::kEnd, 7);
  const auto from = [&](int64_t low, int64_t high) { return low + random.RandomBelow(high - low + 1); };
  for (int i = 0; i < 80; ++i) {
    OnMultiprocessors(static_cast<int>(from(1, 3)));
    Conv2dDesc d = Depthwise(from(1, 24), from(1, 24), 8 * from(1, 9), 3 + 2 * from(0, 2), 1);
    if (d.kh < 7) d.stride_h = d.stride_w = from(1, 2);
    d.n = from(1, 4);
    d.pad_top = from(0, 5), d.pad_left = from(0, 5), d.pad_bottom = from(0, 5), d.pad_right = from(0, 5);
    d.dtype = kDTypes[from(0, 2)];
    if (!d.Validate().ok()) continue;
    ExpectEmulatedParity<Conv2d>(d, 1, static_cast<uint64_t>(i), "cuda/depthwise_tma");
  }
}

TEST_F(Sm90Depthwise, RefusesWhatItDoesNotTake) {
  const auto refusal = [&](const auto& change) {
    Conv2dDesc d = Depthwise(30, 30, 16, 3, 1);
    d.dtype = DType::kBf16;
    change(d);
    return Report(d, "cuda/depthwise_tma").reason;
  };
  const char* const windows = "takes windows of 3 x 3 and 5 x 5 with strides 1 and 2, of 7 x 7 with stride 1";
  EXPECT_EQ(refusal([](Conv2dDesc&) {}), "");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.n = 0; }), "");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.groups = 8; }), "only groups = ic is depthwise");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.oc = 48; }), "makes one output of an input channel, got 3");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.layout = Layout::kNchw; }), "reads images with dense channels (nhwc)");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.kh = d.kw = 9; }), windows);
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.kh = d.kw = 7; }), "");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.kh = d.kw = 7, d.stride_h = d.stride_w = 2; }), windows);
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.kw = 5; }), windows);
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.stride_h = d.stride_w = 3; }), windows);
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.stride_h = 2; }), windows);
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.dilation_w = 2; }), "takes dense windows, got a dilation");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.ic = d.oc = d.groups = 10, d.x_stride = 16; }),
            "stores quads of channels, aligned");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.y_stride = 18; }), "stores quads of channels, aligned");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.residual = Residual::kAfterActivation, d.residual_stride = 17; }),
            "reads the residual in quads of channels, aligned");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.ic = d.oc = d.groups = 12; }),
            "takes strides of a multiple of 16 bytes, below 2^40, got 24");
  cuda::emulator::TheFaults().capability = 80;
  EXPECT_EQ(refusal([](Conv2dDesc&) {}), "is for compute capability 9.0, got 8.0");
}

// Ones times ones: each output counts the taps that lie within the image.
TEST_F(Sm90Depthwise, RunTakesAnyPointersAndReshapes) {
  Conv2dDesc d = Depthwise(6, 6, 8, 3, 1);
  d.bias = false;
  const auto prepared = Conv2d::Prepare(d, {.w = std::vector<float>(9 * 8, 1).data()},
                                        {.backend = Backend::kCuda, .implementation = "cuda/depthwise_tma"});
  ASSERT_TRUE(prepared.ok()) << prepared.status().message();
  for (const int64_t size : {6, 9}) {
    d.ih = d.iw = size;
    const auto op = prepared->Reshape(d);
    ASSERT_TRUE(op.ok()) << op.status().message();
    const auto outputs = static_cast<size_t>(d.n * size * size * 8);
    const std::vector<float> ones(outputs + 4, 1), halves(outputs + 4, 0.5f);
    for (const float* x : {ones.data(), halves.data(), ones.data() + 1}) {  // the last is off TMA's alignment
      for (const size_t off : {0, 1}) {
        std::vector<float> y(outputs + 4, -1);
        ASSERT_TRUE(op->Run({.x = x, .y = y.data() + off}).ok());
        EXPECT_EQ(y[off], 4 * x[0]);
        EXPECT_EQ(y[off + static_cast<size_t>(size + 1) * 8], 9 * x[0]);
        EXPECT_EQ(y[off + outputs - 1], 4 * x[0]);
      }
    }
  }
}

}  // namespace
}  // namespace lamina::harness
