// Properties that conv2d has without any reference: what equals what, and where NaN and infinities go.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "harness/conv2d.h"
#include "lamina/conv2d.h"
#include "lamina/fully_connected.h"
#include "lamina/weights.h"

namespace lamina {
namespace {

using harness::Case;
using harness::Fill;
using harness::Guard;
using harness::TensorStore;

constexpr float kInf = std::numeric_limits<float>::infinity();

Conv2dDesc Parse(const std::string& fields) {
  const auto desc = ParseConv2d("conv2d " + fields);
  EXPECT_TRUE(desc.ok()) << desc.status().message();
  return desc.ok() ? *desc : Conv2dDesc{};
}

std::vector<float> Integers(int64_t count, uint64_t seed) {
  TensorStore store(Fill::kExact, Guard::kEnd, seed);
  const float* values = store.Input(count);
  return {values, values + count};
}

// The context of every candidate that takes `d` and keeps the direct algorithm's bound, on every target.
void ForEachCandidate(const Conv2dDesc& d, const std::function<void(const Context&)>& f) {
  for (Isa isa : SupportedIsas()) {
    const auto candidates = Conv2d::Candidates(d, {.isa = isa, .accuracy = Accuracy::kStrict});
    ASSERT_TRUE(candidates.ok()) << candidates.status().message();
    for (const CandidateReport& c : *candidates) {
      if (!c.accepted) continue;
      SCOPED_TRACE(ToString(d) + " on " + c.name);
      f(Context{.isa = isa, .accuracy = Accuracy::kStrict, .pool = &harness::PoolOf(2), .implementation = c.name});
    }
  }
}

std::vector<float> Outputs(const Conv2dDesc& d, const float* w, const float* bias, const float* x,
                           const Context& context) {
  std::vector<float> y(static_cast<size_t>(d.n * d.oh() * d.ow() * d.oc), NAN);
  const auto conv = Conv2d::Prepare(d, {w, bias}, context);
  EXPECT_TRUE(conv.ok()) << conv.status().message();
  if (!conv.ok()) return y;
  EXPECT_TRUE(conv->Run({x, y.data()}).ok());
  return y;
}

TEST(Conv2dProperty, GroupsAreConvolutionsOfTheirOwn) {
  const Conv2dDesc whole = Parse("ih=7 iw=9 ic=6 oc=15 kh=3 kw=3 groups=3 pad_top=1 pad_left=1");
  const auto x = Integers(7 * 9 * 6, 1), w = Integers(15 * 9 * 2, 2), bias = Integers(15, 3);
  ForEachCandidate(whole, [&](const Context& context) {
    const auto y = Outputs(whole, w.data(), bias.data(), x.data(), context);
    for (int64_t g = 0; g < 3; ++g) {
      Conv2dDesc one = whole;
      one.ic = 2, one.oc = 5, one.groups = 1, one.x_stride = 6;
      const auto part =
          Outputs(one, w.data() + g * 5 * 9 * 2, bias.data() + g * 5, x.data() + g * 2, {.isa = context.isa});
      for (int64_t p = 0; p < whole.oh() * whole.ow(); ++p) {
        for (int64_t o = 0; o < 5; ++o) ASSERT_EQ(y[p * 15 + g * 5 + o], part[p * 5 + o]);
      }
    }
  });
}

TEST(Conv2dProperty, ABatchIsItsImages) {
  for (const char* fields :
       {"n=3 ih=6 iw=8 ic=5 oc=20 kh=3 kw=3 pad_left=1", "n=3 ih=6 iw=8 ic=5 oc=20",
        "n=3 ih=6 iw=8 ic=5 oc=20 kh=3 kw=3 pad_left=1 layout=nchw", "n=3 ih=6 iw=8 ic=5 oc=20 layout=nchw"}) {
    const Conv2dDesc whole = Parse(fields);
    TensorStore store(Fill::kNormal, Guard::kEnd, 5);
    const Case<Conv2d> c(whole, store);
    ForEachCandidate(whole, [&](const Context& context) {
      const auto all = Outputs(whole, static_cast<const float*>(c.weights.w), static_cast<const float*>(c.weights.bias),
                               static_cast<const float*>(c.tensors.x), context);
      Conv2dDesc one = whole;
      one.n = 1;
      const int64_t in = one.ih * one.iw * one.ic, out = one.oh() * one.ow() * one.oc;
      for (int64_t n = 0; n < 3; ++n) {
        const auto y = Outputs(one, static_cast<const float*>(c.weights.w), static_cast<const float*>(c.weights.bias),
                               static_cast<const float*>(c.tensors.x) + n * in, context);
        for (int64_t i = 0; i < out; ++i) ASSERT_EQ(y[i], all[n * out + i]);  // the very bits
      }
    });
  }
}

TEST(Conv2dProperty, LayoutsAreConversionsOfEachOther) {
  for (const char* fields :
       {"n=2 ih=9 iw=7 ic=6 oc=10 kh=3 kw=2 groups=2 pad_top=1 stride_w=2", "n=2 ih=5 iw=7 ic=6 oc=10"}) {
    const Conv2dDesc nhwc = Parse(fields);
    Conv2dDesc nchw = nhwc;
    nchw.layout = Layout::kNchw;
    nchw.weight_layout = WeightLayout::kOihw;
    const int64_t ic_group = nhwc.ic / nhwc.groups;
    const auto x = Integers(2 * nhwc.ih * nhwc.iw * 6, 1), w = Integers(10 * nhwc.kh * nhwc.kw * ic_group, 2),
               bias = Integers(10, 3);
    std::vector<float> planes(x.size()), oihw(w.size());
    ASSERT_TRUE(ConvertImage(2, 6, nhwc.ih, nhwc.iw, DType::kF32, Layout::kNhwc, x.data(), planes.data()).ok());
    ASSERT_TRUE(
        ConvertWeights(10, ic_group, nhwc.kh, nhwc.kw, DType::kF32, WeightLayout::kOhwi, w.data(), oihw.data()).ok());
    ForEachCandidate(nchw, [&](const Context& context) {
      const auto want = Outputs(nhwc, w.data(), bias.data(), x.data(), {.isa = context.isa});
      const auto y = Outputs(nchw, oihw.data(), bias.data(), planes.data(), context);
      std::vector<float> back(y.size());
      ASSERT_TRUE(ConvertImage(2, 10, nhwc.oh(), nhwc.ow(), DType::kF32, Layout::kNchw, y.data(), back.data()).ok());
      EXPECT_EQ(back, want);
    });
  }
}

// The operator of matrices, on the same target, is asked for what a 1x1 kernel gives.
TEST(Conv2dProperty, AOneByOneKernelIsAFullyConnectedLayer) {
  const Conv2dDesc d = Parse("ih=3 iw=5 ic=7 oc=19 activation=relu");
  const auto matrix = ParseFullyConnected("fully_connected m=15 ic=7 oc=19 activation=relu");
  ASSERT_TRUE(matrix.ok()) << matrix.status().message();
  const auto x = Integers(15 * 7, 1), w = Integers(19 * 7, 2), bias = Integers(19, 3);
  ForEachCandidate(d, [&](const Context& context) {
    const auto layer = FullyConnected::Prepare(*matrix, {w.data(), bias.data()}, {.isa = context.isa});
    ASSERT_TRUE(layer.ok()) << layer.status().message();
    std::vector<float> want(15 * 19, NAN);
    ASSERT_TRUE(layer->Run({x.data(), want.data()}).ok());
    EXPECT_EQ(Outputs(d, w.data(), bias.data(), x.data(), context), want);
  });
}

TEST(Conv2dProperty, ARepeatedKernelIsALargerDilation) {
  // A 3x3 kernel of dilation 2 is a 5x5 kernel whose odd rows and columns are zero.
  const Conv2dDesc dilated = Parse("ih=9 iw=11 ic=3 oc=4 kh=3 kw=3 dilation_h=2 dilation_w=2 pad_top=2 pad_left=2");
  const Conv2dDesc dense = Parse("ih=9 iw=11 ic=3 oc=4 kh=5 kw=5 pad_top=2 pad_left=2");
  const auto x = Integers(9 * 11 * 3, 1), w = Integers(4 * 9 * 3, 2), bias = Integers(4, 3);
  std::vector<float> spread(4 * 25 * 3);
  for (int64_t o = 0; o < 4; ++o) {
    for (int64_t i = 0; i < 3; ++i) {
      for (int64_t j = 0; j < 3; ++j) {
        for (int64_t c = 0; c < 3; ++c)
          spread[((o * 5 + 2 * i) * 5 + 2 * j) * 3 + c] = w[((o * 3 + i) * 3 + j) * 3 + c];
      }
    }
  }
  ForEachCandidate(dilated, [&](const Context& context) {
    EXPECT_EQ(Outputs(dilated, w.data(), bias.data(), x.data(), context),
              Outputs(dense, spread.data(), bias.data(), x.data(), {.isa = context.isa}));
  });
}

TEST(Conv2dProperty, TheResidualMayBeTheOutputItself) {
  for (const char* fields : {"n=2 ih=6 iw=9 ic=5 oc=21 kh=3 kw=3 pad_left=1 residual=before activation=relu",
                             "n=2 ih=6 iw=9 ic=5 oc=21 residual=after activation=sigmoid",
                             "n=2 ih=6 iw=9 ic=5 oc=21 kh=3 kw=3 pad_left=1 residual=after layout=nchw",
                             "n=2 ih=6 iw=9 ic=5 oc=21 residual=before activation=hardswish layout=nchw"}) {
    const Conv2dDesc d = Parse(fields);
    TensorStore store(Fill::kNormal, Guard::kEnd, 5);
    const Case<Conv2d> c(d, store);
    const size_t count = static_cast<size_t>(d.n * d.oh() * d.ow() * d.oc);
    ForEachCandidate(d, [&](const Context& context) {
      const auto conv = Conv2d::Prepare(d, c.weights, context);
      ASSERT_TRUE(conv.ok()) << conv.status().message();
      const float* residual = static_cast<const float*>(c.tensors.residual);
      std::vector<float> apart(count, NAN), in_place(residual, residual + count);
      ASSERT_TRUE(conv->Run({c.tensors.x, apart.data(), residual}).ok());
      ASSERT_TRUE(conv->Run({c.tensors.x, in_place.data(), in_place.data()}).ok());
      EXPECT_EQ(in_place, apart);
    });
  }
}

// Values that spread: what the reference says of them holds for every candidate but those named like one of `except`,
// element by element.
void CheckSpecialValues(const std::string& fields,
                        const std::function<void(std::vector<float>& x, std::vector<float>& w)>& poke,
                        const std::vector<std::string>& except = {}) {
  const Conv2dDesc d = Parse(fields);
  TensorStore store(Fill::kNormal, Guard::kEnd, 9);
  Case<Conv2d> c(d, store);
  const auto copy = [](const void* from, int64_t count) {
    return std::vector<float>(static_cast<const float*>(from), static_cast<const float*>(from) + count);
  };
  auto x = copy(c.tensors.x, d.n * d.ih * d.iw * d.ic), w = copy(c.weights.w, d.oc * d.kh * d.kw * (d.ic / d.groups));
  poke(x, w);
  c.tensors.x = x.data();
  c.weights.w = w.data();
  const auto expected = c.Reference();
  ForEachCandidate(d, [&](const Context& context) {
    for (const std::string& name : except) {
      if (context.implementation.find(name) != std::string::npos) return;
    }
    const auto conv = Conv2d::Prepare(d, c.weights, context);
    ASSERT_TRUE(conv.ok()) << conv.status().message();
    store.PoisonOutputs();
    ASSERT_TRUE(conv->Run(c.tensors).ok());
    const auto comparison = harness::Compare(expected[0]);
    EXPECT_TRUE(comparison.ok) << comparison.message;
  });
}

TEST(Conv2dSpecialValues, InfiniteWeightsMakeNoNanOnPadding) {
  // Every weight infinite, every input positive: no output is NaN, since GEMMs skip padded taps. The depthwise kernels
  // and the GEMM of planes multiply them: 0 * infinity is NaN there, as IEEE says of the formula.
  for (const char* layout : {"", " layout=nchw"}) {
    for (const char* fields : {"ih=5 iw=8 ic=3 oc=18 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1",
                               "ih=5 iw=8 ic=3 oc=18 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1",
                               "ih=4 iw=4 ic=4 oc=4 groups=4 kh=3 kw=3 pad_top=2 pad_left=2 pad_bottom=2 pad_right=2",
                               "ih=7 iw=7 ic=6 oc=4 groups=2 kh=3 kw=3 dilation_h=3 dilation_w=3 pad_top=3 pad_left=3 "
                               "pad_bottom=3 pad_right=3"}) {
      const auto poke = [](std::vector<float>& x, std::vector<float>& w) {
        for (float& v : x) v = std::fabs(v);
        for (float& v : w) v = kInf;
      };
      CheckSpecialValues(std::string(fields) + layout, poke, {"/depthwise", "/planes_gemm"});
    }
  }
}

TEST(Conv2dSpecialValues, NanAndInfinityReachTheirWindowsAndNoOther) {
  for (const char* layout : {"", " layout=nchw"}) {
    for (const char* activation :
         {"none", "relu", "relu6", "clamp(-1,1)", "leaky(0.5)", "hardswish", "hardsigmoid(0.5,1)"}) {
      for (const char* fields :
           {"ih=9 iw=12 ic=4 oc=20 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1", "ih=9 iw=12 ic=4 oc=20",
            "ih=9 iw=12 ic=4 oc=4 groups=4 kh=3 kw=3 pad_left=1 pad_right=1"}) {
        CheckSpecialValues(
            std::string(fields) + " activation=" + activation + layout,
            [](std::vector<float>& x, std::vector<float>&) { x[3] = NAN, x[150] = kInf, x[400] = -kInf; });
      }
    }
  }
}

TEST(Conv2dSpecialValues, NanInAWeightReachesItsChannelOnly) {
  for (const char* layout : {"", " layout=nchw"}) {
    const auto poke = [](std::vector<float>&, std::vector<float>& w) { w[w.size() / 2] = NAN; };
    for (const char* fields : {"ih=6 iw=6 ic=4 oc=20 kh=3 kw=3", "ih=6 iw=6 ic=4 oc=20"}) {
      CheckSpecialValues(std::string(fields) + layout, poke);
    }
    for (const char* fields :
         {"ih=6 iw=6 ic=4 oc=20 kh=3 kw=3 pad_top=1", "ih=6 iw=6 ic=4 oc=4 groups=2 kh=3 kw=3 pad_left=1"}) {
      CheckSpecialValues(std::string(fields) + layout, poke, {"/planes_gemm"});  // it multiplies padding
    }
  }
}

// Whatever a candidate makes of padding: every other channel keeps its bits.
TEST(Conv2dSpecialValues, NanInAWeightLeavesOtherChannelsAlone) {
  const Conv2dDesc d = Parse("ih=6 iw=6 ic=4 oc=20 kh=3 kw=3 pad_top=1 pad_left=1 layout=nchw");
  const int64_t plane = d.oh() * d.ow(), poked = 7;
  const auto x = Integers(6 * 6 * 4, 1), w = Integers(20 * 9 * 4, 2), bias = Integers(20, 3);
  auto bad = w;
  bad[static_cast<size_t>(poked * 9 * 4 + 17)] = NAN;
  ForEachCandidate(d, [&](const Context& context) {
    const auto want = Outputs(d, w.data(), bias.data(), x.data(), context);
    const auto y = Outputs(d, bad.data(), bias.data(), x.data(), context);
    for (int64_t i = 0; i < static_cast<int64_t>(y.size()); ++i) {
      if (i / plane == poked) continue;
      ASSERT_EQ(y[i], want[i]) << i;
    }
    EXPECT_TRUE(std::isnan(y[static_cast<size_t>(poked * plane + plane / 2)]));
  });
}

}  // namespace
}  // namespace lamina
