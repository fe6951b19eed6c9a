// The Hopper matrix product through the operators that are one, its plan, and what it refuses.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "harness/conv2d.h"
#include "harness/fully_connected.h"
#include "kernels/cuda/core/element.h"
#include "kernels/cuda/core/wgmma_plan.h"
#include "kernels/cuda/emulator/runtime.h"
#include "tests/cuda/emulated.h"

namespace lamina::harness {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBf16, DType::kF16};

std::string Implementation(DType dtype) {
  return dtype == DType::kF32 ? "cuda/implicit_gemm_wgmma_tf32" : "cuda/implicit_gemm_wgmma";
}
const std::string kSplit = "cuda/implicit_gemm_wgmma_tf32x3";

// Few multiprocessors, so that every block takes several tiles.
class Sm90 : public testing::Test {
 protected:
  void SetUp() override { cuda::emulator::TheFaults().multiprocessors = 2; }
  void TearDown() override { cuda::emulator::TheFaults() = {}; }

  template <class Op>
  static void Check(typename Op::Desc d) {
    for (const DType dtype : kDTypes) {
      d.dtype = dtype;
      ExpectEmulatedParity<Op>(d, 1, 1, Implementation(dtype));
    }
    CheckSplit<Op>(d);
  }
  // 3 x TF32 keeps the bound of fused multiply-adds.
  template <class Op>
  static void CheckSplit(typename Op::Desc d) {
    d.dtype = DType::kF32;
    ExpectEmulatedParity<Op>(d, 1, 1, kSplit, Accuracy::kStrict);
  }
  // Products that come before every load that they do not wait for.
  template <class Op>
  static void CheckProductsFirst(typename Op::Desc d) {
    for (const DType dtype : {DType::kF32, DType::kBf16}) {
      d.dtype = dtype;
      cuda::emulator::TheSchedule() = {.late = true, .products_first = true};
      const ParityReport report =
          CheckParity<Op>(d, {.backend = Backend::kCuda, .threads = {1}, .tensors = {{Fill::kNormal, Guard::kEnd}}});
      cuda::emulator::TheSchedule() = {};
      EXPECT_EQ(report.passed, dtype == DType::kF32 ? 5 : 2);
      for (const std::string& failure : report.failures) ADD_FAILURE() << failure;
    }
  }
  // Why the kernel does not take `d`.
  template <class Op>
  static std::string Refusal(const typename Op::Desc& d) {
    const auto reports = Op::Candidates(d, {.backend = Backend::kCuda, .accuracy = Accuracy::kReduced});
    for (const CandidateReport& r : *reports) {
      if (r.name == Implementation(d.dtype)) return r.reason;
    }
    return "not offered";
  }
};
using Sm90Plan = Sm90;
using Sm90FullyConnected = Sm90;
using Sm90Conv2d = Sm90;

constexpr cuda::WgmmaTile TileFor(int64_t rows, int64_t n, int64_t steps, int64_t multiprocessors = 132,
                                  cuda::Math math = cuda::Math::kBf16) {
  return cuda::WgmmaPlanFor(math, rows, n, steps, multiprocessors).tile;
}

TEST_F(Sm90Plan, TilesSuitTheProblem) {
  using Tile = cuda::WgmmaTile;
  EXPECT_EQ(TileFor(8192, 8192, 128), (Tile{128, 256}));
  EXPECT_EQ(TileFor(100352, 64, 9), cuda::kKeepingTile);  // 56 x 56 pixels of 32 images, 3 x 3 x 64 to 64 channels
  EXPECT_EQ(TileFor(100352, 64, 36), (Tile{256, 64}));    // whose weights do not fit
  EXPECT_EQ(TileFor(8192, 64, 16), (Tile{128, 64}));      // few tiles
  EXPECT_EQ(TileFor(132 * 128, 128, 16), (Tile{128, 128}));
  EXPECT_EQ(TileFor(1024, 1024, 16), (Tile{128, 64}));   // 128 tiles in one wave
  EXPECT_EQ(TileFor(100352, 128, 2), cuda::kTurnsTile);  // 1 x 1, 128 channels
  EXPECT_NE(TileFor(100352, 128, 8), cuda::kTurnsTile);  // the epilogue lies behind the loads
  const cuda::Math x3 = cuda::Math::kTf32x3;
  EXPECT_EQ(TileFor(8192, 8192, 256, 132, x3), (Tile{256, 128}));
  EXPECT_EQ(TileFor(132 * 128, 128, 36, 132, x3), (Tile{128, 128}));
  EXPECT_EQ(TileFor(100352, 64, 18, 132, x3), (Tile{256, 64}));
}

