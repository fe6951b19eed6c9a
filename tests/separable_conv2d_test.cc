// separable_conv2d against the reference and against the two or three conv2d that it stands for.
#include "lamina/separable_conv2d.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "harness/separable_conv2d.h"
#include "lamina/conv2d.h"

namespace lamina {
namespace {

using harness::Case;
using harness::Fill;
using harness::Guard;

const char* const kLayouts[] = {"", " layout=nchw"};
const int kTargets = static_cast<int>(SupportedIsas().size());

SeparableConv2dDesc Parsed(const std::string& text) {
  const auto desc = ParseSeparableConv2d("separable_conv2d " + text);
  EXPECT_TRUE(desc.ok()) << desc.status().message();
  return *desc;
}

// Whether `planes` is a candidate.
bool TakesPlanes(const SeparableConv2dDesc& d) {
  return d.layout == Layout::kNchw && d.order == SeparableOrder::kDwPw && d.fusion != Fusion::kAlways && d.kh == d.kw &&
         (d.kh == 3 || d.kh == 5) && d.stride_h == d.stride_w && d.stride_h <= 2 && d.dilation_h == 1 &&
         d.dilation_w == 1;
}

// So many candidates, and `planes` where it takes the problem.
void CheckOne(const SeparableConv2dDesc& desc, int candidates, const harness::ParityOptions& options = {}) {
  const auto report = harness::CheckParity<SeparableConv2d>(desc, options);
  for (const std::string& failure : report.failures) ADD_FAILURE() << failure;
  EXPECT_EQ(report.passed, (candidates + (TakesPlanes(desc) ? 1 : 0)) * kTargets) << ToString(desc);
}

// All candidates on every target, both layouts.
void Check(const std::vector<std::string>& problems, const harness::ParityOptions& options = {}) {
  for (const std::string& text : problems) {
    for (const char* layout : kLayouts) CheckOne(Parsed(text + layout), 2, options);
  }
}

std::string S(int64_t value) { return std::to_string(value); }

// The three orders with `channels` channels wherever the order leaves them free; `more` besides.
std::vector<std::string> Orders(int image, int channels, const std::string& more) {
  const std::string size = "ih=" + S(image) + " iw=" + S(image + 1) + " " + more;
  return {size + " ic=" + S(channels) + " oc=7",
          size + " order=pw_dw ic=6 oc=" + S(channels * (more.find("depth_multiplier=3") != std::string::npos ? 3 : 1)),
          size + " order=pw_dw_pw ic=5 oc=6 hidden=" + S(channels)};
}

constexpr char kSame[] = "pad_top=1 pad_left=1 pad_bottom=1 pad_right=1";

TEST(Separable, Images) {
  for (int image : {1, 2, 3, 4, 5, 7, 8, 9, 13}) {
    Check(Orders(image, 17, kSame));
    Check(Orders(image, 17, std::string(kSame) + " stride_h=2 stride_w=2"));
  }
}

TEST(Separable, Channels) {
  for (int channels : {1, 2, 3, 8, 15, 16, 31, 33, 64, 65}) Check(Orders(4, channels, kSame));
  Check({"ih=3 iw=3 ic=1 oc=1", "ih=3 iw=3 ic=3 oc=65", "ih=3 iw=3 ic=128 oc=3", "ih=3 iw=3 ic=65 oc=2 order=pw_dw",
         "ih=3 iw=3 ic=33 hidden=40 oc=50 order=pw_dw_pw"});
}

TEST(Separable, KernelsStridesDilations) {
  for (const char* kernel : {"kh=1 kw=1", "kh=5 kw=5 pad_top=2 pad_left=2", "kh=5 kw=5 stride_h=2 stride_w=2",
                             "kh=3 kw=1", "kh=2 kw=4 pad_left=3", "dilation_h=2 dilation_w=2 pad_top=2 pad_bottom=2",
                             "stride_h=3 stride_w=2 pad_top=1", "kh=1 kw=1 stride_h=3 stride_w=3",
                             "dilation_h=3 dilation_w=1 stride_h=2", "kh=7 kw=7 pad_top=3 pad_left=3 pad_right=3"}) {
    Check(Orders(9, 17, kernel));
  }
}

// Of the depthwise step's input, which in pw_dw is what act(bias) made of it: not act(bias) itself.
TEST(Separable, AnyPads) {
  for (const char* pads : {"", "pad_top=1", "pad_left=2", "pad_bottom=3", "pad_right=1", "pad_top=5 pad_bottom=6",
                           "pad_top=3 pad_left=4 pad_bottom=2 pad_right=5"}) {
    Check(Orders(5, 9, pads));
  }
}

TEST(Separable, DepthMultiplier) {
  for (const char* more :
       {"depth_multiplier=3", "depth_multiplier=3 stride_h=2 stride_w=2 pad_top=1", "depth_multiplier=3 kh=2 kw=2"}) {
    for (int channels : {1, 5, 17}) Check(Orders(6, channels, more));
  }
}

TEST(Separable, BiasesActivationsResiduals) {
  int which = 0;
  for (const char* a : {"none", "relu", "relu6", "clamp(-1,2)", "leaky(0.1)", "hardswish", "hardsigmoid(0.2,0.5)",
                        "sigmoid", "silu", "gelu_erf", "gelu_tanh", "tanh", "elu(1)"}) {
    for (const char* residual : {"none", "before", "after"}) {
      // Each combination of biases comes round; each activation stands at each step.
      const std::string biases = " expand_bias=" + S(which & 1) + " depthwise_bias=" + S(which >> 1 & 1) +
                                 " project_bias=" + S(which >> 2 & 1);
      ++which;
      const std::string names[] = {"expand", "depthwise", "project"};
      for (int step = 0; step < 3; ++step) {
        const std::string more = std::string(kSame) + " residual=" + residual + biases + " " + names[step] +
                                 "_activation=" + a + (step == 1 ? "" : " depthwise_activation=relu");
        Check(Orders(4, 9, more),
              {.threads = {1, 2}, .tensors = {{Fill::kExact, Guard::kEnd}, {Fill::kNormal, Guard::kEnd}}});
      }
    }
  }
}

TEST(Separable, Slices) {
  for (const char* residual : {"", " residual=before residual_stride=50", " residual=after residual_stride=44"}) {
    for (const std::string& problem : Orders(5, 19, "n=2 x_stride=37 y_stride=41" + std::string(residual))) {
      CheckOne(Parsed(problem), 2);
    }
    for (const std::string& problem : Orders(5, 19, "n=2 x_stride=900 y_stride=901 layout=nchw"))
      CheckOne(Parsed(problem), 2);
  }
}

TEST(Separable, Batches) {
  for (int n : {0, 3, 5}) Check(Orders(6, 9, std::string(kSame) + " n=" + S(n)));
}

// More strips than one, rings that wrap, parts for several threads.
TEST(Separable, ManyStrips) {
  const harness::ParityOptions options{.threads = {1, 2, 3, 4}, .tensors = {{Fill::kNormal, Guard::kEnd}}};
  Check({"ih=70 iw=40 ic=24 oc=9 " + std::string(kSame), "ih=64 iw=70 ic=3 oc=20 order=pw_dw " + std::string(kSame),
         "ih=60 iw=50 ic=4 hidden=24 oc=4 order=pw_dw_pw residual=after " + std::string(kSame),
         "ih=61 iw=50 ic=4 hidden=24 oc=4 order=pw_dw_pw stride_h=2 stride_w=2 " + std::string(kSame),
         "ih=80 iw=50 ic=4 hidden=20 oc=4 order=pw_dw_pw stride_h=5 kh=2 kw=2",
         "ih=90 iw=50 ic=4 oc=20 order=pw_dw dilation_h=6",
         "n=3 ih=40 iw=40 ic=4 hidden=24 oc=4 order=pw_dw_pw " + std::string(kSame)},
        options);
}

TEST(Separable, RealLayers) {
  const harness::ParityOptions once{.threads = {1, 2}, .tensors = {{Fill::kNormal, Guard::kEnd}}};
  Check({"ih=56 iw=56 ic=32 oc=64 depthwise_activation=relu6 project_activation=relu6 " + std::string(kSame),
         "ih=28 iw=28 ic=64 oc=128 stride_h=2 stride_w=2 depthwise_activation=relu6 " + std::string(kSame),
         "ih=7 iw=7 ic=256 oc=256 depthwise_activation=relu6 project_activation=relu6 " + std::string(kSame),
         "ih=14 iw=14 ic=32 hidden=192 oc=32 order=pw_dw_pw expand_activation=relu6 depthwise_activation=relu6 "
         "residual=after " +
             std::string(kSame),
         "ih=14 iw=14 ic=40 hidden=120 oc=40 kh=5 kw=5 order=pw_dw_pw expand_activation=hardswish "
         "depthwise_activation=hardswish "
         "residual=after pad_top=2 pad_left=2 pad_bottom=2 pad_right=2",
         "ih=14 iw=14 ic=128 oc=160 order=pw_dw " + std::string(kSame)},
        once);
}

// What the operator stands for, through the public conv2d.
std::vector<float> InSteps(const SeparableConv2dDesc& d, const SeparableConv2dWeights& w,
                           const SeparableConv2dTensors& t, const Context& context) {
  const auto run = [&](const Conv2dDesc& c, const Conv2dWeights& weights, const float* x, const void* residual) {
    std::vector<float> y(static_cast<size_t>(c.n * c.oh() * c.ow() * c.oc));
    auto conv = Conv2d::Prepare(c, weights, context);
    EXPECT_TRUE(conv.ok()) << conv.status().message();
    EXPECT_TRUE(conv->Run({x, y.data(), residual}).ok());
    return y;
  };
  Conv2dDesc depthwise{.n = d.n,
                       .ih = d.ih,
                       .iw = d.iw,
                       .ic = d.depthwise_in(),
                       .oc = d.depthwise_out(),
                       .kh = d.kh,
                       .kw = d.kw,
                       .stride_h = d.stride_h,
                       .stride_w = d.stride_w,
                       .dilation_h = d.dilation_h,
                       .dilation_w = d.dilation_w,
                       .pad_top = d.pad_top,
                       .pad_left = d.pad_left,
                       .pad_bottom = d.pad_bottom,
                       .pad_right = d.pad_right,
                       .groups = d.depthwise_in(),
                       .bias = d.depthwise_bias,
                       .activation = d.depthwise_activation,
                       .layout = d.layout};
  std::vector<float> x(static_cast<const float*>(t.x), static_cast<const float*>(t.x) + d.n * d.ih * d.iw * d.ic);
  if (d.has_expand()) {
    const Conv2dDesc expand{.n = d.n,
                            .ih = d.ih,
                            .iw = d.iw,
                            .ic = d.ic,
                            .oc = d.depthwise_in(),
                            .bias = d.expand_bias,
                            .activation = d.expand_activation,
                            .layout = d.layout};
    x = run(expand, {w.expand_w, w.expand_bias}, x.data(), nullptr);
  }
  if (!d.has_project()) {
    depthwise.residual = d.residual;
    return run(depthwise, {w.depthwise_w, w.depthwise_bias}, x.data(), t.residual);
  }
  x = run(depthwise, {w.depthwise_w, w.depthwise_bias}, x.data(), nullptr);
  const Conv2dDesc project{.n = d.n,
                           .ih = d.oh(),
                           .iw = d.ow(),
                           .ic = d.depthwise_out(),
                           .oc = d.oc,
                           .bias = d.project_bias,
                           .activation = d.project_activation,
                           .residual = d.residual,
                           .layout = d.layout};
  return run(project, {w.project_w, w.project_bias}, x.data(), t.residual);
}

// The same tolerance for both, so twice it between them; and both candidates within it of each other.
TEST(SeparableProperty, IsItsConvolutionsOneAfterTheOther) {
  for (const char* more :
       {"residual=after depth_multiplier=1", "stride_h=2 stride_w=2 pad_top=1 depthwise_activation=relu6",
        "expand_activation=silu depthwise_activation=tanh project_activation=leaky(0.2) residual=before",
        "layout=nchw n=2 pad_left=2 depth_multiplier=3"}) {
    for (const std::string& text : Orders(8, 19, more)) {
      const SeparableConv2dDesc d = Parsed(text);
      harness::TensorStore store(Fill::kNormal, Guard::kEnd, 11);
      const Case<SeparableConv2d> c(d, store);
      const std::vector<double> tolerance = c.Reference()[0].tolerance;
      for (Isa isa : SupportedIsas()) {
        const std::vector<float> want = InSteps(d, c.weights, c.tensors, {.isa = isa});
        for (const char* candidate : {"fused_rows", "unfused"}) {
          auto op = SeparableConv2d::Prepare(d, c.weights, {.isa = isa, .implementation = candidate});
          ASSERT_TRUE(op.ok()) << op.status().message();
          std::vector<float> got(want.size());
          ASSERT_TRUE(op->Run({c.tensors.x, got.data(), c.tensors.residual}).ok());
          for (size_t i = 0; i < got.size(); ++i) {
            ASSERT_LE(std::fabs(got[i] - want[i]), 2 * tolerance[i]) << ToString(d) << " on " << op->implementation();
          }
        }
      }
    }
  }
}

// An identity for a step leaves the other one: pw_dw_pw with an identity before or after is dw_pw or pw_dw.
TEST(SeparableProperty, AnIdentityStepMakesTheShorterOrder) {
  const int channels = 9, image = 7;
  std::vector<float> identity(channels * channels, 0.0f), x(image * image * channels), w(channels * 9),
      p(channels * channels);
  for (int i = 0; i < channels; ++i) identity[static_cast<size_t>(i * channels + i)] = 1;
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7 % 5) - 2;
  for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i * 3 % 7) - 3;
  for (size_t i = 0; i < p.size(); ++i) p[i] = static_cast<float>(i * 5 % 9) - 4;
  SeparableConv2dDesc d{.ih = image,
                        .iw = image,
                        .ic = channels,
                        .oc = channels,
                        .pad_top = 1,
                        .pad_left = 1,
                        .pad_bottom = 1,
                        .pad_right = 1,
                        .expand_bias = false,
                        .depthwise_bias = false,
                        .project_bias = false};
  const auto run = [&](SeparableOrder order, const float* expand, const float* project) {
    d.order = order;
    d.hidden = order == SeparableOrder::kPwDwPw ? channels : 0;
    auto op = SeparableConv2d::Prepare(d, {.expand_w = expand, .depthwise_w = w.data(), .project_w = project});
    EXPECT_TRUE(op.ok()) << op.status().message();
    std::vector<float> y(x.size());
    EXPECT_TRUE(op->Run({x.data(), y.data()}).ok());
    return y;
  };
  EXPECT_EQ(run(SeparableOrder::kPwDwPw, identity.data(), p.data()), run(SeparableOrder::kDwPw, nullptr, p.data()));
  EXPECT_EQ(run(SeparableOrder::kPwDwPw, p.data(), identity.data()), run(SeparableOrder::kPwDw, p.data(), nullptr));
}

