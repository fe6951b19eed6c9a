// Convolution blocks in their forms: the counts that theory gives, and what stays the same.
#include "harness/form.h"

#include <gtest/gtest.h>

namespace lamina::harness {
namespace {

Problem Parse(const std::string& text) {
  const auto problem = ParseProblem(text);
  EXPECT_TRUE(problem.ok()) << problem.status().message();
  return *problem;
}

constexpr const char* kSeparable =
    "separable_conv2d n=2 ih=28 iw=24 ic=32 oc=48 kh=3 kw=3 stride_h=2 stride_w=2 pad_top=1 pad_left=1 pad_bottom=1 "
    "pad_right=1 depthwise_activation=relu6 project_activation=silu";

TEST(Form, StandardHasTheBlocksImageAndLastActivation) {
  EXPECT_EQ(ToString(*InForm(Parse(kSeparable), Form::kStandard)),
            "conv2d n=2 ih=28 iw=24 ic=32 oc=48 kh=3 kw=3 stride_h=2 stride_w=2 pad_top=1 pad_left=1 pad_bottom=1 "
            "pad_right=1 activation=silu");
}

TEST(Form, PointwiseFirstHasNoActivationInTheMiddle) {
  EXPECT_EQ(ToString(*InForm(Parse(kSeparable), Form::kPwDw)),
            "separable_conv2d n=2 ih=28 iw=24 ic=32 oc=48 stride_h=2 stride_w=2 pad_top=1 pad_left=1 pad_bottom=1 "
            "pad_right=1 order=pw_dw depthwise_activation=silu");
}

TEST(Form, ABlockInItsOwnFormIsUnchanged) {
  EXPECT_EQ(*InForm(Parse(kSeparable), Form::kDwPw), Parse(kSeparable));
  EXPECT_EQ(*InForm(Parse(kSeparable), Form::kAsWritten), Parse(kSeparable));
  const Problem conv = *InForm(Parse(kSeparable), Form::kStandard);
  EXPECT_EQ(*InForm(conv, Form::kStandard), conv);
  EXPECT_TRUE(ValidateProblem(*InForm(conv, Form::kDwPw)).ok());
}

TEST(Form, OnlyConvolutionsWithMoreThanImageChannelsAreBlocks) {
  EXPECT_TRUE(IsBlock(Parse("conv2d ih=8 iw=8 ic=16 oc=8 kh=3 kw=3")));
  EXPECT_FALSE(IsBlock(Parse("conv2d ih=8 iw=8 ic=3 oc=8 kh=3 kw=3")));
  EXPECT_FALSE(IsBlock(Parse("conv2d ih=8 iw=8 ic=16 oc=8")));
  EXPECT_FALSE(IsBlock(Parse("conv2d ih=8 iw=8 ic=16 oc=16 kh=3 kw=3 groups=16")));
  EXPECT_FALSE(IsBlock(Parse("fully_connected ic=16 oc=8")));
  EXPECT_FALSE(InForm(Parse("fully_connected ic=16 oc=8"), Form::kDwPw).has_value());
}

// Parameters without biases.
int64_t Weights(Problem problem) {
  std::visit(
      [](auto& d) {
        if constexpr (requires { d.bias; }) d.bias = false;
        if constexpr (requires { d.expand_bias; }) d.expand_bias = d.depthwise_bias = d.project_bias = false;
      },
      problem);
  return CostOf(problem).params;
}

TEST(Form, TheoryIsTheRatioOfCounts) {
  for (const char* text : {kSeparable,
                           "separable_conv2d ih=30 iw=30 ic=8 oc=16 kh=5 kw=3 stride_h=3 stride_w=2 pad_top=2 "
                           "pad_left=1 pad_bottom=2 pad_right=1"}) {
    const Problem standard = *InForm(Parse(text), Form::kStandard);
    for (Form form : {Form::kDwPw, Form::kPwDw}) {
      const Problem problem = *InForm(Parse(text), form);
      const TheoryRatio theory = TheoryOf(problem);
      EXPECT_NEAR(theory.params, double(Weights(problem)) / double(Weights(standard)), 1e-12) << ToString(problem);
      EXPECT_NEAR(theory.macs, double(CostOf(problem).macs) / double(CostOf(standard).macs), 1e-12)
          << ToString(problem);
    }
    EXPECT_EQ(TheoryOf(standard).macs, 1);
  }
}

TEST(Form, StepsHaveTheBlocksCountsTogether) {
  for (Form form : {Form::kDwPw, Form::kPwDw}) {
    const Problem problem = *InForm(Parse(kSeparable), form);
    Cost sum;
    for (const Conv2dDesc& step : StepsOf(problem)) {
      EXPECT_TRUE(step.Validate().ok()) << ToString(step);
      sum += CostOf(step);
    }
    EXPECT_EQ(sum.macs, CostOf(problem).macs);
    EXPECT_EQ(sum.params, CostOf(problem).params);
  }
  EXPECT_TRUE(StepsOf(Parse("conv2d ih=8 iw=8 ic=16 oc=8 kh=3 kw=3")).empty());
}

TEST(Form, HasAName) {
  for (Form form : {Form::kAsWritten, Form::kStandard, Form::kDwPw, Form::kPwDw}) {
    EXPECT_EQ(*ParseForm(ToString(form)), form);
  }
  EXPECT_EQ(ParseForm("dense").status().message(),
            "form must be one of as_written standard dw_pw pw_dw, got \"dense\"");
}

}  // namespace
}  // namespace lamina::harness