TEST_F(Sm90Plan, TilesTakeTheClocksOfTheSlowestPart) {
  const cuda::Math bf16 = cuda::Math::kBf16, x3 = cuda::Math::kTf32x3;
  EXPECT_EQ(cuda::MultiplyClocks(bf16, {128, 256}), 2 * 128 * 256 * 64 / 3300);
  EXPECT_EQ(cuda::MultiplyClocks(cuda::Math::kTf32, {128, 256}), cuda::MultiplyClocks(bf16, {128, 256}));
  EXPECT_EQ(cuda::MultiplyClocks(x3, {256, 128}), 2 * 256 * 128 * 32 / 550);
  EXPECT_EQ(cuda::MultiplyClocks(bf16, {128, 64}), 448);  // shared memory: 24 KiB written, 32 read
  EXPECT_EQ(cuda::LoadClocks(bf16, {256, 64}, 999), 320 * 128 / 32);
  EXPECT_EQ(cuda::LoadClocks(bf16, {256, 64}, 20), 84 * 128 / 32);
  EXPECT_EQ(cuda::LoadClocks(x3, {256, 128}, 999), 512 * 128 / 32);
  EXPECT_EQ(cuda::TileClocks(bf16, {256, 64}, 999, 100), 100 * cuda::LoadClocks(bf16, {256, 64}, 999));
  EXPECT_EQ(cuda::TileClocks(x3, {256, 128}, 999, 100),
            100 * cuda::MultiplyClocks(x3, {256, 128}) + 256 * 128 / 16 + 600);
}

TEST_F(Sm90Plan, SharesOutKWhereTilesAreFew) {
  const auto plan = [](int64_t rows, int64_t n, int64_t steps, cuda::Math math = cuda::Math::kBf16) {
    const cuda::WgmmaPlan p = cuda::WgmmaPlanFor(math, rows, n, steps, 132);
    EXPECT_TRUE(p.splits == 1 || (p.splits <= 16 && p.splits * 4 <= steps)) << rows << " " << n << " " << steps;
    return p;
  };
  EXPECT_EQ(plan(8192, 8192, 128).splits, 1);
  EXPECT_EQ(plan(1024, 1024, 16).splits, 1);
  EXPECT_EQ(plan(32, 3072, 12).splits, 1);  // a second launch costs more
  EXPECT_EQ(plan(49, 1024, 16).splits, 4);  // 7 x 7 pixels, 1024 to 1024 channels
  EXPECT_EQ(plan(64, 4096, 64).splits, 4);  // a fully connected layer
  EXPECT_GT(plan(196, 512, 72).splits, 4);  // 14 x 14 pixels, 3 x 3 x 512
  EXPECT_GT(plan(49, 512, 144, cuda::Math::kTf32x3).splits, 8);
  for (const int64_t rows : {0, 1, 100, 5000}) {
    for (const int64_t n : {1, 100, 1000}) {
      for (const int64_t steps : {1, 3, 8, 100}) EXPECT_GE(plan(rows, n, steps).splits, 1);
    }
  }
}

TEST_F(Sm90Plan, RestsMakeUpForWhatTf32LeavesOff) {
  for (const float x : {1.0f, -3.0f, 0.0f, 1e-30f, 1.9999999f, -1.23456789f, 3.4e38f, 0.1f, INFINITY}) {
    const float read = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0xffffe000), rest = cuda::Tf32Rest(x);
    EXPECT_EQ(std::bit_cast<uint32_t>(rest) & 0x1fff, 0u);
    if (std::isinf(x)) continue;
    EXPECT_LE(std::fabs(double{x} - read - rest), 0x1p-22 * std::fabs(x)) << x;
  }
  EXPECT_EQ(cuda::Tf32Rest(INFINITY), 0);
  EXPECT_TRUE(std::isnan(cuda::Tf32Rest(NAN)));
}

TEST_F(Sm90Plan, IsChosenForLargeProducts) {
  cuda::emulator::TheFaults() = {};
  for (const DType dtype : kDTypes) {
    const auto reports = FullyConnected::Candidates({.m = 4096, .ic = 1024, .oc = 4096, .dtype = dtype},
                                                    {.backend = Backend::kCuda, .accuracy = Accuracy::kReduced});
    ASSERT_TRUE(reports.ok());
    const CandidateReport* best = nullptr;
    for (const CandidateReport& r : *reports) {
      if (r.accepted && (best == nullptr || r.predicted_ns < best->predicted_ns)) best = &r;
    }
    ASSERT_NE(best, nullptr);
    EXPECT_EQ(best->name, Implementation(dtype));
  }
}