TEST(SeparableProperty, ABatchIsItsImages) {
  for (const std::string& text : Orders(9, 17, "n=3 residual=after " + std::string(kSame))) {
    const SeparableConv2dDesc batch = Parsed(text);
    SeparableConv2dDesc one = batch;
    one.n = 1;
    harness::TensorStore store(Fill::kNormal, Guard::kEnd, 5);
    const Case<SeparableConv2d> c(batch, store);
    auto whole = SeparableConv2d::Prepare(batch, c.weights);
    ASSERT_TRUE(whole.ok());
    auto single = whole->Reshape(one);
    ASSERT_TRUE(single.ok()) << single.status().message();
    const size_t x = static_cast<size_t>(one.ih * one.iw * one.ic),
                 y = static_cast<size_t>(one.oh() * one.ow() * one.oc);
    std::vector<float> want(3 * y), got(3 * y);
    ASSERT_TRUE(whole->Run({c.tensors.x, want.data(), c.tensors.residual}).ok());
    for (size_t n = 0; n < 3; ++n) {
      ASSERT_TRUE(single
                      ->Run({static_cast<const float*>(c.tensors.x) + n * x, got.data() + n * y,
                             static_cast<const float*>(c.tensors.residual) + n * y})
                      .ok());
    }
    EXPECT_EQ(got, want) << text;
  }
}

