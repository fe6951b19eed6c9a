// conv2d's contract: every refusal says the rule and the values, Reshape serves other sizes, costs, paddings, reports.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "harness/conv2d.h"
#include "lamina/conv2d.h"

namespace lamina {
namespace {

Conv2dDesc Parse(const std::string& fields) {
  const auto desc = ParseConv2d("conv2d " + fields);
  EXPECT_TRUE(desc.ok()) << desc.status().message();
  return desc.ok() ? *desc : Conv2dDesc{};
}

// What Validate says after "<descriptor>: ", "" when it accepts.
std::string Refusal(const Conv2dDesc& d) {
  const Status s = d.Validate();
  if (s.ok()) return "";
  EXPECT_EQ(s.code(), StatusCode::kInvalidArgument);
  const std::string prefix = ToString(d) + ": ";
  EXPECT_EQ(s.message().substr(0, prefix.size()), prefix);
  return s.message().substr(std::min(s.message().size(), prefix.size()));
}
std::string Refusal(const std::string& fields) { return Refusal(Parse(fields)); }

TEST(Conv2dValidate, NamesTheRuleAndTheValues) {
  const std::string ok = "ih=5 iw=6 ic=4 oc=6 kh=3 kw=3 ";
  EXPECT_EQ(Refusal(ok), "");
  EXPECT_EQ(Refusal(ok + "n=0"), "");
  EXPECT_EQ(Refusal(ok + "n=-1"), "n must not be negative, got n=-1");
  EXPECT_EQ(Refusal("iw=6 ic=4 oc=6"), "ih, iw, ic and oc must be at least 1, got ih=0 iw=6 ic=4 oc=6");
  EXPECT_EQ(Refusal("ih=5 iw=-6 ic=4 oc=6"), "ih, iw, ic and oc must be at least 1, got ih=5 iw=-6 ic=4 oc=6");
  EXPECT_EQ(Refusal("ih=5 iw=6 oc=6"), "ih, iw, ic and oc must be at least 1, got ih=5 iw=6 ic=0 oc=6");
  EXPECT_EQ(Refusal("ih=5 iw=6 ic=4"), "ih, iw, ic and oc must be at least 1, got ih=5 iw=6 ic=4 oc=0");
  EXPECT_EQ(Refusal("ih=5 iw=6 ic=4 oc=6 kh=0"), "the kernel must be at least 1x1, got kh=0 kw=1");
  EXPECT_EQ(Refusal(ok + "stride_w=0"), "strides must be at least 1, got stride_h=1 stride_w=0");
  EXPECT_EQ(Refusal(ok + "dilation_h=0"), "dilations must be at least 1 (1 is dense), got dilation_h=0 dilation_w=1");
  EXPECT_EQ(Refusal(ok + "pad_right=-2"),
            "pads must not be negative, got pad_top=0 pad_left=0 pad_bottom=0 pad_right=-2");
  EXPECT_EQ(Refusal(ok + "groups=3"), "groups must divide ic and oc, got groups=3 ic=4 oc=6");
  EXPECT_EQ(Refusal(ok + "groups=4"), "groups must divide ic and oc, got groups=4 ic=4 oc=6");
  EXPECT_EQ(Refusal(ok + "groups=0"), "groups must divide ic and oc, got groups=0 ic=4 oc=6");
  EXPECT_EQ(Refusal(ok + "pad_top=2147483648"), "every size but n must be less than 2^31, got greatest=2147483648");
  EXPECT_EQ(Refusal("ih=2 iw=6 ic=4 oc=6 kh=3 kw=3"),
            "the kernel must fit into the padded input, got kernel_h=3 padded_h=2 kernel_w=3 padded_w=6");
  EXPECT_EQ(Refusal(ok + "dilation_w=3 pad_left=1 pad_right=1"), "");
  EXPECT_EQ(Refusal(ok + "dilation_w=3"),
            "the kernel must fit into the padded input, got kernel_h=3 padded_h=5 kernel_w=7 padded_w=6");
  EXPECT_EQ(Refusal(ok + "activation=clamp(2,1)"), "activation clamp(a,b) needs a <= b, got clamp(2,1)");
}

TEST(Conv2dValidate, RefusesWhatTextCannotSay) {
  const Conv2dDesc good{.ih = 5, .iw = 6, .ic = 4, .oc = 6};
  Conv2dDesc d = good;
  d.activation.kind = static_cast<ActivationKind>(99);
  EXPECT_EQ(Refusal(d), "activation must be a member of ActivationKind, got kind=99");
  d = good;
  d.activation = {ActivationKind::kElu, NAN, 0};
  EXPECT_EQ(Refusal(d), "activation's parameters must be finite");
  d = good;
  d.residual = static_cast<Residual>(3);
  EXPECT_EQ(Refusal(d), "every enumerated field must hold one of its members, got residual=3");
  d = good;
  d.layout = static_cast<Layout>(-1);
  d.weight_layout = static_cast<WeightLayout>(2);
  EXPECT_EQ(Refusal(d), "every enumerated field must hold one of its members, got layout=-1 weight_layout=2");
  d = good;
  d.dtype = static_cast<DType>(8);
  EXPECT_EQ(Refusal(d), "every enumerated field must hold one of its members, got dtype=8");
}

TEST(Conv2dValidate, RefusesSizesThatOverflow) {
  EXPECT_EQ(Refusal("ih=2147483647 iw=2147483647 ic=2147483647 oc=1"),
            "the size of x or y overflows, got n=1 ih=2147483647 iw=2147483647 ic=2147483647 oh=2147483647 "
            "ow=2147483647 oc=1");
  EXPECT_EQ(Refusal("n=4611686018427387904 ih=8 iw=8 ic=8 oc=1"),
            "the size of x or y overflows, got n=4611686018427387904 ih=8 iw=8 ic=8 oh=8 ow=8 oc=1");
  EXPECT_EQ(Refusal("ih=1 iw=1 ic=1000000000 oc=1000000000 layout=nchw"),
            "the weights' size overflows, got oc=1000000000 kh=1 kw=1 ic=1000000000");
  EXPECT_EQ(Refusal("n=1000 ih=100000 iw=100000 ic=1000 oc=1000"),
            "the count of multiply-accumulates overflows, got n=1000 ih=100000 iw=100000 ic=1000 oh=100000 ow=100000 "
            "oc=1000");
}

TEST(Conv2dValidate, RefusesStridesThatOverlap) {
  const std::string got = "got x_stride=3 y_stride=0 residual_stride=0";
  EXPECT_EQ(Refusal("ih=5 iw=6 ic=4 oc=6 x_stride=3"),
            "a pixel stride must be 0 or at least the tensor's channels, " + got);
  EXPECT_EQ(Refusal("ih=5 iw=6 ic=4 oc=6 x_stride=4 y_stride=6 residual_stride=7"), "");
  EXPECT_EQ(Refusal("ih=5 iw=6 ic=4 oc=6 y_stride=5"),
            "a pixel stride must be 0 or at least the tensor's channels, got x_stride=0 y_stride=5 residual_stride=0");
  EXPECT_EQ(Refusal("ih=5 iw=6 ic=4 oc=6 residual_stride=-6"),
            "a pixel stride must be 0 or at least the tensor's channels, got x_stride=0 y_stride=0 residual_stride=-6");
  EXPECT_EQ(Refusal("ih=5 iw=6 ic=4 oc=6 layout=nchw x_stride=119"),
            "an image stride must be 0 or at least channels * height * width, got x_stride=119 y_stride=0 "
            "residual_stride=0");
}

TEST(Conv2dPrepare, RefusesNullWeights) {
  const Conv2dDesc d = Parse("ih=5 iw=6 ic=4 oc=6");
  const std::vector<float> w(24), bias(6);
  EXPECT_EQ(Conv2d::Prepare(d, {nullptr, bias.data()}).status().message(),
            ToString(d) + ": weights.w must not be null");
  EXPECT_EQ(Conv2d::Prepare(d, {w.data(), nullptr}).status().message(),
            ToString(d) + ": weights.bias must not be null when bias=1");
}

TEST(Conv2dPrepare, SaysWhyEachCandidateRefuses) {
  Conv2dDesc d = Parse("ih=5 iw=6 ic=4 oc=6 dtype=bf16");
  const std::vector<float> w(24), bias(6);
  const auto half = Conv2d::Prepare(d, {w.data(), bias.data()});
  ASSERT_FALSE(half.ok());
  EXPECT_EQ(half.status().code(), StatusCode::kNotBuilt);
  EXPECT_NE(half.status().message().find("implicit_gemm refused: only dtype=f32"), std::string::npos)
      << half.status().message();

  // Each candidate's reason, by name.
  const auto reason = [](const std::string& fields, const std::string& name) {
    const auto reports = Conv2d::Candidates(Parse(fields), {.isa = SupportedIsas().front()});
    for (const CandidateReport& r : *reports) {
      if (r.name.substr(r.name.rfind('/') + 1) == name) return r.accepted ? "accepted" : r.reason;
    }
    return std::string("no such candidate");
  };
  const std::string one = "ih=5 iw=6 ic=4 oc=6 ", three = one + "kh=3 kw=3 ";
  EXPECT_EQ(reason(one, "pointwise"), "accepted");
  EXPECT_EQ(reason(one, "implicit_gemm"), "accepted");
  EXPECT_EQ(reason(three, "pointwise"), "the kernel must be 1x1, got kh=3 kw=3");
  EXPECT_EQ(reason(one + "stride_h=2", "pointwise"), "the strides must be 1, got stride_h=2 stride_w=1");
  EXPECT_EQ(reason(one + "pad_left=1", "pointwise"), "the pads must be 0");
  EXPECT_EQ(reason(one + "layout=nchw", "pointwise"), "reads pixels in nhwc, got layout=nchw");
  EXPECT_EQ(reason("ih=5 iw=6 ic=8 oc=8 groups=4", "pointwise"),
            SupportedIsas().front() == Isa::kScalar ? "accepted" : "several groups fit a vector, got groups=4");
  EXPECT_EQ(reason(one + "layout=nchw", "implicit_gemm"), "reads pixels in nhwc, got layout=nchw");
  EXPECT_EQ(reason(one + "layout=nchw", "planes_gemm"), "accepted");
  EXPECT_EQ(reason(one + "layout=nchw stride_h=2", "planes_gemm"), "accepted");
  EXPECT_EQ(reason(three + "layout=nchw pad_top=1", "planes_gemm"), "accepted");
  EXPECT_EQ(reason(one, "planes_gemm"), "reads planes in nchw, got layout=nhwc");
  EXPECT_EQ(reason("ih=1 iw=1 ic=1024 oc=1 layout=nchw pad_left=268435456", "planes_gemm"),
            "would copy more than a GiB for a row of outputs");
  EXPECT_EQ(reason(three + "layout=nchw", "transposed_gemm"), "accepted");
  EXPECT_EQ(reason(three, "transposed_gemm"), "reads planes in nchw, got layout=nhwc");
}

TEST(Conv2dRun, RefusesNullTensorsAndCrookedScratch) {
  const Conv2dDesc d = Parse("ih=5 iw=6 ic=4 oc=6 kh=3 kw=3 residual=before");
  const std::vector<float> w(6 * 9 * 4), bias(6), x(120);
  std::vector<float> y(72);
  const auto conv = Conv2d::Prepare(d, {w.data(), bias.data()});
  ASSERT_TRUE(conv.ok()) << conv.status().message();
  EXPECT_EQ(conv->Run({nullptr, y.data(), y.data()}).message(), ToString(d) + ": x must not be null");
  EXPECT_EQ(conv->Run({x.data(), nullptr, y.data()}).message(), ToString(d) + ": y must not be null");
  EXPECT_EQ(conv->Run({x.data(), y.data()}).message(),
            ToString(d) + ": residual must not be null when the descriptor has one");
  alignas(64) std::byte scratch[65];
  EXPECT_EQ(conv->Run({x.data(), y.data(), y.data()}, scratch + 4).message(),
            ToString(d) + ": scratch must lie at a multiple of 64 bytes, got remainder=4");
  EXPECT_TRUE(conv->Run({x.data(), y.data(), y.data()}).ok());

  // A batch of none does nothing and asks for nothing.
  const auto none = conv->Reshape(Parse("n=0 ih=5 iw=6 ic=4 oc=6 kh=3 kw=3 residual=before"));
  ASSERT_TRUE(none.ok()) << none.status().message();
  EXPECT_TRUE(none->Run({}).ok());
}

TEST(Conv2dReshape, RefusesFixedFields) {
  const Conv2dDesc d = Parse("ih=5 iw=6 ic=4 oc=6");
  const std::vector<float> w(24), bias(6);
  const auto conv = Conv2d::Prepare(d, {w.data(), bias.data()});
  ASSERT_TRUE(conv.ok());
  Conv2dDesc other = d;
  other.oc = 8;
  other.groups = 2;
  EXPECT_EQ(conv->Reshape(other).status().message(),
            ToString(other) +
                ": Reshape may change only run-time sizes, pads and strides, not oc groups of the prepared " +
                ToString(d));
  other = d;
  other.ih = 0;
  EXPECT_NE(conv->Reshape(other).status().message().find("must be at least 1, got ih=0"), std::string::npos);
  other = d;
  other.pad_top = 1;  // pointwise was chosen, and cannot pad
  if (conv->implementation().ends_with("/pointwise")) {
    EXPECT_EQ(conv->Reshape(other).status().message(),
              ToString(other) + ": the prepared " + conv->implementation() + " cannot serve: the pads must be 0");
  }
}

// Every candidate reshaped from a smaller problem gives the bits of one prepared for the larger: batch, image, pads,
// strides, there and back.
TEST(Conv2dReshape, GivesTheBitsOfAFreshOne) {
  const std::vector<std::pair<std::string, std::string>> problems = {
      {"ic=5 oc=37 kh=3 kw=3 ", "ih=4 iw=5"},
      {"ic=16 oc=16 kh=3 kw=3 groups=2 ", "ih=9 iw=6"},
      {"ic=7 oc=70 ", "ih=3 iw=3"},
      {"ic=5 oc=37 kh=3 kw=3 layout=nchw ", "ih=4 iw=5"},
      {"ic=7 oc=70 layout=nchw ", "ih=3 iw=3"},
      {"ic=6 oc=6 groups=6 kh=3 kw=3 ", "ih=6 iw=8"},
      {"ic=17 oc=70 kh=3 kw=3 ", "ih=6 iw=8"},
  };
  for (const auto& [fixed, small] : problems) {
    const bool pads = fixed.find("kh=3") != std::string::npos, nchw = fixed.find("nchw") != std::string::npos;
    const Conv2dDesc first = Parse(fixed + small);
    const Conv2dDesc second = Parse(fixed + "n=3 ih=17 iw=23" + (pads ? " pad_top=1 pad_left=2 pad_right=1" : "") +
                                    (nchw ? "" : " x_stride=20 y_stride=75"));
    for (Isa isa : SupportedIsas()) {
      const auto candidates = Conv2d::Candidates(second, {.isa = isa});
      ASSERT_TRUE(candidates.ok()) << candidates.status().message();
      for (const CandidateReport& candidate : *candidates) {
        if (!candidate.accepted) continue;
        for (size_t threads : {1, 3}) {
          const Context context{.isa = isa, .pool = &harness::PoolOf(threads), .implementation = candidate.name};
          harness::TensorStore store(harness::Fill::kNormal, harness::Guard::kEnd, 3);
          harness::Case<Conv2d> c(second, store);
          const auto fresh = Conv2d::Prepare(second, c.weights, context),
                     from = Conv2d::Prepare(first, c.weights, context);
          ASSERT_TRUE(fresh.ok()) << fresh.status().message();
          if (!from.ok()) continue;  // this candidate takes the second problem only
          const auto reshaped = from->Reshape(second);
          ASSERT_TRUE(reshaped.ok()) << reshaped.status().message();
          EXPECT_EQ(reshaped->implementation(), fresh->implementation());
          EXPECT_EQ(reshaped->desc(), second);
          EXPECT_EQ(reshaped->packed_bytes(), from->packed_bytes());
          store.PoisonOutputs();
          ASSERT_TRUE(fresh->Run(c.tensors, harness::GuardedScratch(fresh->scratch_bytes())->data()).ok());
          const auto want = store.OutputBytes();
          store.PoisonOutputs();
          ASSERT_TRUE(reshaped->Run(c.tensors, harness::GuardedScratch(reshaped->scratch_bytes())->data()).ok());
          EXPECT_EQ(store.OutputBytes(), want) << ToString(second) << " on " << candidate.name;
          const auto back = reshaped->Reshape(first);
          ASSERT_TRUE(back.ok()) << back.status().message();
          EXPECT_EQ(back->scratch_bytes(), from->scratch_bytes());
        }
      }
    }
  }
}

TEST(Conv2dCost, CountsWhatTheDescriptorSays) {
  const Cost c =
      CostOf(Parse("n=2 ih=56 iw=56 ic=64 oc=128 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 "
                   "activation=sigmoid residual=after"));
  EXPECT_EQ(c.macs, int64_t{2} * 56 * 56 * 128 * 9 * 64);  // taps on padding count
  EXPECT_EQ(c.flops(), 2 * c.macs);
  EXPECT_EQ(c.transcendentals, 2 * 56 * 56 * 128);
  EXPECT_EQ(c.params, 128 * 9 * 64 + 128);
  EXPECT_EQ(c.weight_bytes, 4 * c.params);
  EXPECT_EQ(c.activation_bytes, 4 * 2 * 56 * 56 * (64 + 2 * 128));
  const Cost depthwise = CostOf(Parse("ih=10 iw=10 ic=8 oc=16 groups=8 kh=3 kw=3 bias=0 dtype=bf16"));
  EXPECT_EQ(depthwise.macs, 8 * 8 * 16 * 9);
  EXPECT_EQ(depthwise.params, 16 * 9);
  EXPECT_EQ(depthwise.weight_bytes, 2 * 16 * 9);
  // The survey's filter: 5x5 on an RGB image has 75 weights.
  EXPECT_EQ(CostOf(Parse("ih=100 iw=100 ic=3 oc=1 kh=5 kw=5 bias=0")).params, 75);
  EXPECT_EQ(CostOf(Parse("ih=10 iw=10 ic=8 oc=16 groups=0 stride_h=0")), Cost{});  // nonsense costs nothing
}

TEST(Conv2dPadding, FollowsOnnx) {
  Conv2dDesc d = Parse("ih=224 iw=225 ic=3 oc=32 kh=3 kw=3 stride_h=2 stride_w=2");
  SetPadding(d, Padding::kSameUpper);
  EXPECT_EQ(ToString(d),
            "conv2d ih=224 iw=225 ic=3 oc=32 kh=3 kw=3 stride_h=2 stride_w=2 pad_left=1 pad_bottom=1 pad_right=1");
  EXPECT_EQ(d.oh(), 112);
  EXPECT_EQ(d.ow(), 113);
  SetPadding(d, Padding::kSameLower);
  EXPECT_EQ(d.pad_top, 1);
  EXPECT_EQ(d.pad_bottom, 0);
  EXPECT_EQ(d.oh(), 112);
  SetPadding(d, Padding::kValid);
  EXPECT_EQ(d.pad_top + d.pad_bottom + d.pad_left + d.pad_right, 0);
  EXPECT_EQ(d.oh(), 111);
  d = Parse("ih=9 iw=9 ic=1 oc=1 kh=3 kw=4 dilation_h=3 dilation_w=2");
  SetPadding(d, Padding::kSameUpper);
  EXPECT_EQ(ToString(d),
            "conv2d ih=9 iw=9 ic=1 oc=1 kh=3 kw=4 dilation_h=3 dilation_w=2 pad_top=3 pad_left=3 "
            "pad_bottom=3 pad_right=3");
  // A stride larger than the kernel needs no padding; sizes of nonsense are 0 and nothing divides by it.
  d = Parse("ih=10 iw=10 ic=1 oc=1 stride_h=3 stride_w=3");
  SetPadding(d, Padding::kSameUpper);
  EXPECT_EQ(d.pad_top + d.pad_bottom, 0);
  d.stride_h = 0;
  SetPadding(d, Padding::kSameUpper);
  EXPECT_EQ(d.oh(), 0);
}

TEST(Conv2dExplain, ListsEveryCandidate) {
  const Conv2dDesc d = Parse("ih=14 iw=14 ic=64 oc=64 kh=3 kw=3");
  const std::vector<float> w(64 * 9 * 64), bias(64);
  const auto conv = Conv2d::Prepare(d, {w.data(), bias.data()});
  ASSERT_TRUE(conv.ok());
  const std::string text = conv->Explain();
  for (const char* part : {"implicit_gemm", "pointwise", "the kernel must be 1x1, got kh=3 kw=3", "transposed_gemm",
                           "reads planes in nchw"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_EQ(text.find(ToString(d)), 0u) << text;
}

}  // namespace
}  // namespace lamina
