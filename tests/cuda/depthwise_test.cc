// The portable depthwise kernels through conv2d, and the arithmetic that shares outputs among their threads.
#include "kernels/cuda/core/depthwise.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>

#include "harness/conv2d.h"
#include "kernels/cuda/emulator/runtime.h"
#include "tests/cuda/emulated.h"

namespace lamina::harness {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBf16, DType::kF16};

void ExpectDepthwiseParity(const Conv2dDesc& desc, uint64_t seed = 1) {
  ExpectEmulatedParity<Conv2d>(desc, 1, seed, "depthwise");
}

Conv2dDesc Depthwise(int64_t ih, int64_t iw, int64_t channels, int64_t kernel, int64_t stride) {
  Conv2dDesc d{.n = 2, .ih = ih, .iw = iw, .ic = channels, .oc = channels, .kh = kernel, .kw = kernel};
  d.stride_h = d.stride_w = stride;
  d.groups = channels;
  d.pad_top = d.pad_left = d.pad_bottom = d.pad_right = kernel / 2;
  return d;
}

TEST(CudaCore, WalksCoverEveryOutputOnce) {
  for (const int64_t quads : {1, 31, 33, 65}) {
    for (const int64_t oh : {1, 7, 40}) {
      for (const int64_t threads : {1, 100, 100000}) {
        constexpr int kImages = 2, kWidth = 9, kColumns = 4;
        const cuda::DepthwiseWalks w = cuda::WalksOf(kImages, oh, kWidth, quads, kColumns, threads);
        EXPECT_LE(w.rows, cuda::kMostWalkRows);
        std::set<std::tuple<int, int, int, int>> seen;
        int64_t outputs = 0;
        for (uint32_t group = 0; group < w.groups; ++group) {
          for (uint32_t walk = 0; walk < w.count; ++walk) {
            const cuda::WalkBegin b = cuda::BeginOf(w, walk, group, kColumns);
            if (b.quad >= quads) continue;  // of the last group
            for (int row = b.row; row < oh && row < b.row + w.rows; ++row) {
              for (int column = b.column; column < kWidth && column < b.column + kColumns; ++column, ++outputs) {
                seen.insert({b.image, row, column, b.quad});
              }
            }
          }
        }
        EXPECT_EQ(outputs, kImages * oh * kWidth * quads);
        EXPECT_EQ(seen.size(), static_cast<size_t>(outputs));
      }
    }
  }
}

TEST(CudaDepthwise, WalksEveryWindow) {
  for (const DType dtype : kDTypes) {
    for (const int64_t kernel : {3, 5, 7}) {
      for (const int64_t stride : {1, 2}) {
        Conv2dDesc d = Depthwise(9, 11, 12, kernel, stride);
        d.dtype = dtype;
        d.activation = {ActivationKind::kRelu6};
        ExpectDepthwiseParity(d);
        d.pad_top = 0, d.pad_left = 2, d.pad_bottom = 3, d.pad_right = 1;
        ExpectDepthwiseParity(d);
      }
    }
  }
}

// On a device so small that walks are of several rows, in several bands; channels in two groups of quads.
TEST(CudaDepthwise, WalksBands) {
  cuda::emulator::TheFaults().multiprocessors = 1;
  for (const int64_t kernel : {3, 5, 7}) {
    for (const int64_t stride : {1, 2}) {
      Conv2dDesc d = Depthwise(23 * stride, 9 * stride, 136, kernel, stride);
      ExpectDepthwiseParity(d);
      d.pad_top = 2, d.pad_bottom = 0;
      ExpectDepthwiseParity(d);
    }
  }
  cuda::emulator::TheFaults() = {};
}