TEST(Separable, ReshapeSharesTheWeights) {
  for (const char* candidate : {"fused_rows", "unfused"}) {
    for (const std::string& text : Orders(9, 17, kSame)) {
      const SeparableConv2dDesc d = Parsed(text);
      harness::TensorStore store(Fill::kNormal, Guard::kEnd, 1);
      const Case<SeparableConv2d> first(d, store);
      auto op = SeparableConv2d::Prepare(d, first.weights, {.implementation = candidate});
      ASSERT_TRUE(op.ok()) << op.status().message();
      SeparableConv2dDesc other = d;
      other.n = 2;
      other.ih = 40;
      other.iw = 5;
      other.pad_bottom = 2;
      other.x_stride = 30;
      auto reshaped = op->Reshape(other);
      ASSERT_TRUE(reshaped.ok()) << reshaped.status().message();
      harness::TensorStore other_store(Fill::kNormal, Guard::kEnd, 1);  // the same seed: the same weights
      const Case<SeparableConv2d> second(other, other_store);
      const auto expected = second.Reference();
      ASSERT_TRUE(reshaped->Run(second.tensors).ok());
      EXPECT_TRUE(harness::Compare(expected[0]).ok) << harness::Compare(expected[0]).message;
      other.oc += 1;
      EXPECT_NE(op->Reshape(other).status().message().find("not oc"), std::string::npos);
    }
  }
}

