// Problem lists as text: what they hold, how networks scale, and what is refused.
#include "harness/network.h"

#include <gtest/gtest.h>

namespace lamina::harness {
namespace {

constexpr const char* kText = R"(# a comment
scaling width=plain resolution=64 fixed=3,10   # and one behind a line

stem: conv2d ih=64 iw=64 ic=3 oc=32 kh=3 kw=3 stride_h=2 stride_w=2 pad_top=1 pad_left=1
depthwise x3: conv2d ih=32 iw=32 ic=32 oc=32 kh=3 kw=3 groups=32
conv2d ih=1 iw=1 ic=32 oc=10
extra params=100 macs=7 what=a lookup: of words
)";

TEST(Network, HoldsLayersAndExtras) {
  const auto network = ParseNetwork(kText, "test");
  ASSERT_TRUE(network.ok()) << network.status().message();
  ASSERT_EQ(network->layers.size(), 3u);
  EXPECT_EQ(network->layers[0].name, "stem");
  EXPECT_EQ(network->layers[1].name, "depthwise");
  EXPECT_EQ(network->layers[1].count, 3);
  EXPECT_EQ(network->layers[2].name, "conv2d ih=1 iw=1 ic=32 oc=10");
  ASSERT_EQ(network->extras.size(), 1u);
  EXPECT_EQ(network->extras[0].what, "a lookup: of words");
  Cost sum = CostOf(network->layers[0].problem);
  for (int i = 0; i < 3; ++i) sum += CostOf(network->layers[1].problem);
  sum += CostOf(network->layers[2].problem);
  EXPECT_EQ(TotalCost(*network).macs, sum.macs + 7);
  EXPECT_EQ(TotalCost(*network).params, sum.params + 100);
}

TEST(Network, Scales) {
  const auto network = ParseNetwork(kText, "test");
  ASSERT_TRUE(network.ok());
  const auto scaled = Scale(*network, 0.5, 32);
  ASSERT_TRUE(scaled.ok()) << scaled.status().message();
  EXPECT_EQ(ToString(scaled->layers[0].problem),
            "conv2d ih=32 iw=32 ic=3 oc=16 kh=3 kw=3 stride_h=2 stride_w=2 pad_top=1 pad_left=1");
  EXPECT_EQ(ToString(scaled->layers[1].problem), "conv2d ih=16 iw=16 ic=16 oc=16 kh=3 kw=3 groups=16");
  const auto same = Scale(*network, 1, 0);
  ASSERT_TRUE(same.ok());
  EXPECT_EQ(TotalCost(*same), TotalCost(*network));
}

// The channels that `width` makes of `channels`.
int64_t Scaled(const std::string& rule, double width, int64_t channels) {
  const auto network =
      ParseNetwork("scaling " + rule + "\nconv2d ih=1 iw=1 ic=" + std::to_string(channels) + " oc=1", "test");
  const auto scaled = Scale(*network, width, 0);
  return scaled.ok() ? std::get<Conv2dDesc>(scaled->layers[0].problem).ic : -1;
}

TEST(Network, RoundsWidthsAsTheAuthorsDo) {
  EXPECT_EQ(Scaled("width=plain", 0.75, 33), 24);          // int(24.75)
  EXPECT_EQ(Scaled("width=plain", 0.1, 32), 8);            // never less
  EXPECT_EQ(Scaled("width=multiple_of_8", 0.75, 24), 24);  // 18: the nearest, 16, is more than a tenth below
  EXPECT_EQ(Scaled("width=multiple_of_8", 0.75, 96), 72);
  EXPECT_EQ(Scaled("width=multiple_of_8", 1.4, 16), 24);  // 22.4
  EXPECT_EQ(Scaled("width=multiple_of_8", 0.35, 16), 8);
  EXPECT_EQ(Scaled("width=plain fixed=3,10", 2, 3), 3);
  EXPECT_EQ(Scaled("width=plain not_reduced=1280", 0.5, 1280), 1280);
  EXPECT_EQ(Scaled("width=plain not_reduced=1280", 1.5, 1280), 1920);
}

std::string ParseRefusal(const std::string& text) {
  const auto network = ParseNetwork(text, "file");
  return network.ok() ? "accepted" : network.status().message();
}

TEST(Network, RefusesWithTheLine) {
  EXPECT_EQ(ParseRefusal("\n# x\na: conv2d ih=x"), "file: line 3: conv2d: field ih wants an integer, got \"x\"");
  EXPECT_EQ(ParseRefusal("a: conv2d ih=1 iw=1 ic=0 oc=1"),
            "file: line 1: conv2d ih=1 iw=1 oc=1: ih, iw, ic and oc must be at least 1, got ih=1 iw=1 ic=0 oc=1");
  EXPECT_EQ(ParseRefusal("a y3: conv2d ih=1 iw=1 ic=1 oc=1"),
            "file: line 1: after a name stands x<count> or a colon, got \"y3\"");
  EXPECT_EQ(ParseRefusal("a x0: conv2d ih=1 iw=1 ic=1 oc=1"),
            "file: line 1: after a name stands x<count> or a colon, got \"x0\"");
  EXPECT_EQ(ParseRefusal("extra params=-1 what=x"), "file: line 1: params wants a count, got \"-1\"");
  EXPECT_EQ(ParseRefusal("extra params=1"), "file: line 1: extra wants what=<words> at its end");
  EXPECT_EQ(ParseRefusal("extra bytes=1 what=x"), "file: line 1: extra has the fields params macs what, got \"bytes\"");
  EXPECT_EQ(ParseRefusal("scaling width=wide"), "file: line 1: scaling: field width cannot be \"wide\"");
  EXPECT_EQ(ParseRefusal("scaling fixed=3,x"), "file: line 1: scaling: field fixed cannot be \"3,x\"");
  EXPECT_EQ(ParseRefusal("scaling height=3"),
            "file: line 1: scaling has the fields width resolution fixed not_reduced, got \"height\"");
  EXPECT_NE(ParseRefusal("pooling ih=1").find("a problem begins with its operator, one of conv2d"), std::string::npos);
}

TEST(Network, RefusesWidthsAndResolutions) {
  const auto refusal = [](const Network& network, double width, int64_t resolution) {
    const auto scaled = Scale(network, width, resolution);
    return scaled.ok() ? "accepted" : scaled.status().message();
  };
  const auto network = ParseNetwork(kText, "test");
  const auto rigid = ParseNetwork("conv2d ih=1 iw=1 ic=1 oc=1", "test");
  ASSERT_TRUE(network.ok() && rigid.ok());
  EXPECT_EQ(refusal(*network, 0, 0), "width must be more than 0 and at most 16, got 0");
  EXPECT_EQ(refusal(*network, 1, -1), "resolution must be between 1 and 65536, got -1");
  EXPECT_EQ(refusal(*network, 1, 51),
            "resolution 51 makes a size of layer depthwise no whole number: it must be a multiple of 32");
  EXPECT_EQ(refusal(*rigid, 0.5, 0), "width: this network has no width multiplier");
  EXPECT_EQ(refusal(*rigid, 1, 10), "resolution: this network's cannot be changed");
}

TEST(Network, KnowsItsNames) {
  EXPECT_EQ(NetworkNames(), (std::vector<std::string_view>{"bahdanau", "bert_base", "gpt2_small", "mobilenet_v1",
                                                           "mobilenet_v2", "resnet_50", "xception"}));
  EXPECT_EQ(LoadNetwork("alexnet").status().message(),
            "unknown network \"alexnet\", the networks are bahdanau bert_base gpt2_small mobilenet_v1 mobilenet_v2 "
            "resnet_50 xception");
}

}  // namespace
}  // namespace lamina::harness
