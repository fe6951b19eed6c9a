// conv2d's Winograd candidates: parity within their own bound at the ends of tiles, vectors, panels and blocks, who may
// choose them, and what they refuse.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "harness/conv2d.h"
#include "lamina/conv2d.h"
#include "lamina/machine.h"

namespace lamina {
namespace {

using harness::Case;
using harness::Fill;
using harness::Guard;
using harness::TensorStore;

constexpr const char* kNames[] = {"winograd_2x2", "winograd_4x4"};

Conv2dDesc Parse(const std::string& fields) {
  const auto desc = ParseConv2d("conv2d " + fields);
  EXPECT_TRUE(desc.ok()) << desc.status().message();
  return desc.ok() ? *desc : Conv2dDesc{};
}

// Every target must accept: a refusal would be a test that checks nothing.
void Check(const std::string& fields) {
  for (const char* name : kNames) {
    harness::ParityOptions options;
    options.implementation = name;
    const harness::ParityReport report = harness::CheckParity<Conv2d>(Parse(fields), options);
    for (const std::string& failure : report.failures) ADD_FAILURE() << failure;
    EXPECT_EQ(report.passed, static_cast<int>(SupportedIsas().size())) << fields << " on " << name;
  }
}

TEST(Conv2dWinograd, EveryEndOfATile) {
  for (int ih : {1, 3, 4, 5, 8, 9}) {
    for (int iw : {1, 2, 4, 6, 7, 12}) {
      const std::string image = "ic=17 oc=18 ih=" + std::to_string(ih) + " iw=" + std::to_string(iw);
      Check(image + " kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1");
      Check(image + " kh=5 kw=5 pad_top=2 pad_left=4 pad_bottom=2 pad_right=1");
      Check(image + " kh=3 kw=3 pad_top=3 pad_left=1 pad_bottom=1 pad_right=2 layout=nchw");
    }
  }
}

// Enough tiles that those of fewer outputs are left out of the products that they do not need.
TEST(Conv2dWinograd, TilesOfFewerOutputsAmongMany) {
  for (int ih : {13, 14, 15}) {
    for (int iw : {18, 19, 20}) {
      const std::string image = "n=2 ic=16 oc=9 ih=" + std::to_string(ih) + " iw=" + std::to_string(iw);
      Check(image + " kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1");
      Check(image + " kh=5 kw=5 pad_top=2 pad_left=2 pad_bottom=2 pad_right=2");
      Check(image + " kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 layout=nchw");
    }
  }
}

TEST(Conv2dWinograd, ChannelsAroundVectorsAndPanels) {
  for (int ic : {16, 19, 33}) {
    for (int oc : {16, 31, 64, 65, 130}) {
      const std::string channels = "ih=6 iw=7 ic=" + std::to_string(ic) + " oc=" + std::to_string(oc);
      Check(channels + " kh=3 kw=3");
      Check(channels + " kh=3 kw=3 layout=nchw residual=before");
      Check(channels + " kh=5 kw=5 pad_left=1 weight_layout=oihw bias=0");
      Check("ih=6 iw=7 ic=" + std::to_string(ic / 4) + " oc=" + std::to_string(oc / 7) + " kh=3 kw=3 pad_left=1");
    }
  }
}

TEST(Conv2dWinograd, ActivationsResidualsSlicesBatches) {
  const std::string layer = "n=3 ih=7 iw=9 ic=16 oc=20 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1";
  for (const char* rest : {"", " activation=clamp(-1,2)", " activation=gelu_erf", " residual=before activation=relu",
                           " residual=after activation=silu", " residual=before activation=tanh",
                           " x_stride=19 y_stride=33", " residual=after residual_stride=40 y_stride=24"}) {
    Check(layer + rest);
  }
  for (const char* rest :
       {"", " activation=gelu_erf", " residual=before activation=relu", " residual=after activation=silu",
        " x_stride=1100 y_stride=1300", " residual=after residual_stride=1400 y_stride=1270"}) {
    Check(layer + rest + " layout=nchw");
  }
  Check("n=0 ih=7 iw=9 ic=16 oc=20 kh=3 kw=3");
  Check("n=0 ih=7 iw=9 ic=16 oc=20 kh=3 kw=3 layout=nchw");
}

// Blocks and threads cut the list of tiles; no sum depends on the cut.
void CheckCuts(const Conv2dDesc& d) {
  TensorStore store(Fill::kNormal, Guard::kEnd, 5);
  const Case<Conv2d> c(d, store);
  for (const char* name : kNames) {
    std::vector<std::byte> first;
    for (const int64_t l2 : {int64_t{64} << 20, int64_t{512} << 10, int64_t{1}}) {
      Machine machine = BuiltInMachine();
      machine.l2.bytes = l2;
      for (const size_t threads : {1, 2, 3, 7}) {
        const auto conv = Conv2d::Prepare(
            d, c.weights, {.pool = &harness::PoolOf(threads), .machine = &machine, .implementation = name});
        ASSERT_TRUE(conv.ok()) << conv.status().message();
        store.PoisonOutputs();
        const auto scratch = harness::GuardedScratch(conv->scratch_bytes());
        ASSERT_TRUE(conv->Run(c.tensors, scratch->data()).ok());
        if (first.empty()) first = store.OutputBytes();
        EXPECT_EQ(store.OutputBytes(), first) << name << ", L2 of " << l2 << " bytes, " << threads << " threads";
      }
    }
  }
}

TEST(Conv2dWinograd, TheCutIntoBlocksChangesNoBit) {
  const std::string problem = "n=2 ih=30 iw=27 ic=24 oc=70 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1";
  CheckCuts(Parse(problem));
  CheckCuts(Parse(problem + " layout=nchw"));
}

// F(2x2, 3x3) interpolates at 0, +-1 and infinity: nothing but halves and quarters, which integers survive.
TEST(Conv2dWinograd, TwoByTwoIsExactOnIntegers) {
  const Conv2dDesc d = Parse("ih=9 iw=10 ic=32 oc=24 kh=3 kw=3 pad_top=1 pad_left=1");
  TensorStore store(Fill::kExact, Guard::kEnd, 3);
  const Case<Conv2d> c(d, store);
  const auto expected = c.Reference(Accuracy::kStrict);
  for (const Isa isa : SupportedIsas()) {
    const auto conv = Conv2d::Prepare(d, c.weights, {.isa = isa, .implementation = "winograd_2x2"});
    ASSERT_TRUE(conv.ok()) << conv.status().message();
    store.PoisonOutputs();
    ASSERT_TRUE(conv->Run(c.tensors).ok());
    const auto comparison = harness::Compare(expected[0]);
    EXPECT_TRUE(comparison.ok) << conv->implementation() << ": " << comparison.message;
  }
}

// One pixel a thousand times larger than the others is felt by outputs that do not see it, within the bound.
TEST(Conv2dWinograd, AnOutlierStaysWithinTheBoundOfItsNeighbourhood) {
  for (const char* kernel : {"kh=3 kw=3 pad_top=1 pad_left=1", "kh=5 kw=5 pad_top=2 pad_left=2"}) {
    const Conv2dDesc d = Parse(std::string("ih=13 iw=13 ic=16 oc=16 ") + kernel);
    TensorStore store(Fill::kNormal, Guard::kEnd, 3);
    Case<Conv2d> c(d, store);
    const float* x = static_cast<const float*>(c.tensors.x);
    std::vector<float> poked(x, x + d.ih * d.iw * d.ic);
    for (int64_t i = 0; i < d.ic; ++i) poked[static_cast<size_t>((6 * d.iw + 6) * d.ic + i)] *= 1000;
    c.tensors.x = poked.data();
    const auto expected = c.Reference(Accuracy::kDefault);
    for (const char* name : kNames) {
      const auto conv = Conv2d::Prepare(d, c.weights, {.implementation = name});
      ASSERT_TRUE(conv.ok()) << conv.status().message();
      store.PoisonOutputs();
      ASSERT_TRUE(conv->Run(c.tensors).ok());
      const auto comparison = harness::Compare(expected[0]);
      EXPECT_TRUE(comparison.ok) << name << ": " << comparison.message;
    }
  }
}

TEST(Conv2dWinograd, IsChosenByDefaultAndRefusedToStrict) {
  const Conv2dDesc d = Parse("ih=28 iw=28 ic=128 oc=128 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1");
  const std::vector<float> w(128 * 9 * 128), bias(128);
  const auto by_default = Conv2d::Prepare(d, {w.data(), bias.data()});
  ASSERT_TRUE(by_default.ok()) << by_default.status().message();
  EXPECT_NE(by_default->implementation().find("/winograd_"), std::string::npos) << by_default->Explain();
  const auto strict = Conv2d::Prepare(d, {w.data(), bias.data()}, {.accuracy = Accuracy::kStrict});
  ASSERT_TRUE(strict.ok()) << strict.status().message();
  EXPECT_NE(strict->implementation().find("/implicit_gemm"), std::string::npos) << strict->Explain();
  for (const char* name : kNames) {
    const auto refused =
        Conv2d::Prepare(d, {w.data(), bias.data()}, {.accuracy = Accuracy::kStrict, .implementation = name});
    EXPECT_NE(refused.status().message().find("does not keep the direct algorithm's bound"), std::string::npos)
        << refused.status().message();
  }
}

TEST(Conv2dWinograd, EightPointsWantSixteenChannels) {
  const auto reports = Conv2d::Candidates(Parse("ih=9 iw=9 ic=15 oc=16 kh=5 kw=5"));
  ASSERT_TRUE(reports.ok()) << reports.status().message();
  for (const CandidateReport& r : *reports) {
    const std::string name = r.name.substr(r.name.rfind('/') + 1);
    if (name.find("winograd") == std::string::npos) continue;
    EXPECT_EQ(r.reason, name == "winograd_4x4" ? "takes at least 16 input channels, got ic=15" : "") << name;
  }
}

TEST(Conv2dWinograd, RefusesWithTheReason) {
  const std::pair<const char*, const char*> refusals[] = {
      {"ih=9 iw=9 ic=16 oc=16 kh=3 kw=5", "takes kernels of 3x3 and 5x5, got kh=3 kw=5"},
      {"ih=9 iw=9 ic=16 oc=16 kh=7 kw=7", "takes kernels of 3x3 and 5x5, got kh=7 kw=7"},
      {"ih=9 iw=9 ic=16 oc=16 kh=3 kw=3 stride_w=2", "takes strides and dilations of 1 only"},
      {"ih=9 iw=9 ic=16 oc=16 kh=3 kw=3 dilation_h=2", "takes strides and dilations of 1 only"},
      {"ih=9 iw=9 ic=32 oc=32 kh=3 kw=3 groups=2", "takes one group only, got groups=2"},
      {"ih=9 iw=9 ic=3 oc=16 kh=3 kw=3", "takes at least 4 input channels, got ic=3"}};
  for (const auto& [fields, reason] : refusals) {
    const auto reports = Conv2d::Candidates(Parse(fields));
    ASSERT_TRUE(reports.ok()) << reports.status().message();
    int seen = 0;
    for (const CandidateReport& r : *reports) {
      if (r.name.find("winograd") == std::string::npos) continue;
      ++seen;
      EXPECT_EQ(r.accuracy, Accuracy::kDefault);
      EXPECT_FALSE(r.accepted) << fields;
      EXPECT_EQ(r.reason, reason) << fields;
    }
    EXPECT_EQ(seen, 2);
  }
}

}  // namespace
}  // namespace lamina