TEST(Separable, ResidualMayBeTheOutput) {
  for (const char* candidate : {"fused_rows", "unfused"}) {
    for (const char* layout : kLayouts) {
      for (const char* residual :
           {"residual=before", "residual=after depthwise_activation=silu project_activation=silu"}) {
        for (const std::string& text : Orders(12, 17, std::string(residual) + " " + kSame + layout)) {
          const SeparableConv2dDesc d = Parsed(text);
          harness::TensorStore store(Fill::kNormal, Guard::kEnd, 1);
          const Case<SeparableConv2d> c(d, store);
          auto op = SeparableConv2d::Prepare(d, c.weights, {.implementation = candidate});
          ASSERT_TRUE(op.ok()) << op.status().message();
          const size_t count = static_cast<size_t>(d.n * d.oh() * d.ow() * d.oc);
          std::vector<float> y(static_cast<const float*>(c.tensors.residual),
                               static_cast<const float*>(c.tensors.residual) + count);
          std::vector<float> want(count);
          ASSERT_TRUE(op->Run({c.tensors.x, want.data(), c.tensors.residual}).ok());
          ASSERT_TRUE(op->Run({c.tensors.x, y.data(), y.data()}).ok());
          EXPECT_EQ(y, want) << text;
        }
      }
    }
  }
}

