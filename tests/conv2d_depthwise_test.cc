// conv2d with groups = ic on the depthwise candidate: every kernel and the copies around it, at the edges of vectors,
// row blocks, tiles and images.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "harness/conv2d.h"
#include "lamina/conv2d.h"

namespace lamina {
namespace {

using harness::Fill;
using harness::Guard;

constexpr char kDepthwise[] = "depthwise_direct", kPlanes[] = "depthwise_planes";
const char* const kLayouts[] = {"", " layout=nchw"};

Conv2dDesc Parsed(const std::string& text) {
  const auto desc = ParseConv2d("conv2d " + text);
  EXPECT_TRUE(desc.ok()) << desc.status().message();
  return *desc;
}

// Each problem on every target, in both layouts; depthwise_planes may refuse it, depthwise_direct may not.
void Check(const std::vector<std::string>& problems, harness::ParityOptions options = {}) {
  for (const char* implementation : {kDepthwise, kPlanes}) {
    options.implementation = implementation;
    for (const std::string& text : problems) {
      for (const char* layout : kLayouts) {
        const auto report = harness::CheckParity<Conv2d>(Parsed(text + layout), options);
        for (const std::string& failure : report.failures) ADD_FAILURE() << failure;
        if (implementation == kPlanes && report.refused > 0) continue;
        EXPECT_EQ(report.passed, static_cast<int>(SupportedIsas().size())) << text << layout;
      }
    }
  }
}

std::string Square(int image, int channels, int k, int stride) {
  const auto s = [](int v) { return std::to_string(v); };
  const std::string p = s(k / 2);
  return "ih=" + s(image) + " iw=" + s(image) + " ic=" + s(channels) + " oc=" + s(channels) + " groups=" + s(channels) +
         " kh=" + s(k) + " kw=" + s(k) + " stride_h=" + s(stride) + " stride_w=" + s(stride) + " pad_top=" + p +
         " pad_left=" + p + " pad_bottom=" + p + " pad_right=" + p;
}

TEST(Depthwise, ImagesAroundRowBlocks) {
  for (int k : {2, 3, 4, 5, 7}) {
    for (int stride : {1, 2}) {
      for (int image = 1; image <= 11; ++image) Check({Square(image, 17, k, stride)});
    }
  }
}

TEST(Depthwise, ChannelsAroundVectors) {
  for (int channels : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 24, 31, 32, 33, 72}) {
    Check({Square(6, channels, 3, 1), Square(5, channels, 3, 2), Square(4, channels, 4, 1)});
  }
}

// Pixels that lie so far apart that few sets of L1 hold a row are taken in slides on every target, in steps of one
// vector or two.
TEST(Depthwise, PixelsFarApart) {
  for (const char* channels : {"8", "16", "40", "72"}) {
    const std::string c(channels),
        pixels = "ih=9 iw=7 pad_top=1 pad_left=1 pad_right=1 x_stride=4608 y_stride=4616 ic=" + c + " oc=" + c +
                 " groups=" + c;
    for (const char* kernel : {"kh=3 kw=3", "kh=5 kw=5", "kh=4 kw=4"}) {
      Check({pixels + " " + kernel, pixels + " stride_h=2 stride_w=2 " + kernel});
    }
  }
  Check({"ih=9 iw=7 pad_top=1 pad_left=1 stride_h=2 stride_w=2 kh=3 kw=3 ic=264 oc=264 groups=264"});
}

TEST(Depthwise, KernelsWithoutSlide) {
  for (int kh = 1; kh <= 7; ++kh) {
    for (int kw : {1, 2, 3, 4, 7}) {
      Check({"ih=9 iw=10 ic=18 oc=18 groups=18 pad_top=1 pad_left=2 pad_right=1 kh=" + std::to_string(kh) +
             " kw=" + std::to_string(kw)});
    }
  }
  Check({Square(13, 17, 11, 1), Square(9, 17, 9, 3), Square(12, 9, 3, 4)});
}

TEST(Depthwise, StridesAndDilations) {
  for (int stride_h : {1, 2, 3}) {
    for (int stride_w : {1, 2, 3}) {
      for (int dilation_h : {1, 2, 5}) {
        for (int dilation_w : {1, 3}) {
          Check({"ih=14 iw=13 ic=10 oc=10 groups=10 kh=3 kw=3 pad_top=2 pad_left=1 pad_bottom=3 pad_right=2 stride_h=" +
                 std::to_string(stride_h) + " stride_w=" + std::to_string(stride_w) +
                 " dilation_h=" + std::to_string(dilation_h) + " dilation_w=" + std::to_string(dilation_w)});
        }
      }
    }
  }
}

TEST(Depthwise, AnyPads) {
  for (const char* kernel : {"kh=3 kw=3", "kh=3 kw=3 stride_h=2 stride_w=2", "kh=5 kw=5",
                             "kh=5 kw=5 stride_h=2 stride_w=2", "kh=4 kw=2", "kh=2 kw=2", "kh=4 kw=4"}) {
    for (const char* pads :
         {"", " pad_top=1", " pad_left=1", " pad_bottom=2", " pad_right=2", " pad_left=5 pad_right=7",
          " pad_top=6 pad_bottom=8", " pad_top=3 pad_left=4 pad_bottom=5 pad_right=6"}) {
      Check({"ih=6 iw=7 ic=17 oc=17 groups=17 " + std::string(kernel) + pads});
    }
  }
  // Nothing but padding under some outputs, and images smaller than the kernel.
  Check({"ih=1 iw=1 ic=5 oc=5 groups=5 kh=3 kw=3 pad_top=4 pad_left=4 pad_bottom=4 pad_right=4",
         "ih=2 iw=1 ic=5 oc=5 groups=5 kh=5 kw=5 pad_top=2 pad_left=2 pad_bottom=2 pad_right=2",
         "ih=3 iw=2 ic=5 oc=5 groups=5 kh=7 kw=7 pad_top=6 pad_left=5 pad_bottom=4 pad_right=3",
         "ih=1 iw=2 ic=5 oc=5 groups=5 kh=7 kw=6 pad_top=3 pad_left=3 pad_bottom=3 pad_right=3"});
}

TEST(Depthwise, DepthMultiplier) {
  for (int ic : {1, 2, 5, 16, 17}) {
    for (int multiplier : {2, 3, 8, 20}) {
      const std::string channels = "ic=" + std::to_string(ic) + " groups=" + std::to_string(ic) +
                                   " oc=" + std::to_string(ic * multiplier) + " ih=6 iw=5 pad_top=1 pad_left=1";
      Check({channels + " kh=3 kw=3", channels + " kh=2 kw=4 stride_h=2"});
    }
  }
}

TEST(Depthwise, OneDimension) {
  Check({"ih=1 iw=150 ic=20 oc=20 groups=20 kh=1 kw=31 pad_left=15 pad_right=15",
         "ih=1 iw=90 ic=20 oc=20 groups=20 kh=1 kw=4 pad_left=3",  // causal
         "ih=1 iw=200 ic=20 oc=20 groups=20 kh=1 kw=2 dilation_w=64 pad_left=64",
         "ih=40 iw=1 ic=20 oc=20 groups=20 kh=5 kw=1 pad_top=2 pad_bottom=2 stride_h=2"});
}

TEST(Depthwise, ManyTiles) {
  Check({"ih=9 iw=300 ic=3 oc=3 groups=3 kh=3 kw=3 pad_left=1 pad_right=1",               // columns past one tile
         "ih=6 iw=150 ic=40 oc=40 groups=40 kh=3 kw=3 pad_left=1 pad_right=1 pad_top=1",  // cut so that L1 keeps the
                                                                                          // lines
         "ih=6 iw=200 ic=40 oc=40 groups=40 kh=5 kw=5 pad_left=2 pad_right=2",
         "ih=6 iw=150 ic=40 oc=40 groups=40 kh=3 kw=3 stride_h=2 stride_w=2 pad_left=1",
         "ih=70 iw=70 ic=5 oc=5 groups=5 kh=4 kw=4"});  // more rows than one block
}

TEST(Depthwise, ActivationsAndResiduals) {
  for (const char* kernel : {"kh=3 kw=3", "kh=2 kw=3"}) {
    for (const char* residual : {"none", "before", "after"}) {
      for (const char* activation :
           {"none", "relu", "relu6", "clamp(-1,2)", "leaky(0.1)", "hardswish", "hardsigmoid(0.2,0.5)", "sigmoid",
            "silu", "gelu_erf", "gelu_tanh", "tanh", "elu(1)"}) {
        Check({"n=2 ih=6 iw=7 ic=19 oc=19 groups=19 pad_left=1 bias=0 " + std::string(kernel) +
               " residual=" + residual + " activation=" + activation});
      }
    }
  }
}

TEST(Depthwise, Slices) {
  for (int channels : {3, 16, 19, 32}) {
    const std::string c = std::to_string(channels);
    for (const char* rest :
         {"", " residual=before residual_stride=50", " residual=after activation=tanh residual_stride=50"}) {
      const std::string problem = "n=2 ih=5 iw=6 kh=3 kw=3 pad_top=1 pad_left=1 x_stride=37 y_stride=45 ic=" + c +
                                  " oc=" + c + " groups=" + c + rest;
      const auto report = harness::CheckParity<Conv2d>(Parsed(problem), {.implementation = kDepthwise});
      for (const std::string& failure : report.failures) ADD_FAILURE() << failure;
      EXPECT_EQ(report.passed, static_cast<int>(SupportedIsas().size()));
    }
  }
  Check({"n=3 ih=5 iw=6 kh=3 kw=3 ic=5 oc=5 groups=5 x_stride=900 y_stride=777 residual=before residual_stride=1000"});
}

TEST(Depthwise, Batches) {
  Check({"n=0 " + Square(5, 7, 3, 1), "n=5 " + Square(5, 7, 3, 1), "n=3 " + Square(4, 33, 5, 2)});
}

TEST(Depthwise, RealLayers) {
  const harness::ParityOptions once{.threads = {1, 2}, .tensors = {{Fill::kNormal, Guard::kEnd}}};
  Check({Square(112, 32, 3, 1), Square(56, 64, 3, 2), Square(28, 120, 5, 1), Square(14, 240, 5, 2),
         Square(7, 512, 3, 1), Square(14, 96, 7, 1)},
        once);
}

// The candidates and the layouts that they take.
struct Way {
  const char *implementation, *layout;
};
const Way kWays[] = {{kDepthwise, ""}, {kDepthwise, " layout=nchw"}, {kPlanes, " layout=nchw"}};
constexpr char kSame[] = "pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 ";

TEST(Depthwise, ReshapeSharesTheWeights) {
  for (const Way& way : kWays) {
    const Conv2dDesc d =
        Parsed("ih=9 iw=9 ic=19 oc=19 groups=19 kh=3 kw=3 pad_top=1 pad_left=1" + std::string(way.layout));
    harness::TensorStore store(Fill::kNormal, Guard::kEnd, 1);
    harness::Case<Conv2d> first(d, store);
    auto op = Conv2d::Prepare(d, first.weights, {.implementation = way.implementation});
    ASSERT_TRUE(op.ok()) << op.status().message();
    Conv2dDesc other = d;
    other.n = 2;
    other.ih = 14;
    other.iw = 5;
    other.y_stride = 1500;
    auto reshaped = op->Reshape(other);
    ASSERT_TRUE(reshaped.ok()) << reshaped.status().message();
    harness::TensorStore other_store(Fill::kNormal, Guard::kEnd, 1);
    harness::Case<Conv2d> second(other, other_store);  // the same seed: the same weights
    const auto expected = second.Reference();
    ASSERT_TRUE(reshaped->Run(second.tensors).ok());
    EXPECT_TRUE(harness::Compare(expected[0]).ok) << harness::Compare(expected[0]).message;
  }
}

TEST(Depthwise, ResidualMayBeTheOutput) {
  for (const Way& way : kWays) {
    for (const char* rest : {"residual=before activation=relu", "residual=after activation=relu",
                             "residual=after activation=silu", "residual=before activation=silu"}) {
      const Conv2dDesc d =
          Parsed("ih=7 iw=9 ic=19 oc=19 groups=19 kh=3 kw=3 " + std::string(kSame) + rest + way.layout);
      harness::TensorStore store(Fill::kNormal, Guard::kEnd, 3);
      const harness::Case<Conv2d> c(d, store);
      const auto* residual = static_cast<const float*>(c.tensors.residual);
      for (Isa isa : SupportedIsas()) {
        std::vector<float> y(residual, residual + 7 * 9 * 19), apart(y.size());
        auto op = Conv2d::Prepare(d, c.weights, {.isa = isa, .implementation = way.implementation});
        ASSERT_TRUE(op.ok()) << op.status().message();
        ASSERT_TRUE(op->Run({c.tensors.x, apart.data(), residual}).ok());
        ASSERT_TRUE(op->Run({c.tensors.x, y.data(), y.data()}).ok());
        EXPECT_EQ(apart, y) << ToString(d) << " on " << op->implementation();
      }
    }
  }
}

// Where x and y lie to each other modulo 4096 decides by how much the stores lag behind; it changes no bit, and the
// ring stays within the scratch. Even and odd numbers of vectors, with and without a tail.
TEST(Depthwise, OutputAtAnyOffset) {
  constexpr size_t kPage = 4096;
  for (const char* channels : {"128", "136", "256"}) {
    const std::string c_text(channels);
    const Conv2dDesc d =
        Parsed("ih=7 iw=8 kh=3 kw=3 x_stride=512 y_stride=512 residual_stride=512 residual=after ic=" + c_text +
               " oc=" + c_text + " groups=" + c_text + " " + std::string(kSame));
    harness::TensorStore store(Fill::kNormal, Guard::kEnd, 3);
    const harness::Case<Conv2d> c(d, store);
    const size_t floats = 7 * 8 * 512;
    std::vector<float> block(floats + 2 * kPage / sizeof(float));
    for (Isa isa : SupportedIsas()) {
      auto op = Conv2d::Prepare(d, c.weights, {.isa = isa, .pool = &harness::PoolOf(1), .implementation = kDepthwise});
      ASSERT_TRUE(op.ok()) << op.status().message();
      const harness::Guarded scratch(op->scratch_bytes(), Guard::kEnd);
      std::vector<float> first;
      for (size_t offset = 0; offset < kPage; offset += 32) {
        std::fill(block.begin(), block.end(), 0.0f);
        const auto x = reinterpret_cast<uintptr_t>(c.tensors.x), at = reinterpret_cast<uintptr_t>(block.data());
        float* const y = block.data() + ((x + offset - at) % kPage) / sizeof(float);
        ASSERT_TRUE(op->Run({c.tensors.x, y, c.tensors.residual}, scratch.as<float>()).ok());
        const std::vector<float> result(y, y + floats);
        if (first.empty()) first = result;
        ASSERT_EQ(result, first) << ToString(d) << " on " << op->implementation() << " at " << offset;
      }
    }
  }
}

// Blocks of rows, the padding of which is cleared each time.
TEST(Depthwise, PlanesOfSeveralBlocks) {
  for (const char* rest :
       {"kh=3 kw=3", "kh=5 kw=5 pad_bottom=4 activation=silu", "kh=3 kw=3 stride_h=2 stride_w=2 pad_top=4"}) {
    Check({"ih=230 iw=300 ic=2 oc=2 groups=2 pad_left=2 pad_right=3 " + std::string(rest)});
  }
}

TEST(Depthwise, NanAndInfinityGoWhereTheyBelong) {
  const Conv2dDesc d = Parsed(
      "ih=6 iw=6 ic=17 oc=17 groups=17 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 activation=relu6");
  std::vector<float> x(6 * 6 * 17, 1.0f), w(17 * 9, 1.0f), bias(17, 0.0f), y(x.size());
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  x[(2 * 6 + 3) * 17 + 16] = nan;
  x[(2 * 6 + 3) * 17 + 1] = -infinity;
  for (Isa isa : SupportedIsas()) {
    auto op = Conv2d::Prepare(d, {w.data(), bias.data()}, {.isa = isa, .implementation = kDepthwise});
    ASSERT_TRUE(op.ok());
    ASSERT_TRUE(op->Run({x.data(), y.data()}).ok());
    for (int h = 0; h < 6; ++h) {
      for (int v = 0; v < 6; ++v) {
        const bool near = std::abs(h - 2) <= 1 && std::abs(v - 3) <= 1;
        for (int c = 0; c < 17; ++c) {
          const float value = y[static_cast<size_t>((h * 6 + v) * 17 + c)];
          if (near && c == 16) {
            EXPECT_TRUE(std::isnan(value)) << ToString(isa);
          } else {
            EXPECT_EQ(value, near && c == 1 ? 0.0f : h % 5 != 0 || v % 5 != 0 ? 6.0f : 4.0f) << ToString(isa);
          }
        }
      }
    }
  }
}

std::string Refusal(const char* implementation, const std::string& problem) {
  const auto report = harness::CheckParity<Conv2d>(Parsed(problem), {.implementation = implementation});
  EXPECT_EQ(report.passed + report.failed, 0);
  return report.refusals.empty() ? "" : report.refusals[0].substr(report.refusals[0].rfind(": ") + 2);
}

TEST(Depthwise, RefusesWithTheReason) {
  EXPECT_EQ(Refusal(kDepthwise, "ih=4 iw=4 ic=4 oc=8 groups=2"), "only groups = ic is depthwise");
  EXPECT_EQ(Refusal(kDepthwise,
                    "ih=1 iw=1 ic=1 oc=1 kh=2 kw=2 dilation_h=1000000 dilation_w=1000000 stride_h=1000000 "
                    "stride_w=1000000 pad_top=1000000 pad_left=1000000"),
            "the padded rows that an output row sees must hold fewer than 2^36 pixels, got 1000001 rows of 1000001");
  const std::string planes = "ih=9 iw=9 ic=4 oc=4 layout=nchw ";
  EXPECT_EQ(Refusal(kPlanes, planes + "groups=2 kh=3 kw=3"), "only groups = ic is depthwise");
  EXPECT_EQ(Refusal(kPlanes, "ih=4 iw=4 ic=4 oc=4 groups=4 kh=3 kw=3"), "reads planes in nchw, got layout=nhwc");
  EXPECT_EQ(Refusal(kPlanes, planes + "groups=4 kh=3 kw=3 dilation_h=2"), "the dilations must be 1");
  for (const char* kernel : {"kh=4 kw=4", "kh=3 kw=5", "kh=3 kw=3 stride_h=2", "kh=3 kw=3 stride_h=3 stride_w=3"}) {
    EXPECT_EQ(Refusal(kPlanes, planes + "groups=4 " + kernel),
              "the kernel must be 3x3 or 5x5, the strides both 1 or both 2");
  }
}

}  // namespace
}  // namespace lamina
