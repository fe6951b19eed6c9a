// The text form of descriptors: printing and reading are inverses, and what cannot be read is refused with the reason.
#include <gtest/gtest.h>

#include "lamina/conv2d.h"

namespace lamina {
namespace {

TEST(Text, PrintsOnlyWhatDiffersFromTheDefault) {
  EXPECT_EQ(ToString(Conv2dDesc{.ih = 56, .iw = 28, .ic = 64, .oc = 32}), "conv2d ih=56 iw=28 ic=64 oc=32");
}

TEST(Text, ReadsWhatItPrints) {
  Conv2dDesc d{.n = 2, .ih = 5, .iw = 7, .ic = 4, .oc = 8, .kh = 3, .pad_left = 2, .groups = 4, .bias = false};
  d.activation = {ActivationKind::kClamp, -0.1f, 6.5f};
  d.residual = Residual::kAfterActivation;
  d.layout = Layout::kNchw;
  d.dtype = DType::kBf16;
  d.y_stride = 1000;
  const auto read = ParseConv2d(ToString(d));
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(*read, d) << ToString(*read);
}

std::string Refusal(const char* text) {
  const auto read = ParseConv2d(text);
  return read.ok() ? "accepted" : read.status().message();
}

TEST(Text, RefusesWithTheReason) {
  EXPECT_EQ(Refusal("dense ih=1"), "conv2d: the text must begin with this name, got \"dense ih=1\"");
  EXPECT_EQ(Refusal("conv2d ih=1 ih=2"), "conv2d: field ih is given twice");
  EXPECT_EQ(Refusal("conv2d ih=x"), "conv2d: field ih wants an integer, got \"x\"");
  EXPECT_EQ(Refusal("conv2d ih"), "conv2d: fields are written name=value, got \"ih\"");
  EXPECT_EQ(Refusal("conv2d layout=chw"), "conv2d: field layout wants one of nhwc nchw, got \"chw\"");
  EXPECT_NE(Refusal("conv2d foo=1").find("unknown field \"foo\", the fields are n ih iw"), std::string::npos);
  EXPECT_NE(Refusal("conv2d activation=clamp(1)").find("clamp(a,b)"), std::string::npos);
  EXPECT_NE(Refusal("conv2d ih=99999999999999999999").find("wants an integer"), std::string::npos);
}

}  // namespace
}  // namespace lamina