TEST(Separable, NanAndInfinityReachWhatTheyTouch) {
  const SeparableConv2dDesc d{.ih = 8,
                              .iw = 8,
                              .ic = 5,
                              .oc = 6,
                              .pad_top = 1,
                              .pad_left = 1,
                              .pad_bottom = 1,
                              .pad_right = 1,
                              .depthwise_activation = {ActivationKind::kRelu6},
                              .project_activation = {ActivationKind::kRelu}};
  std::vector<float> x(8 * 8 * 5, 1.0f), w(5 * 9, 1.0f), p(6 * 5, 1.0f), bias(6, 0.0f), y(8 * 8 * 6);
  x[(3 * 8 + 3) * 5 + 2] = std::numeric_limits<float>::quiet_NaN();
  x[(7 * 8 + 7) * 5 + 1] = std::numeric_limits<float>::infinity();  // clamped to 6, as its finite neighbours are
  for (Isa isa : SupportedIsas()) {
    for (const char* candidate : {"fused_rows", "unfused"}) {
      auto op = SeparableConv2d::Prepare(
          d,
          {.depthwise_w = w.data(), .depthwise_bias = bias.data(), .project_w = p.data(), .project_bias = bias.data()},
          {.isa = isa, .implementation = candidate});
      ASSERT_TRUE(op.ok());
      ASSERT_TRUE(op->Run({x.data(), y.data()}).ok());
      for (int h = 0; h < 8; ++h) {
        for (int v = 0; v < 8; ++v) {
          const bool near = std::abs(h - 3) <= 1 && std::abs(v - 3) <= 1;
          for (int c = 0; c < 6; ++c) {
            const float value = y[static_cast<size_t>((h * 8 + v) * 6 + c)];
            EXPECT_EQ(std::isnan(value), near) << h << " " << v;
            EXPECT_EQ(std::isfinite(value), !near) << h << " " << v;
          }
        }
      }
    }
  }
}