TEST_F(Sm90Plan, RingPositionsFlipTheirPhaseOnceRound) {
  cuda::RingPosition<3> at;
  for (uint32_t i = 0; i < 20; ++i, at.Advance()) {
    EXPECT_EQ(at.stage, static_cast<int>(i % 3));
    EXPECT_EQ(at.phase, i / 3 % 2);
    cuda::RingPosition<3> skipped;
    skipped.Skip(static_cast<int>(i));
    EXPECT_TRUE(skipped.stage == at.stage && skipped.phase == at.phase);
  }
}

TEST_F(Sm90FullyConnected, AgreesWithTheReference) {
  for (const int64_t m : {1, 300}) {
    for (const int64_t oc : {8, 130}) {
      for (const int64_t ic : {8, 200}) Check<FullyConnected>({.m = m, .ic = ic, .oc = oc});
    }
  }
}

// Each tile, two of them or more to a block, and more steps than stages.
TEST_F(Sm90FullyConnected, EveryTile) {
  cuda::emulator::TheFaults().multiprocessors = 1;
  struct Case {
    int64_t m, oc, ic;
    cuda::WgmmaTile tile, split;  // of 3 x TF32
  };
  const cuda::WgmmaTile keeping = cuda::kKeepingTile;
  for (const Case& c : {Case{260, 60, 328, keeping, {128, 64}}, Case{400, 60, 328, keeping, {256, 64}},
                        Case{200, 36, 1160, {256, 64}, {256, 64}}, Case{260, 120, 296, {128, 128}, {128, 128}},
                        Case{400, 120, 296, {128, 128}, {256, 128}}, Case{130, 250, 296, {128, 256}, {256, 128}}}) {
    EXPECT_EQ(TileFor(c.m, c.oc, cuda::DivUp(c.ic, 64), 1), c.tile) << c.m << " x " << c.oc;
    EXPECT_EQ(TileFor(c.m, c.oc, cuda::DivUp(c.ic, 32), 1), c.tile) << c.m << " x " << c.oc;
    EXPECT_EQ(TileFor(c.m, c.oc, cuda::DivUp(c.ic, 32), 1, cuda::Math::kTf32x3), c.split) << c.m << " x " << c.oc;
    Check<FullyConnected>({.m = c.m, .ic = c.ic, .oc = c.oc});
  }
}

TEST_F(Sm90FullyConnected, ProductsWaitForTheirLoads) {
  cuda::emulator::TheFaults().multiprocessors = 1;
  CheckProductsFirst<FullyConnected>({.m = 260, .ic = 328, .oc = 60});
  CheckProductsFirst<FullyConnected>({.m = 130, .ic = 328, .oc = 130});
}

TEST_F(Sm90FullyConnected, WarpgroupsTakeTurns) {
  cuda::emulator::TheFaults().multiprocessors = 1;
  EXPECT_EQ(TileFor(700, 130, 1, 1), cuda::kTurnsTile);
  EXPECT_EQ(TileFor(700, 130, 2, 1), cuda::kTurnsTile);
  Check<FullyConnected>({.m = 700, .ic = 40, .oc = 130});
  EXPECT_EQ(TileFor(1900, 120, 3, 1), cuda::kTurnsTile);
  ExpectEmulatedParity<FullyConnected>({.m = 1900, .ic = 168, .oc = 120, .dtype = DType::kBf16}, 1, 1,
                                       Implementation(DType::kBf16));
  CheckProductsFirst<FullyConnected>({.m = 260, .ic = 40, .oc = 130});
}

// Few tiles and many products to an output: 17 steps and more.
TEST_F(Sm90FullyConnected, SharesOutK) {
  cuda::emulator::TheFaults().multiprocessors = 132;
  for (const int64_t oc : {64, 37}) {
    FullyConnectedDesc d{.m = 33, .ic = 1048, .oc = oc, .activation = {ActivationKind::kRelu}};
    for (const DType dtype : kDTypes) {
      d.dtype = dtype;
      const std::vector<float> zeros(static_cast<size_t>(d.ic * d.oc));
      const Context context{
          .backend = Backend::kCuda, .accuracy = Accuracy::kReduced, .implementation = Implementation(dtype)};
      const bool f32 = dtype == DType::kF32;
      const int splits =
          cuda::WgmmaPlanFor(f32 ? cuda::Math::kTf32 : cuda::Math::kBf16, d.m, oc, f32 ? 33 : 17, 132).splits;
      EXPECT_GT(splits, 1);
      EXPECT_EQ(FullyConnected::Prepare(d, {.w = zeros.data(), .bias = zeros.data()}, context)->scratch_bytes(),
                static_cast<size_t>(splits * d.m * cuda::RoundUp(oc, 4)) * sizeof(float));
    }
    Check<FullyConnected>(d);
  }
}

