// fully_connected against the reference: every candidate on every SIMD target, around the edges of tiles and panels.
#include "lamina/fully_connected.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "harness/fully_connected.h"

namespace lamina {
namespace {

using harness::CheckParity;
using harness::Fill;
using harness::Guard;
using harness::TensorStore;

void Check(const std::string& text, const harness::ParityOptions& options = {}) {
  const auto desc = ParseFullyConnected("fully_connected " + text);
  ASSERT_TRUE(desc.ok()) << desc.status().message();
  const harness::ParityReport report = CheckParity<FullyConnected>(*desc, options);
  for (const std::string& failure : report.failures) ADD_FAILURE() << failure;
  EXPECT_GE(report.passed, static_cast<int>(SupportedIsas().size())) << text;
}

TEST(FullyConnectedReference, BackendRunsTheLoops) {
  for (const char* layout : {"oi", "io"}) {
    const auto d = ParseFullyConnected(std::string("fully_connected m=3 ic=5 oc=4 weight_layout=") + layout);
    const auto report = CheckParity<FullyConnected>(*d, {.backend = Backend::kReference});
    EXPECT_EQ(report.passed, 1);
    for (const auto& f : report.failures) ADD_FAILURE() << f;
  }
}

// Row tiles are 6 or 7 high, panels 2 to 64 columns wide.
TEST(FullyConnectedParity, RowsAroundTiles) {
  for (int m = 1; m <= 16; ++m) Check("m=" + std::to_string(m) + " ic=19 oc=70");
  for (int m : {20, 27, 28, 29, 41, 43, 64}) Check("m=" + std::to_string(m) + " ic=8 oc=33");
}

TEST(FullyConnectedParity, ColumnsAroundPanels) {
  for (int oc : {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 96, 127, 128, 129, 200}) {
    for (const char* m : {"1", "2", "8"}) Check("m=" + std::string(m) + " ic=11 oc=" + std::to_string(oc));
  }
}

TEST(FullyConnectedParity, DepthsAroundBlocks) {
  for (int ic : {1, 2, 3, 15, 16, 17, 255, 1535, 1536, 1537, 3073, 5000}) {
    for (const char* m : {"1", "5"}) Check("m=" + std::string(m) + " ic=" + std::to_string(ic) + " oc=37");
  }
}

TEST(FullyConnectedParity, RealLayers) {
  Check("ic=1024 oc=1000");     // MobileNetV1's classifier
  Check("m=12 ic=768 oc=512");  // part of BERT's first feed-forward layer
  Check("m=3 ic=3072 oc=768");  // and of its second
  Check("m=196 ic=256 oc=64 activation=relu6");
}

TEST(FullyConnectedParity, ActivationsAndResiduals) {
  for (const char* activation :
       {"none", "relu", "relu6", "clamp(-1,2)", "leaky(0.1)", "hardswish", "hardsigmoid(0.2,0.5)", "sigmoid", "silu",
        "gelu_erf", "gelu_tanh", "tanh", "elu(1.5)"}) {
    for (const char* residual : {"none", "before", "after"}) {
      for (const char* sizes : {" m=9 ic=6 oc=67", " m=1 ic=20 oc=40 bias=0"}) {
        Check("activation=" + std::string(activation) + " residual=" + residual + sizes);
      }
    }
  }
}

TEST(FullyConnectedParity, StridesAndLayouts) {
  for (const char* m : {"1", "8", "30"}) {
    for (const char* layout : {"oi", "io"}) {
      for (const char* bias : {"0", "1"}) {
        Check("m=" + std::string(m) +
              " ic=21 oc=35 x_stride=24 y_stride=100 residual=before residual_stride=41 weight_layout=" + layout +
              " bias=" + bias);
      }
    }
  }
}

// x, w and what they give on one target.
struct Layer {
  FullyConnectedDesc desc;
  std::vector<float> x, w, bias, y;
  explicit Layer(const FullyConnectedDesc& d)
      : desc(d), x(d.m * d.ic), w(d.oc * d.ic), bias(d.oc), y(d.m * d.oc, -1.0f) {
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
    for (size_t i = 0; i < w.size(); ++i) w[i] = std::cos(static_cast<float>(3 * i));
    for (size_t i = 0; i < bias.size(); ++i) bias[i] = 0.1f * static_cast<float>(i);
  }
  Result<FullyConnected> Prepare(Isa isa) const {
    return FullyConnected::Prepare(desc, {.w = w.data(), .bias = bias.data()}, {.isa = isa});
  }
};

TEST(FullyConnected, RowsOneByOneGiveTheSameBits) {
  for (Isa isa : SupportedIsas()) {
    Layer layer({.m = 23, .ic = 1700, .oc = 70});
    const auto whole = layer.Prepare(isa);
    ASSERT_TRUE(whole.ok()) << whole.status().message();
    ASSERT_TRUE(whole->Run({.x = layer.x.data(), .y = layer.y.data()}).ok());
    FullyConnectedDesc one = layer.desc;
    one.m = 1;
    const auto row = whole->Reshape(one);
    ASSERT_TRUE(row.ok()) << row.status().message();
    EXPECT_EQ(row->implementation(), whole->implementation());
    std::vector<float> y(layer.desc.oc);
    for (int64_t r = 0; r < layer.desc.m; ++r) {
      ASSERT_TRUE(row->Run({.x = layer.x.data() + r * layer.desc.ic, .y = y.data()}).ok());
      EXPECT_EQ(std::memcmp(y.data(), layer.y.data() + r * layer.desc.oc, y.size() * sizeof(float)), 0)
          << ToString(isa) << " row " << r;
    }
  }
}

TEST(FullyConnected, AResidualMayBeTheOutput) {
  for (Isa isa : SupportedIsas()) {
    for (const Residual residual : {Residual::kBeforeActivation, Residual::kAfterActivation}) {
      for (const ActivationKind kind : {ActivationKind::kRelu, ActivationKind::kTanh}) {
        Layer layer({.m = 9, .ic = 1600, .oc = 70, .activation = {kind}, .residual = residual});
        const auto op = layer.Prepare(isa);
        ASSERT_TRUE(op.ok()) << op.status().message();
        std::vector<float> apart(layer.y.size()), in_place(layer.y.size());
        for (size_t i = 0; i < in_place.size(); ++i) in_place[i] = std::sin(0.5f * static_cast<float>(i));
        const std::vector<float> r = in_place;
        ASSERT_TRUE(op->Run({.x = layer.x.data(), .y = apart.data(), .residual = r.data()}).ok());
        ASSERT_TRUE(op->Run({.x = layer.x.data(), .y = in_place.data(), .residual = in_place.data()}).ok());
        EXPECT_EQ(std::memcmp(apart.data(), in_place.data(), apart.size() * sizeof(float)), 0) << ToString(isa);
      }
    }
  }
}

TEST(FullyConnected, NoRowsDoNothing) {
  const float w[6] = {}, bias[2] = {};
  const auto op = FullyConnected::Prepare({.m = 0, .ic = 3, .oc = 2}, {.w = w, .bias = bias});
  ASSERT_TRUE(op.ok()) << op.status().message();
  EXPECT_TRUE(op->Run({}).ok());
  const auto one = op->Reshape({.m = 1, .ic = 3, .oc = 2});
  ASSERT_TRUE(one.ok());
  EXPECT_FALSE(one->Run({}).ok());
}

TEST(FullyConnected, NanAndInfinityReachTheirRowsOnly) {
  for (Isa isa : SupportedIsas()) {
    for (const ActivationKind kind : {ActivationKind::kNone, ActivationKind::kRelu, ActivationKind::kRelu6}) {
      Layer layer({.m = 3, .ic = 4, .oc = 5, .activation = {kind}});
      for (float& v : layer.w) v = 1.0f;
      layer.x[4 + 2] = std::numeric_limits<float>::quiet_NaN();
      layer.x[8 + 1] = std::numeric_limits<float>::infinity();
      const auto op = layer.Prepare(isa);
      ASSERT_TRUE(op.ok());
      ASSERT_TRUE(op->Run({.x = layer.x.data(), .y = layer.y.data()}).ok());
      for (int o = 0; o < 5; ++o) {
        EXPECT_TRUE(std::isfinite(layer.y[o])) << ToString(isa);
        EXPECT_TRUE(std::isnan(layer.y[5 + o])) << ToString(isa);
        if (kind == ActivationKind::kRelu6) {
          EXPECT_EQ(layer.y[10 + o], 6.0f) << ToString(isa);
        } else {
          EXPECT_TRUE(std::isinf(layer.y[10 + o])) << ToString(isa);
        }
      }
    }
  }
}

TEST(FullyConnected, Cost) {
  const Cost c = CostOf(FullyConnectedDesc{.m = 3, .ic = 10, .oc = 4, .activation = {ActivationKind::kTanh}});
  EXPECT_EQ(c.macs, 120);
  EXPECT_EQ(c.params, 44);
  EXPECT_EQ(c.weight_bytes, 176);
  EXPECT_EQ(c.activation_bytes, 4 * (30 + 12));
  EXPECT_EQ(c.transcendentals, 12);
  // Menghani's survey: one neuron on a 100x100 RGB image has 3 * 10^4 weights.
  EXPECT_EQ(CostOf(FullyConnectedDesc{.ic = 100 * 100 * 3, .oc = 1, .bias = false}).params, 30000);
}

std::string Refusal(const FullyConnectedDesc& d) {
  const Status s = d.Validate();
  return s.ok() ? "accepted" : s.message();
}

TEST(FullyConnectedRefuses, WhatMakesNoSense) {
  EXPECT_EQ(Refusal({.m = -1, .ic = 1, .oc = 1}), "fully_connected m=-1 ic=1 oc=1: m must not be negative, got m=-1");
  EXPECT_EQ(Refusal({.ic = 0, .oc = 1}), "fully_connected oc=1: ic and oc must be at least 1, got ic=0 oc=1");
  EXPECT_NE(Refusal({.ic = 8, .oc = 4, .x_stride = 7})
                .find("a row stride must be 0 or at least the row's elements, got "
                      "x_stride=7 y_stride=0 residual_stride=0"),
            std::string::npos);
  EXPECT_NE(Refusal({.ic = 8, .oc = 4, .y_stride = 3}).find("got x_stride=0 y_stride=3"), std::string::npos);
  EXPECT_NE(Refusal({.ic = 8, .oc = 4, .residual_stride = -4}).find("residual_stride=-4"), std::string::npos);
  EXPECT_NE(Refusal({.ic = int64_t{1} << 40, .oc = int64_t{1} << 40}).find("the weights' size overflows"),
            std::string::npos);
  EXPECT_NE(Refusal({.m = int64_t{1} << 62, .ic = 4, .oc = 4}).find("the size of x or y overflows"), std::string::npos);
  EXPECT_NE(Refusal({.m = int64_t{1} << 40, .ic = 1 << 12, .oc = 1 << 12}).find("the count of multiply-accumulates"),
            std::string::npos);
  EXPECT_NE(
      Refusal({.ic = 1, .oc = 1, .activation = {static_cast<ActivationKind>(99)}}).find("activation must be a member"),
      std::string::npos);
  EXPECT_NE(Refusal({.ic = 1, .oc = 1, .residual = static_cast<Residual>(7)}).find("every enumerated field"),
            std::string::npos);
}

TEST(FullyConnectedRefuses, WhatItCannotRun) {
  const float w[4] = {}, bias[2] = {}, x[2] = {};
  float y[2];
  const FullyConnectedDesc d{.ic = 2, .oc = 2, .residual = Residual::kAfterActivation};
  const auto message = [](const auto& result) { return result.ok() ? "accepted" : result.status().message(); };
  EXPECT_NE(message(FullyConnected::Prepare(d, {.bias = bias})).find("weights.w must not be null"), std::string::npos);
  EXPECT_NE(message(FullyConnected::Prepare(d, {.w = w})).find("weights.bias must not be null when bias=1"),
            std::string::npos);
  const auto op = FullyConnected::Prepare(d, {.w = w, .bias = bias});
  ASSERT_TRUE(op.ok());
  EXPECT_NE(op->Run({.y = y, .residual = x}).message().find("x must not be null"), std::string::npos);
  EXPECT_NE(op->Run({.x = x, .residual = x}).message().find("y must not be null"), std::string::npos);
  EXPECT_NE(op->Run({.x = x, .y = y}).message().find("residual must not be null"), std::string::npos);
  EXPECT_TRUE(op->Run({.x = x, .y = y, .residual = x}).ok());

  FullyConnectedDesc other = d;
  other.oc = 3;
  EXPECT_NE(message(op->Reshape(other)).find("not oc of the prepared"), std::string::npos);
  other = d;
  other.dtype = DType::kBf16;
  EXPECT_NE(message(FullyConnected::Prepare(other, {.w = w, .bias = bias})).find("computes in f32"), std::string::npos);
}

}  // namespace
}  // namespace lamina