TEST(SeparableFusion, IsAsAsked) {
  SeparableConv2dDesc d{.ih = 14, .iw = 14, .ic = 16, .oc = 16};
  d.layout = Layout::kNchw;
  const auto reports = [&](Fusion fusion, Backend backend = Backend::kCpu) {
    d.fusion = fusion;
    return *SeparableConv2d::Candidates(d, {.backend = backend});
  };
  for (const CandidateReport& r : reports(Fusion::kAuto)) {
    EXPECT_TRUE(r.accepted) << r.reason;
    EXPECT_GT(r.predicted_ns, 0);
  }
  const auto always = reports(Fusion::kAlways), never = reports(Fusion::kNever);
  EXPECT_TRUE(always[0].accepted);
  EXPECT_EQ(always[1].reason, "fusion=always: this goes step by step");
  EXPECT_EQ(always[2].reason, always[1].reason);
  EXPECT_EQ(never[0].reason, "fusion=never: this keeps no full-size intermediate");
  EXPECT_TRUE(never[1].accepted && never[2].accepted);
  EXPECT_EQ(reports(Fusion::kAlways, Backend::kReference)[0].reason, "fusion=always: the reference goes step by step");
  EXPECT_TRUE(reports(Fusion::kAuto, Backend::kReference)[0].accepted);
  d.fusion = Fusion::kAlways;
  std::vector<float> weights(256);
  const SeparableConv2dWeights w{.depthwise_w = weights.data(),
                                 .depthwise_bias = weights.data(),
                                 .project_w = weights.data(),
                                 .project_bias = weights.data()};
  const auto refused = SeparableConv2d::Prepare(d, w, {.backend = Backend::kReference});
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("reference/naive refused: fusion=always: the reference goes step by step"),
            std::string::npos)
      << refused.status().message();
  const auto op = SeparableConv2d::Prepare(d, w);
  ASSERT_TRUE(op.ok());
  EXPECT_NE(op->Explain().find("refused: fusion=always"), std::string::npos) << op->Explain();
  EXPECT_NE(op->implementation().find("fused_rows"), std::string::npos);
}

TEST(SeparableRefusal, OfAKernelThatReachesTooFar) {
  const auto reports = SeparableConv2d::Candidates(
      Parsed("ih=1 iw=1 ic=1 oc=1 kh=2 kw=2 dilation_h=1000000 dilation_w=1000000 pad_top=1000000 pad_left=1000000"));
  ASSERT_TRUE(reports.ok()) << reports.status().message();
  for (const CandidateReport& r : *reports) {
    EXPECT_EQ(r.reason,
              "the padded rows that an output row sees must hold fewer than 2^36 pixels, got 1000001 rows of 1000001");
  }
}

TEST(SeparableReference, BackendRunsTheLoops) {
  for (const std::string& text : Orders(5, 7, "n=2 residual=after " + std::string(kSame))) {
    const auto report = harness::CheckParity<SeparableConv2d>(Parsed(text), {.backend = Backend::kReference});
    EXPECT_EQ(report.passed, 1);
    for (const auto& f : report.failures) ADD_FAILURE() << f;
  }
}