TEST_F(Sm90FullyConnected, TakesStridesLayoutsAndResiduals) {
  for (const Residual residual : {Residual::kBeforeActivation, Residual::kAfterActivation}) {
    Check<FullyConnected>({.m = 133,
                           .ic = 27,  // no multiple of 16 bytes: the rows are
                           .oc = 20,
                           .bias = false,
                           .activation = {ActivationKind::kGeluTanh},
                           .residual = residual,
                           .weight_layout = MatrixLayout::kIo,
                           .x_stride = 32,
                           .y_stride = 21,
                           .residual_stride = 28});
  }
}

TEST_F(Sm90Conv2d, OneByOneIsAMatrix) {
  Check<Conv2d>({.n = 3, .ih = 7, .iw = 9, .ic = 72, .oc = 40});
  Check<Conv2d>({.n = 2, .ih = 7, .iw = 9, .ic = 24, .oc = 40, .activation = {ActivationKind::kRelu6}, .x_stride = 40});
}

TEST_F(Sm90Conv2d, KeepsTheWeights) {
  cuda::emulator::TheFaults().multiprocessors = 1;
  EXPECT_EQ(TileFor(429, 34, 9, 1), cuda::kKeepingTile);
  EXPECT_EQ(TileFor(429, 34, 18, 1), cuda::kKeepingTile);  // as many as fit
  EXPECT_NE(TileFor(429, 34, 19, 1), cuda::kKeepingTile);
  EXPECT_NE(TileFor(429, 65, 9, 1), cuda::kKeepingTile);
  Conv2dDesc d{
      .n = 3, .ih = 11, .iw = 13, .ic = 40, .oc = 34, .kh = 3, .kw = 3, .residual = Residual::kAfterActivation};
  d.pad_top = d.pad_left = d.pad_bottom = d.pad_right = 1, d.activation = {ActivationKind::kRelu6};
  Check<Conv2d>(d);
}

TEST_F(Sm90Conv2d, WarpgroupsTakeTurns) {
  cuda::emulator::TheFaults().multiprocessors = 1;
  EXPECT_EQ(TileFor(675, 130, 2, 1), cuda::kTurnsTile);
  Check<Conv2d>({.n = 3,
                 .ih = 16,
                 .iw = 15,
                 .ic = 24,
                 .oc = 130,
                 .kh = 2,
                 .activation = {ActivationKind::kHardswish},
                 .residual = Residual::kBeforeActivation});
}

// A part begins and ends at any tap and channel.
TEST_F(Sm90Conv2d, SharesOutK) {
  cuda::emulator::TheFaults().multiprocessors = 132;
  Conv2dDesc d{.n = 2, .ih = 5, .iw = 6, .ic = 136, .oc = 34, .kh = 3, .kw = 3, .residual = Residual::kAfterActivation};
  d.pad_top = d.pad_left = 1, d.activation = {ActivationKind::kRelu6};
  Check<Conv2d>(d);
  d.y_stride = 36, d.residual_stride = 40, d.residual = Residual::kBeforeActivation;
  Check<Conv2d>(d);
}

TEST_F(Sm90Conv2d, TakesEveryWindow) {
  const Conv2dDesc base{.n = 2, .ih = 11, .iw = 8, .ic = 16, .oc = 20, .kh = 3, .kw = 2};
  const auto check = [&](const auto& change) {
    Conv2dDesc d = base;
    change(d);
    Check<Conv2d>(d);
  };
  check([](Conv2dDesc&) {});
  check([](Conv2dDesc& d) { d.stride_h = 2, d.stride_w = 3, d.pad_top = 2; });
  check([](Conv2dDesc& d) { d.dilation_h = 3, d.dilation_w = 2, d.pad_left = 2, d.pad_bottom = 1; });
  check([](Conv2dDesc& d) { d.kh = d.kw = 1, d.stride_h = d.stride_w = 2, d.pad_right = 3; });
  check([](Conv2dDesc& d) { d.ih = d.kh = 1, d.pad_left = 4; });
  check([](Conv2dDesc& d) { d.weight_layout = WeightLayout::kOihw, d.bias = false; });
  check([](Conv2dDesc& d) {
    d.x_stride = 40, d.y_stride = 27, d.residual_stride = 24, d.residual = Residual::kAfterActivation;
  });
  check(
      [](Conv2dDesc& d) { d.pad_top = d.pad_bottom = 9, d.pad_left = d.pad_right = 11; });  // windows of padding alone
  check([](Conv2dDesc& d) { d.ic = 72, d.kw = 3, d.pad_top = d.pad_left = d.pad_bottom = d.pad_right = 1; });
  check([](Conv2dDesc& d) { d.n = 5, d.ih = d.iw = 7, d.ic = 136, d.oc = 150, d.pad_top = d.pad_right = 1; });
}

