// conv2d against the reference: every candidate on every SIMD target, around the edges of tiles, kernels and images.
#include "lamina/conv2d.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "harness/conv2d.h"

namespace lamina {
namespace {

using harness::CheckParity;
using harness::ParityOptions;
using harness::ParityReport;

// Checks each problem, given as text, on every candidate and target; at least one candidate must take it on each
// target.
void Check(const std::vector<std::string>& problems, const ParityOptions& options = {}) {
  for (const std::string& text : problems) {
    const auto desc = ParseConv2d("conv2d " + text);
    ASSERT_TRUE(desc.ok()) << desc.status().message();
    const ParityReport report = CheckParity<Conv2d>(*desc, options);
    for (const std::string& failure : report.failures) ADD_FAILURE() << failure;
    EXPECT_GE(report.passed, static_cast<int>(SupportedIsas().size())) << text;
  }
}

// The same problems in the other layouts of image and weights.
std::vector<std::string> InAllLayouts(const std::vector<std::string>& problems) {
  std::vector<std::string> all;
  for (const std::string& p : problems) {
    for (const char* layouts : {"", " layout=nchw", " weight_layout=oihw", " layout=nchw weight_layout=oihw"}) {
      all.push_back(p + layouts);
    }
  }
  return all;
}

TEST(Conv2dReference, BackendRunsTheLoops) {
  const Conv2dDesc d{.n = 2, .ih = 5, .iw = 6, .ic = 3, .oc = 4, .kh = 3, .kw = 3, .pad_top = 1, .pad_left = 1};
  const auto report = CheckParity<Conv2d>(d, {.backend = Backend::kReference});
  EXPECT_EQ(report.passed, 1);
  for (const auto& f : report.failures) ADD_FAILURE() << f;
}

TEST(Conv2dParity, SmallestProblems) {
  Check(InAllLayouts({"ih=1 iw=1 ic=1 oc=1", "ih=1 iw=1 ic=5 oc=3", "ih=2 iw=3 ic=1 oc=1 kh=2 kw=2",
                      "ih=3 iw=3 ic=2 oc=5 kh=3 kw=3"}));
}

// Channels around a vector and a panel (64 columns at most), pixels around a tile (7 rows at most) and a vector.
TEST(Conv2dParity, ChannelsAroundPanels) {
  for (int oc : {3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 48, 63, 64, 65, 80, 129}) {
    for (int ic : {1, 4, 17}) {
      const std::string channels = " ic=" + std::to_string(ic) + " oc=" + std::to_string(oc);
      Check({"ih=4 iw=5 kh=3 kw=3 pad_top=1 pad_left=1" + channels, "ih=3 iw=7" + channels,
             "ih=5 iw=5 kh=2 kw=2 layout=nchw" + channels, "ih=3 iw=7 layout=nchw" + channels});
    }
  }
}

TEST(Conv2dParity, WidthsAroundTiles) {
  for (int iw = 1; iw <= 20; ++iw) {
    const std::string image = "ih=3 ic=5 oc=18 iw=" + std::to_string(iw);
    Check({image, image + " layout=nchw", image + " stride_w=2", image + " stride_w=2 layout=nchw",
           image + " kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1",
           image + " kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 layout=nchw"});
  }
}

// Outputs of at most a vector have higher tiles (14 rows at most), several groups in a vector tiles of their own.
TEST(Conv2dParity, NarrowOutputs) {
  for (int iw : {1, 2, 5, 7, 8, 9, 12, 13, 14, 15, 17, 26, 31}) {
    const std::string image =
        "ih=16 iw=" + std::to_string(iw) + " pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 kh=3 kw=3 ";
    Check({image + "ic=3 oc=4", image + "ic=12 oc=12 groups=3", image + "ic=6 oc=12 groups=6 stride_w=2",
           image + "ic=10 oc=5 groups=5 layout=nchw"});
  }
}

TEST(Conv2dParity, GroupsInOneVector) {
  for (int groups : {2, 3, 4, 5, 7, 8, 9, 16, 17}) {
    for (const auto& [ic, oc] : {std::pair{1, 2}, {2, 2}, {2, 3}, {3, 3}, {4, 4}, {3, 7}, {5, 2}, {8, 8}, {1, 16}}) {
      const std::string channels = " groups=" + std::to_string(groups) + " ic=" + std::to_string(ic * groups) +
                                   " oc=" + std::to_string(oc * groups);
      Check({"ih=4 iw=9 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1" + channels,
             "ih=5 iw=6 kh=2 kw=4 pad_right=2 stride_w=2 weight_layout=oihw bias=0" + channels, "ih=3 iw=5" + channels,
             "ih=4 iw=5 kh=3 kw=3 pad_bottom=2 dilation_h=2 layout=nchw residual=before" + channels});
    }
  }
}

// The last columns as dot products, in tiles inside the image and at its border.
TEST(Conv2dParity, FewColumnsBeyondVectors) {
  for (int oc : {1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 17, 18, 19, 20, 21, 24, 33, 50, 65}) {
    const std::string same3 = " kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1";
    for (const int ic : {16, 20, 32}) {
      const std::string channels = " ic=" + std::to_string(ic) + " oc=" + std::to_string(oc);
      Check({"n=2 ih=5 iw=11" + channels, "ih=7 iw=7" + same3 + channels,
             "ih=4 iw=23 residual=after" + same3 + channels, "ih=6 iw=9 stride_w=2 activation=tanh" + same3 + channels,
             "ih=6 iw=9 stride_w=2 stride_h=2" + channels,
             "ih=7 iw=13 dilation_w=2 residual=before weight_layout=oihw" + same3 + channels,
             "ih=5 iw=9 layout=nchw" + same3 + channels,
             "ih=5 iw=9 groups=2 kh=2 kw=3 ic=" + std::to_string(2 * ic) + " oc=" + std::to_string(2 * oc),
             "ih=5 iw=9 x_stride=41 y_stride=77 activation=relu6" + channels});
    }
  }
}

// Padding on one side alone, which leaves no column before the interior or none behind it. A pixel computed twice would
// add its residual twice.
TEST(Conv2dParity, PaddingOnOneSide) {
  for (const char* side : {"pad_left=1", "pad_left=2", "pad_right=1", "pad_right=2", "pad_top=1", "pad_bottom=1"}) {
    for (int iw : {3, 6, 13, 28}) {
      const std::string problem = "ih=5 kh=2 kw=3 ic=3 oc=5 residual=before iw=" + std::to_string(iw) + " " + side;
      Check({problem, problem + " layout=nchw", problem + " layout=nchw stride_h=2 stride_w=2",
             "ih=1 ic=1 oc=2 residual=after layout=nchw iw=" + std::to_string(iw) + " " + side});
    }
  }
}

TEST(Conv2dParity, EveryKernelSize) {
  for (int kh = 1; kh <= 7; ++kh) {
    for (int kw = 1; kw <= 7; ++kw) {
      const std::string kernel = " kh=" + std::to_string(kh) + " kw=" + std::to_string(kw);
      const std::string pads = " pad_top=" + std::to_string(kh / 2) + " pad_left=" + std::to_string(kw / 2) +
                               " pad_bottom=" + std::to_string((kh - 1) / 2) +
                               " pad_right=" + std::to_string((kw - 1) / 2);
      Check({"ih=9 iw=15 ic=3 oc=6" + kernel + pads,
             "ih=7 iw=8 ic=4 oc=5 layout=nchw weight_layout=oihw" + kernel + pads});
    }
  }
}

TEST(Conv2dParity, StridesAndDilations) {
  for (int stride_h = 1; stride_h <= 3; ++stride_h) {
    for (int stride_w = 1; stride_w <= 3; ++stride_w) {
      for (int dilation_h = 1; dilation_h <= 3; ++dilation_h) {
        for (int dilation_w = 1; dilation_w <= 3; ++dilation_w) {
          const std::string steps = " stride_h=" + std::to_string(stride_h) + " stride_w=" + std::to_string(stride_w) +
                                    " dilation_h=" + std::to_string(dilation_h) +
                                    " dilation_w=" + std::to_string(dilation_w);
          Check({"ih=11 iw=13 ic=4 oc=5 kh=3 kw=3 pad_top=2 pad_left=1 pad_bottom=1 pad_right=3" + steps,
                 "ih=8 iw=9 ic=3 oc=4 kh=2 kw=3 layout=nchw pad_left=2" + steps,
                 "ih=2 iw=9 ic=3 oc=4 layout=nchw" + steps});
        }
      }
    }
  }
}

// Pads larger than the kernel (outputs that see nothing but padding), larger than the image, on one side only.
TEST(Conv2dParity, Padding) {
  Check(InAllLayouts(
      {"ih=4 iw=5 ic=3 oc=7 kh=3 kw=3 pad_top=5 pad_left=4 pad_bottom=3 pad_right=6",
       "ih=1 iw=1 ic=2 oc=2 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1",
       "ih=2 iw=3 ic=2 oc=3 kh=5 kw=5 pad_top=4 pad_left=4 pad_bottom=4 pad_right=4 stride_h=2 stride_w=3",
       "ih=6 iw=6 ic=2 oc=3 kh=3 kw=3 pad_right=2", "ih=6 iw=6 ic=2 oc=3 kh=3 kw=3 pad_top=2",
       "ih=6 iw=6 ic=2 oc=3 pad_top=1 pad_left=2 pad_bottom=3 pad_right=4",
       "ih=3 iw=3 ic=2 oc=3 kh=2 kw=2 dilation_h=4 dilation_w=4 pad_top=3 pad_left=3 pad_bottom=3 pad_right=3",
       "ih=9 iw=30 ic=6 oc=8 kh=3 kw=3 pad_top=6 pad_left=6 pad_bottom=6 pad_right=6 dilation_h=6 dilation_w=6"}));
}

TEST(Conv2dParity, PaddingByName) {
  for (Padding padding : {Padding::kValid, Padding::kSameUpper, Padding::kSameLower}) {
    for (int stride = 1; stride <= 3; ++stride) {
      Conv2dDesc d{.ih = 10, .iw = 7, .ic = 3, .oc = 4, .kh = 3, .kw = 4, .stride_h = stride, .stride_w = stride};
      SetPadding(d, padding);
      if (padding != Padding::kValid) {
        EXPECT_EQ(d.oh(), (10 + stride - 1) / stride);
        EXPECT_EQ(d.ow(), (7 + stride - 1) / stride);
      }
      const ParityReport report = CheckParity<Conv2d>(d);
      for (const std::string& failure : report.failures) ADD_FAILURE() << failure;
      EXPECT_GT(report.passed, 0);
    }
  }
}

TEST(Conv2dParity, Groups) {
  Check(
      InAllLayouts({"ih=6 iw=9 ic=6 oc=4 groups=2 kh=3 kw=3 pad_top=1 pad_left=1", "ih=6 iw=9 ic=6 oc=4 groups=2",
                    "ih=5 iw=5 ic=64 oc=64 groups=32 kh=3 kw=3", "ih=5 iw=9 ic=4 oc=140 groups=2 kh=2 kw=2",
                    "ih=7 iw=7 ic=8 oc=8 groups=8 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1",
                    "ih=7 iw=7 ic=5 oc=15 groups=5 kh=3 kw=3 stride_h=2 stride_w=2", "ih=4 iw=4 ic=6 oc=6 groups=6"}));
}

TEST(Conv2dParity, OneDimension) {
  Check(InAllLayouts({"ih=1 iw=50 ic=8 oc=12 kw=5 pad_left=2 pad_right=2", "ih=1 iw=64 ic=3 oc=5 kw=7 stride_w=3",
                      "ih=50 iw=1 ic=4 oc=6 kh=3 dilation_h=2", "ih=1 iw=40 ic=4 oc=4 kw=3 pad_left=8 dilation_w=4",
                      "ih=1 iw=33 ic=6 oc=9 groups=3 kw=4 pad_right=3"}));
}

TEST(Conv2dParity, Slices) {
  Check(
      {"n=2 ih=5 iw=6 ic=4 oc=5 kh=3 kw=3 pad_top=1 pad_left=1 x_stride=9 y_stride=7",
       "n=2 ih=5 iw=6 ic=4 oc=18 x_stride=6 y_stride=40",
       "n=2 ih=5 iw=6 ic=4 oc=18 stride_h=2 stride_w=2 x_stride=6 y_stride=40",
       "n=2 ih=4 iw=4 ic=4 oc=6 kh=2 kw=2 groups=2 x_stride=5 y_stride=9 residual=before residual_stride=8",
       "n=2 ih=4 iw=4 ic=4 oc=6 x_stride=5 y_stride=9 residual=after residual_stride=11",
       "n=3 ih=5 iw=6 ic=4 oc=5 kh=3 kw=3 pad_top=1 pad_left=1 x_stride=150 y_stride=110 layout=nchw",
       "n=3 ih=5 iw=6 ic=4 oc=5 x_stride=150 y_stride=170 layout=nchw residual=after residual_stride=151",
       "n=3 ih=5 iw=6 ic=4 oc=5 kh=2 kw=2 x_stride=150 y_stride=120 layout=nchw residual=before residual_stride=125"});
}

TEST(Conv2dParity, Batches) {
  Check(InAllLayouts({"n=0 ih=5 iw=6 ic=4 oc=5 kh=3 kw=3", "n=3 ih=5 iw=6 ic=4 oc=5 kh=3 kw=3 pad_left=1",
                      "n=3 ih=7 iw=7 ic=9 oc=20", "n=5 ih=2 iw=2 ic=3 oc=3 kh=2 kw=2"}));
}

TEST(Conv2dParity, ActivationsAndResiduals) {
  for (const char* activation :
       {"none", "relu", "relu6", "clamp(-1,2)", "leaky(0.1)", "hardswish", "hardsigmoid(0.2,0.5)", "sigmoid", "silu",
        "gelu_erf", "gelu_tanh", "tanh", "elu(1.5)"}) {
    for (const char* residual : {"none", "before", "after"}) {
      for (const char* bias : {"0", "1"}) {
        const std::string end = std::string(" activation=") + activation + " residual=" + residual + " bias=" + bias;
        Check({"ih=4 iw=6 ic=3 oc=21 kh=3 kw=3 pad_top=1 pad_left=1" + end, "ih=4 iw=6 ic=3 oc=21" + end,
               "ih=4 iw=6 ic=3 oc=9 kh=2 kw=2 layout=nchw" + end, "ih=4 iw=6 ic=3 oc=9 layout=nchw" + end});
      }
    }
  }
}

// Real layers, cut in height or channels to what the reference can do in a moment.
TEST(Conv2dParity, RealLayers) {
  const std::string same3 = " kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1";
  Check({"ih=6 iw=56 ic=64 oc=64" + same3, "ih=14 iw=14 ic=96 oc=80" + same3, "ih=7 iw=7 ic=200 oc=136" + same3,
         "ih=23 iw=224 ic=3 oc=32 kh=7 kw=7 stride_h=2 stride_w=2 pad_top=3 pad_left=3 pad_bottom=3 pad_right=3",
         "ih=23 iw=224 ic=3 oc=32 stride_h=2 stride_w=2" + same3,
         "ih=28 iw=28 ic=64 oc=24 kh=5 kw=5 pad_top=2 pad_left=2 pad_bottom=2 pad_right=2", "ih=14 iw=14 ic=256 oc=192",
         "ih=7 iw=7 ic=320 oc=520", "ih=28 iw=28 ic=96 oc=100 stride_h=2 stride_w=2",
         "ih=64 iw=64 ic=3 oc=192 kh=16 kw=16 stride_h=16 stride_w=16", "ih=6 iw=56 ic=64 oc=64 layout=nchw" + same3,
         "ih=14 iw=14 ic=96 oc=80 layout=nchw weight_layout=oihw" + same3,
         "ih=23 iw=224 ic=3 oc=32 stride_h=2 stride_w=2 layout=nchw weight_layout=oihw" + same3,
         "ih=14 iw=14 ic=256 oc=192 layout=nchw", "ih=7 iw=7 ic=320 oc=520 layout=nchw"},
        {.threads = {1, 2}});
}

}  // namespace
}  // namespace lamina