TEST(SeparableText, ReadsWhatItPrints) {
  SeparableConv2dDesc d{
      .n = 2, .ih = 9, .iw = 8, .ic = 5, .hidden = 12, .oc = 6, .kh = 5, .stride_w = 2, .pad_left = 3};
  d.order = SeparableOrder::kPwDwPw;
  d.fusion = Fusion::kNever;
  d.depth_multiplier = 2;
  d.project_bias = false;
  d.expand_activation = {ActivationKind::kElu, 0.5f};
  d.residual = Residual::kBeforeActivation;
  const auto read = ParseSeparableConv2d(ToString(d));
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(*read, d) << ToString(*read);
}

TEST(SeparableCost, CountsEachStep) {
  // MobileNetV1's second block: 56 x 56 pixels x (9 x 64 + 64 x 128).
  const SeparableConv2dDesc v1 = Parsed("ih=112 iw=112 ic=64 oc=128 stride_h=2 stride_w=2 " + std::string(kSame));
  EXPECT_EQ(CostOf(v1).macs, 56 * 56 * (9 * 64 + 64 * 128));
  EXPECT_EQ(CostOf(v1).params, 9 * 64 + 64 + 64 * 128 + 128);
  EXPECT_EQ(CostOf(v1).activation_bytes, 4 * (112 * 112 * 64 + 56 * 56 * 128));
  // The survey's order: parameters 1 * 1 * Cin * Cout + kh * kw * Cout.
  const SeparableConv2dDesc pw_dw =
      Parsed("ih=10 iw=10 ic=4 oc=6 order=pw_dw expand_bias=0 depthwise_bias=0 stride_h=2 stride_w=2");
  EXPECT_EQ(CostOf(pw_dw).params, 4 * 6 + 9 * 6);
  EXPECT_EQ(CostOf(pw_dw).macs, 100 * 4 * 6 + 16 * 9 * 6);
  const SeparableConv2dDesc inverted = Parsed(
      "n=2 ih=8 iw=8 ic=4 hidden=24 oc=5 order=pw_dw_pw depth_multiplier=2 expand_activation=silu "
      "project_activation=tanh "
      "residual=after " +
      std::string(kSame));
  EXPECT_EQ(CostOf(inverted).macs, 2 * 64 * (4 * 24 + 9 * 48 + 48 * 5));
  EXPECT_EQ(CostOf(inverted).transcendentals, 2 * 64 * (24 + 5));
  EXPECT_EQ(CostOf(inverted).params, 4 * 24 + 24 + 9 * 48 + 48 + 48 * 5 + 5);
  EXPECT_EQ(CostOf(inverted).activation_bytes, 4 * 2 * 64 * (4 + 5 + 5));
}

std::string Refusal(const std::string& text) { return Parsed(text).Validate().message(); }