TEST(CudaDepthwise, TakesEveryShape) {
  const auto check = [&](const auto& change) {
    for (const DType dtype : kDTypes) {
      for (const Layout layout : {Layout::kNhwc, Layout::kNchw}) {
        Conv2dDesc d = Depthwise(8, 7, 8, 3, 1);
        d.dtype = dtype;
        d.layout = layout;
        change(d);
        ExpectDepthwiseParity(d);
      }
    }
  };
  const auto channels = [](Conv2dDesc& d, int64_t ic, int64_t multiplier) {
    d.ic = d.groups = ic, d.oc = ic * multiplier;
  };
  check([](Conv2dDesc&) {});
  check([&](Conv2dDesc& d) { channels(d, 1, 1); });
  check([&](Conv2dDesc& d) { channels(d, 7, 1), d.stride_h = d.stride_w = 2; });
  check([&](Conv2dDesc& d) { channels(d, 3, 3); });
  check([&](Conv2dDesc& d) { channels(d, 4, 2), d.weight_layout = WeightLayout::kOihw; });
  check([](Conv2dDesc& d) { d.kh = 7, d.kw = 1, d.bias = false; });
  check([](Conv2dDesc& d) { d.kh = 2, d.kw = 4, d.stride_w = 3; });
  check([](Conv2dDesc& d) { d.dilation_h = 3, d.dilation_w = 2, d.pad_top = 4; });
  check([](Conv2dDesc& d) { d.stride_h = d.stride_w = 3; });
  check([](Conv2dDesc& d) { d.ih = d.kh = 1, d.pad_top = d.pad_bottom = 0; });
  check([](Conv2dDesc& d) { d.pad_top = d.pad_bottom = 9, d.pad_left = 8; });  // windows of padding alone
}

TEST(CudaDepthwise, TakesStridesResidualsAndActivations) {
  for (const DType dtype : kDTypes) {
    for (const Residual residual : {Residual::kBeforeActivation, Residual::kAfterActivation}) {
      Conv2dDesc d = Depthwise(6, 9, 8, 3, 1);
      d.dtype = dtype;
      d.residual = residual;
      d.activation = {ActivationKind::kHardswish};
      ExpectDepthwiseParity(d);
      d.x_stride = 12, d.y_stride = 16, d.residual_stride = 20;
      ExpectDepthwiseParity(d);
      d.x_stride = 13, d.residual_stride = 9;  // not aligned
      ExpectDepthwiseParity(d);
      d.layout = Layout::kNchw;
      d.x_stride = 500, d.y_stride = 501, d.residual_stride = 502;
      ExpectDepthwiseParity(d);
    }
  }
}

TEST(CudaDepthwise, RandomShapes) {
  TensorStore random(Fill::kNormal, Guard::kEnd, 7);
  const auto from = [&](int64_t low, int64_t high) { return low + random.RandomBelow(high - low + 1); };
  for (int i = 0; i < 200; ++i) {
    const int64_t channels = from(1, 4) * (from(0, 2) == 0 ? 1 : 4);
    Conv2dDesc d = Depthwise(from(1, 14), from(1, 14), channels, 1, 1);
    d.n = from(1, 3);
    d.kh = from(0, 1) ? 3 : from(1, 7), d.kw = from(0, 2) ? d.kh : from(1, 7);
    d.stride_h = from(1, 3), d.stride_w = from(0, 1) ? d.stride_h : from(1, 3);
    d.dilation_h = from(0, 4) == 0 ? 2 : 1, d.dilation_w = from(0, 4) == 0 ? 3 : 1;
    d.pad_top = from(0, 4), d.pad_left = from(0, 4), d.pad_bottom = from(0, 4), d.pad_right = from(0, 4);
    d.layout = from(0, 3) == 0 ? Layout::kNchw : Layout::kNhwc;
    d.dtype = static_cast<DType>(from(0, 2));
    d.oc = channels * (from(0, 3) == 0 ? 2 : 1);
    if (d.Validate().ok()) ExpectDepthwiseParity(d, static_cast<uint64_t>(i));
  }
}

}  // namespace
}  // namespace lamina::harness