TEST_F(Sm90, RefusesWhatTmaDoesNotTake) {
  const auto contains = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  const Conv2dDesc base{.n = 2, .ih = 30, .iw = 30, .ic = 16, .oc = 20, .kh = 3, .kw = 3, .dtype = DType::kBf16};
  const auto refusal = [&](const auto& change) {
    Conv2dDesc d = base;
    change(d);
    return Refusal<Conv2d>(d);
  };
  EXPECT_EQ(refusal([](Conv2dDesc&) {}), "");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.n = 0; }), "");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.groups = 2; }), "takes one group, got 2");
  EXPECT_EQ(refusal([](Conv2dDesc& d) { d.layout = Layout::kNchw; }), "reads images with dense channels (nhwc)");
  EXPECT_TRUE(contains(refusal([](Conv2dDesc& d) { d.ic = 12; }), "strides of a multiple of 16 bytes"));
  EXPECT_TRUE(contains(refusal([](Conv2dDesc& d) { d.x_stride = 20; }), "strides of a multiple of 16 bytes"));
  EXPECT_TRUE(contains(refusal([](Conv2dDesc& d) { d.stride_h = 9; }), "strides of 1 to 8 pixels"));
  EXPECT_TRUE(contains(refusal([](Conv2dDesc& d) { d.pad_left = 129; }), "pixels off an edge"));
  EXPECT_TRUE(contains(refusal([](Conv2dDesc& d) { d.iw = 600, d.dilation_w = 200; }), "filters of up to 256 pixels"));
  EXPECT_EQ(Refusal<FullyConnected>({.m = 3, .ic = 12, .oc = 5, .dtype = DType::kF16}),
            "takes strides of a multiple of 16 bytes, below 2^40, got 24");
  EXPECT_EQ(Refusal<FullyConnected>({.m = 0, .ic = 16, .oc = 5, .dtype = DType::kF16}), "");
  cuda::emulator::TheFaults().capability = 80;
  EXPECT_EQ(refusal([](Conv2dDesc&) {}), "is for compute capability 9.0, got 8.0");
}

// y = x of ones times weights of ones: `ic` everywhere.
class OfOnes {
 public:
  OfOnes() {
    const auto prepared = FullyConnected::Prepare(
        {.m = 70, .ic = 64, .oc = 24, .bias = false}, {.w = std::vector<float>(64 * 24, 1).data()},
        {.backend = Backend::kCuda, .accuracy = Accuracy::kReduced, .implementation = "cuda/implicit_gemm_wgmma_tf32"});
    EXPECT_TRUE(prepared.ok()) << prepared.status().message();
    op_.emplace(*prepared);
  }
  const FullyConnected& op() const { return *op_; }
  static std::vector<float> Run(const FullyConnected& op, const float* x) {
    std::vector<float> y(static_cast<size_t>(op.desc().m) * 24, -1);
    EXPECT_TRUE(op.Run({.x = x, .y = y.data()}).ok());
    return y;
  }

 private:
  std::optional<FullyConnected> op_;
};

TEST_F(Sm90, RunTakesAnyPointers) {
  const OfOnes ones;
  std::vector<float> x(70 * 64 + 4, 1), half(70 * 64, 0.5f);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(OfOnes::Run(ones.op(), x.data()), std::vector<float>(70 * 24, 64));
    EXPECT_EQ(OfOnes::Run(ones.op(), half.data()), std::vector<float>(70 * 24, 32));
    EXPECT_EQ(OfOnes::Run(ones.op(), x.data() + 1), std::vector<float>(70 * 24, 64));  // off TMA's alignment
  }
}

TEST_F(Sm90, ReshapeKeepsTheWeights) {
  const OfOnes ones;
  for (const int64_t m : {0, 1, 300}) {
    auto desc = ones.op().desc();
    desc.m = m;
    const auto reshaped = ones.op().Reshape(desc);
    ASSERT_TRUE(reshaped.ok()) << reshaped.status().message();
    const std::vector<float> x(static_cast<size_t>(m + 1) * 64, 1);
    EXPECT_EQ(OfOnes::Run(*reshaped, x.data()), std::vector<float>(static_cast<size_t>(m) * 24, 64));
  }
}

}  // namespace
}  // namespace lamina::harness