TEST(SeparableRefusal, NamesTheRuleAndTheValue) {
  const auto expect = [](const std::string& text, const std::string& sentence) {
    const std::string got = Refusal(text);
    EXPECT_NE(got.find(": " + sentence), std::string::npos) << text << " gave " << got;
  };
  const std::string ok = "ih=5 iw=5 ic=4 oc=4 ";
  EXPECT_EQ(Refusal(ok), "");
  expect(ok + "n=-1", "n must not be negative, got n=-1");
  expect("ih=5 iw=5 ic=4", "ih, iw, ic and oc must be at least 1, got ih=5 iw=5 ic=4 oc=0");
  expect(ok + "order=pw_dw_pw", "hidden must be at least 1 when order=pw_dw_pw, got hidden=0");
  expect(ok + "hidden=3", "hidden must be 0 unless order=pw_dw_pw, got hidden=3");
  expect(ok + "kh=0", "the kernel must be at least 1x1, got kh=0 kw=3");
  expect(ok + "stride_w=0", "strides must be at least 1, got stride_h=1 stride_w=0");
  expect(ok + "dilation_h=-2", "dilations must be at least 1 (1 is dense), got dilation_h=-2 dilation_w=1");
  expect(ok + "pad_left=-1", "pads must not be negative, got pad_top=0 pad_left=-1 pad_bottom=0 pad_right=0");
  expect(ok + "depth_multiplier=0", "depth_multiplier must be at least 1, got depth_multiplier=0");
  expect(ok + "order=pw_dw depth_multiplier=3",
         "depth_multiplier must divide oc when order=pw_dw, got depth_multiplier=3 oc=4");
  expect("ih=5000000000 iw=5 ic=4 oc=4", "every size but n must be less than 2^31, got greatest=5000000000");
  expect(ok + "kh=7", "the kernel must fit into the padded input, got kernel_h=7 padded_h=5 kernel_w=3 padded_w=5");
  expect(ok + "depthwise_activation=clamp(3,1)", "depthwise_activation clamp(a,b) needs a <= b, got clamp(3,1)");
  expect(ok + "project_activation=clamp(3,1)", "project_activation clamp(a,b) needs a <= b");
  expect(ok + "order=pw_dw expand_activation=clamp(3,1)", "expand_activation clamp(a,b) needs a <= b");
  EXPECT_EQ(Refusal(ok + "order=pw_dw project_activation=clamp(3,1)"), "");  // a step that this order lacks
  expect("ih=5 iw=5 ic=2000000000 oc=2000000000 depth_multiplier=2000000000", "the weights' size overflows");
  expect("n=4000000000000 ih=5000 iw=5000 ic=400 oc=4000", "the count of multiply-accumulates overflows");
  expect(ok + "x_stride=3", "a pixel stride must be 0 or at least the tensor's channels");
  SeparableConv2dDesc d = Parsed(ok);
  d.order = static_cast<SeparableOrder>(7);
  EXPECT_NE(d.Validate().message().find("every enumerated field must hold one of its members"), std::string::npos);
  d = Parsed(ok);
  d.fusion = static_cast<Fusion>(-1);
  EXPECT_FALSE(d.Validate().ok());
}

TEST(SeparableRefusal, NamesTheMissingPointer) {
  const SeparableConv2dDesc d =
      Parsed("ih=5 iw=5 ic=4 hidden=8 oc=4 order=pw_dw_pw residual=after " + std::string(kSame));
  const std::vector<float> data(5 * 5 * 8, 1.0f);
  std::vector<float> y(5 * 5 * 4);
  const SeparableConv2dWeights all{data.data(), data.data(), data.data(), data.data(), data.data(), data.data()};
  const auto refusal = [&](const void* SeparableConv2dWeights::*missing) {
    SeparableConv2dWeights w = all;
    w.*missing = nullptr;
    return SeparableConv2d::Prepare(d, w).status().message();
  };
  const auto ends = [](const std::string& got, const std::string& end) {
    EXPECT_TRUE(got.size() >= end.size() && got.substr(got.size() - end.size()) == end) << got;
  };
  using W = SeparableConv2dWeights;
  ends(refusal(&W::expand_w), "weights.expand_w must not be null");
  ends(refusal(&W::expand_bias), "weights.expand_bias must not be null when expand_bias=1");
  ends(refusal(&W::depthwise_w), "weights.depthwise_w must not be null");
  ends(refusal(&W::depthwise_bias), "weights.depthwise_bias must not be null when depthwise_bias=1");
  ends(refusal(&W::project_w), "weights.project_w must not be null");
  ends(refusal(&W::project_bias), "weights.project_bias must not be null when project_bias=1");
  auto op = SeparableConv2d::Prepare(d, all);
  ASSERT_TRUE(op.ok()) << op.status().message();
  ends(op->Run({nullptr, y.data(), data.data()}).message(), "x must not be null");
  ends(op->Run({data.data(), nullptr, data.data()}).message(), "y must not be null");
  ends(op->Run({data.data(), y.data(), nullptr}).message(), "residual must not be null when the descriptor has one");
  for (DType dtype : {DType::kBf16, DType::kF16}) {
    SeparableConv2dDesc half = d;
    half.dtype = dtype;
    const Status s = SeparableConv2d::Prepare(half, all).status();
    EXPECT_EQ(s.code(), StatusCode::kNotBuilt);
    EXPECT_NE(s.message().find("only dtype=f32 is computed on the CPU"), std::string::npos) << s.message();
  }
}

}  // namespace
}  // namespace lamina
