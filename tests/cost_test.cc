// Costs: the papers' totals of whole networks, and counting by brute force.
#include "lamina/cost.h"

#include <gtest/gtest.h>

#include "harness/form.h"
#include "harness/network.h"
#include "lamina/problem.h"

namespace lamina {
namespace {

using harness::Form;

Cost CostOfNetwork(const char* name, double width = 1, int64_t resolution = 0, Form form = Form::kAsWritten) {
  const auto network = harness::LoadNetwork(name);
  EXPECT_TRUE(network.ok()) << network.status().message();
  const auto scaled = harness::Scale(*network, width, resolution);
  EXPECT_TRUE(scaled.ok()) << scaled.status().message();
  return harness::TotalCost(InForm(*scaled, form));
}

// In millions. Each published number's source stands in the network's file. Multiply-accumulates within 0.5 %,
// parameters within 1.5 %; in both cases half a unit of the last published digit is allowed too.
void ExpectMacs(const Cost& cost, double published, double digit = 1) {
  EXPECT_NEAR(static_cast<double>(cost.macs) * 1e-6, published, std::max(0.005 * published, digit / 2));
}
void ExpectParams(const Cost& cost, double published, double digit = 0.1) {
  EXPECT_NEAR(static_cast<double>(cost.params) * 1e-6, published, std::max(0.015 * published, digit / 2));
}

TEST(PublishedTotals, MobileNetV1Widths) {
  const struct {
    double width, macs, params;
  } kTable6[] = {{1, 569, 4.2}, {0.75, 325, 2.6}, {0.5, 149, 1.3}, {0.25, 41, 0.5}};
  for (const auto& row : kTable6) {
    SCOPED_TRACE(row.width);
    ExpectMacs(CostOfNetwork("mobilenet_v1", row.width), row.macs);
    ExpectParams(CostOfNetwork("mobilenet_v1", row.width), row.params);
  }
}

TEST(PublishedTotals, MobileNetV1Resolutions) {
  const struct {
    int64_t resolution;
    double macs;
  } kTable7[] = {{224, 569}, {192, 418}, {160, 290}, {128, 186}};
  for (const auto& row : kTable7) {
    SCOPED_TRACE(row.resolution);
    ExpectMacs(CostOfNetwork("mobilenet_v1", 1, row.resolution), row.macs);
  }
}

TEST(PublishedTotals, MobileNetV1WithStandardConvolutions) {
  const Cost standard = CostOfNetwork("mobilenet_v1", 1, 0, Form::kStandard), separable = CostOfNetwork("mobilenet_v1");
  ExpectMacs(standard, 4866);
  ExpectParams(standard, 29.3);
  // The survey's "7 to 10 times".
  EXPECT_NEAR(double(standard.macs) / double(separable.macs), 8.6, 0.05);
  EXPECT_NEAR(double(standard.params) / double(separable.params), 6.9, 0.05);
}

TEST(PublishedTotals, MobileNetV2) {
  const struct {
    double width;
    int64_t resolution;
    double macs, params;
  } kTable[] = {{1.4, 224, 582, 6.06}, {1, 224, 300, 3.47}, {0.75, 224, 209, 2.61},
                {1, 192, 221, 3.47},   {1, 160, 154, 3.47}, {1, 128, 99, 3.47}};
  for (const auto& row : kTable) {
    SCOPED_TRACE(row.width);
    const Cost cost = CostOfNetwork("mobilenet_v2", row.width, row.resolution);
    ExpectMacs(cost, row.macs);
    ExpectParams(cost, row.params, 0.01);
  }
}

TEST(PublishedTotals, Xception) {
  ExpectMacs(CostOfNetwork("xception"), 8400, 100);
  ExpectParams(CostOfNetwork("xception"), 22.855952, 0);
}

TEST(PublishedTotals, ResNet50) {
  ExpectMacs(CostOfNetwork("resnet_50"), 4090, 10);
  ExpectParams(CostOfNetwork("resnet_50"), 25.557032, 0);
}

TEST(PublishedTotals, Transformers) {
  EXPECT_EQ(CostOfNetwork("bert_base").params, 109482240);
  EXPECT_EQ(CostOfNetwork("gpt2_small").params, 124439808);
}

TEST(PublishedTotals, Bahdanau) {
  const auto network = harness::LoadNetwork("bahdanau");
  ASSERT_TRUE(network.ok());
  for (const harness::Layer& layer : network->layers) EXPECT_EQ(CostOf(layer.problem).params, 3001000);
}

// Menghani, "Efficient Deep Learning: A Survey", 2021: a neuron that sees a whole 100 x 100 RGB image, and a filter.
TEST(PublishedTotals, SurveysExamples) {
  EXPECT_EQ(CostOf(FullyConnectedDesc{.ic = 100 * 100 * 3, .oc = 1, .bias = false}).params, 30000);
  const Conv2dDesc filter{.ih = 100, .iw = 100, .ic = 3, .oc = 1, .kh = 5, .kw = 5, .bias = false};
  EXPECT_EQ(CostOf(filter).params, 75);
}

TEST(Suite, IsRead) {
  const auto suite = harness::LoadSuite();
  ASSERT_TRUE(suite.ok()) << suite.status().message();
  EXPECT_EQ(suite->layers.size(), 38u);
  for (const harness::Layer& layer : suite->layers) EXPECT_GT(CostOf(layer.problem).macs, 0) << layer.name;
}

Cost CostOfText(const char* text) {
  const auto problem = ParseProblem(text);
  EXPECT_TRUE(problem.ok()) << problem.status().message();
  EXPECT_TRUE(ValidateProblem(*problem).ok()) << ValidateProblem(*problem).message();
  return CostOf(*problem);
}

TEST(Counting, Conv2d) {
  const Conv2dDesc d{
      .n = 2, .ih = 7, .iw = 5, .ic = 6, .oc = 4, .kh = 3, .kw = 2, .stride_h = 2, .pad_top = 1, .groups = 2};
  int64_t macs = 0;
  for (int64_t n = 0; n < d.n; ++n) {
    for (int64_t y = 0; y < d.oh(); ++y) {
      for (int64_t x = 0; x < d.ow(); ++x) {
        for (int64_t o = 0; o < d.oc; ++o) macs += d.kh * d.kw * (d.ic / d.groups);  // taps on padding count
      }
    }
  }
  const Cost cost = CostOf(d);
  EXPECT_EQ(cost.macs, macs);
  EXPECT_EQ(cost.params, 4 * 3 * 2 * 3 + 4);
  EXPECT_EQ(cost.weight_bytes, 4 * cost.params);
  EXPECT_EQ(cost.activation_bytes, 4 * (2 * 7 * 5 * 6 + 2 * d.oh() * d.ow() * 4));
  EXPECT_EQ(cost.flops(), 2 * macs);
  EXPECT_EQ(cost.transcendentals, 0);
}

TEST(Counting, ActivationsAndResidualsCount) {
  const Cost plain = CostOfText("conv2d ih=4 iw=4 ic=2 oc=3");
  const Cost tanh = CostOfText("conv2d ih=4 iw=4 ic=2 oc=3 activation=tanh residual=after");
  EXPECT_EQ(tanh.transcendentals, 4 * 4 * 3);
  EXPECT_EQ(tanh.activation_bytes - plain.activation_bytes, 4 * 4 * 4 * 3);
  EXPECT_EQ(tanh.macs, plain.macs);
}

// Pairs of queries and keys that causal masks and windows keep, counted one by one.
int64_t KeptPairs(int64_t q, int64_t kv, bool causal, int64_t offset, int64_t left) {
  int64_t pairs = 0;
  for (int64_t i = 0; i < q; ++i) {
    for (int64_t j = 0; j < kv; ++j) {
      pairs += (!causal || j <= i + offset) && (left < 0 || j >= i + offset - left);
    }
  }
  return pairs;
}

TEST(Counting, AttentionCountsThePairsKept) {
  const auto macs = [](const std::string& fields) {
    return CostOfText(
               ("multi_head_attention batch=2 num_heads=3 seqlen_q=5 seqlen_kv=8 head_dim=4 value_dim=6" + fields)
                   .c_str())
        .macs;
  };
  const int64_t per_pair = 2 * 3 * (4 + 6);
  EXPECT_EQ(macs(""), per_pair * KeptPairs(5, 8, false, 0, -1));
  EXPECT_EQ(macs(" causal=top_left"), per_pair * KeptPairs(5, 8, true, 0, -1));
  EXPECT_EQ(macs(" causal=bottom_right"), per_pair * KeptPairs(5, 8, true, 3, -1));
  EXPECT_EQ(macs(" causal=bottom_right window_left=2"), per_pair * KeptPairs(5, 8, true, 3, 2));
  EXPECT_EQ(macs(" window_left=1"), per_pair * KeptPairs(5, 8, false, 0, 1));
}

TEST(Counting, ProjectionsAreFourLinearLayers) {
  const Cost core = CostOfText("multi_head_attention num_heads=2 seqlen_q=5 seqlen_kv=5 head_dim=4");
  const Cost layer =
      CostOfText("multi_head_attention num_heads=2 seqlen_q=5 seqlen_kv=5 head_dim=4 projections=1 model_dim=10");
  EXPECT_EQ(layer.params, 4 * 8 * 10 + 3 * 8 + 10);
  EXPECT_EQ(layer.macs - core.macs, 5 * 4 * 8 * 10);
}

TEST(Counting, FullyConnectedIsAPointwiseConvolution) {
  const Cost fc = CostOfText("fully_connected m=12 ic=5 oc=7 activation=gelu_erf");
  EXPECT_EQ(fc, CostOfText("conv2d ih=3 iw=4 ic=5 oc=7 activation=gelu_erf"));
  EXPECT_EQ(fc.macs, 12 * 5 * 7);
}

TEST(Counting, InvertedResidualIsItsThreeSteps) {
  const Cost all = CostOfText(
      "separable_conv2d ih=8 iw=8 ic=4 hidden=24 oc=6 kh=3 kw=3 stride_h=2 stride_w=2 pad_top=1 pad_left=1 "
      "pad_bottom=1 "
      "pad_right=1 order=pw_dw_pw");
  const Cost expand = CostOfText("conv2d ih=8 iw=8 ic=4 oc=24"), project = CostOfText("conv2d ih=4 iw=4 ic=24 oc=6");
  const Cost depthwise = CostOfText(
      "conv2d ih=8 iw=8 ic=24 oc=24 kh=3 kw=3 stride_h=2 stride_w=2 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 "
      "groups=24");
  EXPECT_EQ(all.macs, expand.macs + depthwise.macs + project.macs);
  EXPECT_EQ(all.params, expand.params + depthwise.params + project.params);
}

TEST(Counting, AdditiveAttentionCountsAPairsTanhs) {
  const Cost cost = CostOfText("additive_attention batch=2 queries=3 keys=5 query_dim=4 key_dim=6 units=7 bias=1");
  EXPECT_EQ(cost.params, 7 * 4 + 7 * 6 + 7 + 7);
  EXPECT_EQ(cost.macs, 2 * (3 * 4 * 7 + 5 * 6 * 7 + 3 * 5 * 7 + 3 * 5 * 6));
  EXPECT_GE(cost.transcendentals, 2 * 3 * 5 * 7);
}

TEST(Counting, BatchesAdd) {
  for (const char* text :
       {"conv2d n=%d ih=9 iw=7 ic=4 oc=3 kh=3 kw=3", "separable_conv2d n=%d ih=9 iw=7 ic=4 oc=3",
        "fully_connected m=%d ic=4 oc=3", "multi_head_attention batch=%d seqlen_q=3 seqlen_kv=4 head_dim=5",
        "additive_attention batch=%d keys=4 query_dim=5 key_dim=6 units=7"}) {
    const auto with = [&](int batch) {
      char filled[256];
      std::snprintf(filled, sizeof(filled), text, batch);
      return CostOfText(filled);
    };
    EXPECT_EQ(with(0).macs, 0) << text;
    EXPECT_EQ(3 * with(1).macs, with(3).macs) << text;
    EXPECT_EQ(3 * with(1).activation_bytes, with(3).activation_bytes) << text;
    EXPECT_EQ(with(1).params, with(3).params) << text;
  }
}

}  // namespace
}  // namespace lamina
