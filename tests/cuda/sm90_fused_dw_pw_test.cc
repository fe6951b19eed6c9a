// Depthwise and pointwise convolution as one kernel of Hopper: its plan, parity, and what it refuses.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "harness/separable_conv2d.h"
#include "kernels/cuda/core/fused_schedule.h"
#include "kernels/cuda/core/swizzle.h"
#include "kernels/cuda/emulator/runtime.h"
#include "tests/cuda/emulated.h"

namespace lamina::harness {
namespace {

using cuda::FusedTiling;
using cuda::FusedWgmmaShape;
using cuda::StripPlace;

SeparableConv2dDesc DwPw(int64_t ih, int64_t iw, int64_t ic, int64_t oc, int64_t k = 3, int64_t stride = 1) {
  SeparableConv2dDesc d{.n = 2, .ih = ih, .iw = iw, .ic = ic, .oc = oc, .kh = k, .kw = k};
  d.stride_h = d.stride_w = stride;
  d.pad_top = d.pad_left = d.pad_bottom = d.pad_right = k / 2;
  d.depthwise_activation = d.project_activation = {ActivationKind::kRelu6};
  return d;
}

template <class F>
void ForEachShape(const F& f) {
  for (const int k : {3, 5}) {
    for (const int stride : {1, 2}) {
      for (const int tile_n : {128, 256})
        cuda::WithFusedShape(k, stride, tile_n, [&]<class Shape>(Shape) { f(Shape{}); });
    }
  }
}

// Every pixel is in one place of one tile, and its window within the tile's patch.
TEST(CudaCore, FusedTilesHoldEveryPixelOnce) {
  ForEachShape([]<class Shape>(Shape) {
    for (const auto& [images, oh, ow] :
         {std::array{1, 1, 1}, {3, 7, 7}, {5, 4, 9}, {2, 14, 14}, {1, 28, 28}, {1, 33, 17}, {1, 2, 100}}) {
      const FusedTiling t = cuda::TilingOf<Shape>(images, oh, ow);
      const cuda::PatchSize patch = cuda::PatchOf<Shape>(t);
      EXPECT_LE(patch.pixels(), Shape::kPatchPixels);
      std::multiset<int> seen;
      for (int tile = 0; tile < t.tiles; ++tile) {
        const StripPlace begin = cuda::TileBegin<Shape>(t, static_cast<uint32_t>(tile));
        for (int strip = 0; strip < Shape::kWarps; ++strip) {
          const StripPlace place = cuda::PlaceOf<Shape>(t, strip);
          EXPECT_LT(place.image, patch.images);
          EXPECT_LE(place.row * Shape::kStride + Shape::kInputRows, patch.rows);
          EXPECT_LE(place.column * Shape::kStride + Shape::kInputs, patch.columns);
          for (int i = 0; i < Shape::kUnitRows * cuda::kUnitColumns; ++i) {
            const int image = begin.image + place.image, h = begin.row + place.row + i / cuda::kUnitColumns,
                      w = begin.column + place.column + i % cuda::kUnitColumns;
            if (image < images && h < oh && w < ow) seen.insert((image * oh + h) * ow + w);
          }
        }
      }
      EXPECT_EQ(seen.size(), static_cast<size_t>(images * oh * ow));
      EXPECT_EQ(std::set<int>(seen.begin(), seen.end()).size(), seen.size());
    }
  });
}

// The images of most networks in as few tiles as there can be of whole strips.
TEST(CudaCore, FusedTilesSuitTheImage) {
  using Shape = FusedWgmmaShape<3, 1, 256>;
  const auto tiles = [](int64_t images, int64_t size) { return cuda::TilingOf<Shape>(images, size, size).tiles; };
  EXPECT_EQ(tiles(1, 112), 98);  // of 128 pixels, all of them there
  EXPECT_EQ(tiles(1, 56), 28);
  EXPECT_EQ(tiles(1, 28), 7);
  EXPECT_EQ(tiles(1, 14), 2);
  EXPECT_EQ(tiles(8, 7), 4);  // two images to a tile
}

// The chunks of a strip's pixels lie on all banks, once: a lane has a word of each pixel.
TEST(CudaCore, FusedStripsStoreEveryWordOnce) {
  for (int row = 0; row < 32; ++row) {
    std::set<int> banks;
    for (int lane = 0; lane < 32; ++lane) banks.insert(cuda::Swizzle128(row, lane / 4) + lane % 4 * 4 - row * 128);
    EXPECT_EQ(banks.size(), 32u);
    EXPECT_EQ(*banks.rbegin(), 124);
  }
}

// Two multiprocessors, so that blocks take several tiles.
class Sm90Fused : public testing::Test {
 protected:
  void SetUp() override { cuda::emulator::TheFaults().multiprocessors = 2; }
  void TearDown() override { cuda::emulator::TheFaults() = {}; }

  static std::string Implementation(DType dtype) {
    return dtype == DType::kF32 ? "cuda/fused_dw_pw_wgmma_tf32" : "cuda/fused_dw_pw_wgmma";
  }
  static void Check(SeparableConv2dDesc d, const std::vector<DType>& dtypes) {
    for (const DType dtype : dtypes) {
      d.dtype = dtype;
      ExpectEmulatedParity<SeparableConv2d>(d, 1, 1, Implementation(dtype));
    }
  }
  static SeparableConv2d Prepared(const SeparableConv2dDesc& d, const Case<SeparableConv2d>& c) {
    auto op = SeparableConv2d::Prepare(
        d, c.weights,
        {.backend = Backend::kCuda, .accuracy = Accuracy::kReduced, .implementation = Implementation(d.dtype)});
    EXPECT_TRUE(op.ok()) << op.status().message();
    return *op;
  }
  // Outputs of x's 16-bit elements, poisoned before.
  static std::vector<uint16_t> Run(const SeparableConv2d& op, const void* x) {
    const SeparableConv2dDesc& d = op.desc();
    std::vector<uint16_t> y(static_cast<size_t>(d.n * d.oh() * d.ow() * d.oc), 0xffff);
    EXPECT_TRUE(op.Run({x, y.data()}).ok());
    return y;
  }
  static std::string Refusal(const SeparableConv2dDesc& d) {
    const auto reports = SeparableConv2d::Candidates(d, {.backend = Backend::kCuda, .accuracy = Accuracy::kReduced});
    for (const CandidateReport& r : *reports) {
      if (r.name == Implementation(d.dtype)) return r.reason;
    }
    return "not offered";
  }
};

// Images smaller than a tile, a strip and a window; several tiles to a block; more blocks than tiles.
TEST_F(Sm90Fused, EveryWindowAtEveryEdge) {
  for (const int64_t k : {3, 5}) {
    for (const int64_t stride : {1, 2}) {
      for (const auto& [ih, iw] : {std::pair{1, 1}, {2, 9}, {7, 7}, {19, 10}}) {
        SeparableConv2dDesc d = DwPw(ih, iw, 16, 24, k, stride);
        d.n = 3;  // of which a tile may hold two
        Check(d, {ih == 2 ? DType::kF16 : ih == 7 ? DType::kF32 : DType::kBf16});
      }
    }
  }
  cuda::emulator::TheFaults().multiprocessors = 132;
  Check(DwPw(9, 17, 64, 64), {DType::kF32, DType::kBf16, DType::kF16});
}

// Less than a step of channels, more than the stages and patches; less and more than a tile of outputs.
TEST_F(Sm90Fused, EveryTailOfChannelsAndOutputs) {
  for (const int64_t ic : {8, 24, 72, 120}) Check(DwPw(6, 6, ic, ic == 8 ? 3 : 130), {DType::kBf16});
  Check(DwPw(5, 11, 328, 8), {DType::kF16});
  Check(DwPw(5, 6, 72, 300), {DType::kBf16});  // two tiles of outputs
  Check(DwPw(5, 6, 136, 250, 5, 2), {DType::kF16});
  for (const int64_t ic : {4, 36, 100}) Check(DwPw(6, 7, ic, 70), {DType::kF32});
}

TEST_F(Sm90Fused, BothWidthsOfTile) {
  for (const auto& [k, stride] : {std::pair{3, 1}, {3, 2}, {5, 1}}) {
    Check(DwPw(9, 9, 136, 129, k, stride), {DType::kBf16});
    Check(DwPw(9, 9, 136, 256, k, stride), {DType::kF16});
    Check(DwPw(9, 9, 68, 256, k, stride), {DType::kF32});
  }
}

TEST_F(Sm90Fused, PadsStridesLayoutsAndResiduals) {
  SeparableConv2dDesc d = DwPw(7, 12, 24, 20);
  d.pad_top = 0, d.pad_left = 2, d.pad_bottom = 2, d.pad_right = 1;
  d.x_stride = 40, d.y_stride = 21, d.residual_stride = 28;
  d.depthwise_activation = {ActivationKind::kHardsigmoid, 0.2f, 0.5f};  // what lies beside is not zero then
  d.project_activation = {ActivationKind::kHardswish};
  for (const Residual residual : {Residual::kBeforeActivation, Residual::kAfterActivation}) {
    d.residual = residual;
    Check(d, {DType::kBf16, DType::kF32});
  }
  d.y_stride = 24;
  d.depthwise_bias = d.project_bias = false;
  d.pad_top = 9, d.pad_bottom = 8;  // windows of padding alone
  Check(d, {DType::kF16});
}

// NaN of one pixel is in the outputs whose windows see it and in no others; NaN between the pixels of x is in none.
TEST_F(Sm90Fused, NanStaysWhereItIsSeen) {
  SeparableConv2dDesc d = DwPw(12, 21, 72, 40);
  d.dtype = DType::kBf16;
  d.x_stride = 88;
  TensorStore store(Fill::kNormal, Guard::kEnd, 3);
  const Case<SeparableConv2d> c(d, store);
  const SeparableConv2d op = Prepared(d, c);
  constexpr uint16_t kNan = 0x7fff;
  const auto pixels = static_cast<size_t>(d.n * d.ih * d.iw);
  std::vector<uint16_t> x(pixels * 88, kNan);
  for (size_t p = 0; p < pixels; ++p) {
    for (size_t i = 0; i < 72; ++i) x[p * 88 + i] = static_cast<uint16_t>(0x3f80 + (p + i) % 64);
  }
  const auto is_nan = [](uint16_t bits) { return (bits & 0x7fff) > 0x7f80; };
  cuda::emulator::UnderBothSchedules([&] {
    const std::vector<uint16_t> without = Run(op, x.data());
    std::vector<uint16_t> poisoned = x;
    poisoned[static_cast<size_t>((12 + 7) * 21 + 15) * 88 + 70] = kNan;  // of the second image
    const std::vector<uint16_t> with = Run(op, poisoned.data());
    for (int64_t i = 0; i < static_cast<int64_t>(with.size()); ++i) {
      const int64_t pixel = i / d.oc, image = pixel / (12 * 21), h = pixel / 21 % 12, w = pixel % 21;
      const auto at = static_cast<size_t>(i);
      ASSERT_FALSE(is_nan(without[at]));
      if (image == 1 && std::abs(h - 7) <= 1 && std::abs(w - 15) <= 1) {
        ASSERT_TRUE(is_nan(with[at])) << h << " " << w;
      } else {
        ASSERT_EQ(with[at], without[at]) << h << " " << w;
      }
    }
  });
}

// TMA reads from multiples of 16 bytes; any other x takes the portable kernel. Small integers are exact in either.
TEST_F(Sm90Fused, TakesAnyAddressAndOtherBatches) {
  SeparableConv2dDesc d = DwPw(9, 10, 16, 24);
  d.dtype = DType::kF16;
  TensorStore store(Fill::kExact, Guard::kEnd, 3);
  const Case<SeparableConv2d> c(d, store);
  const SeparableConv2d op = Prepared(d, c);
  const auto count = static_cast<size_t>(d.n * d.ih * d.iw * d.ic);
  std::vector<uint16_t> x(2 * count + 8);
  uint16_t* const aligned = x.data() + (16 - reinterpret_cast<uintptr_t>(x.data()) % 16) % 16 / 2;
  const auto* values = static_cast<const uint16_t*>(c.tensors.x);
  std::copy_n(values, count, aligned);
  std::copy_n(values, count, aligned + count);
  const std::vector<uint16_t> y = Run(op, aligned);
  std::copy_n(values, count, aligned + 4);
  EXPECT_EQ(Run(op, aligned + 4), y);
  std::copy_n(values, count, aligned);
  d.n = 4;
  const auto larger = op.Reshape(d);
  ASSERT_TRUE(larger.ok()) << larger.status().message();
  std::copy_n(values, count, aligned + count);
  const std::vector<uint16_t> twice = Run(*larger, aligned);
  EXPECT_TRUE(std::equal(y.begin(), y.end(), twice.begin()));
  EXPECT_TRUE(std::equal(y.begin(), y.end(), twice.begin() + static_cast<int64_t>(y.size())));
  d.n = 0;
  EXPECT_TRUE(op.Reshape(d).ok());
}

TEST_F(Sm90Fused, RefusesInASentence) {
  const auto with = [](const auto& change) {
    SeparableConv2dDesc d = DwPw(9, 9, 16, 16);
    d.dtype = DType::kBf16;
    change(d);
    return Refusal(d);
  };
  EXPECT_EQ(with([](SeparableConv2dDesc&) {}), "");
  EXPECT_EQ(with([](SeparableConv2dDesc& d) { d.dtype = DType::kF32; }), "");
  EXPECT_EQ(with([](SeparableConv2dDesc& d) { d.layout = Layout::kNchw; }), "reads images with dense channels (nhwc)");
  EXPECT_EQ(with([](SeparableConv2dDesc& d) { d.depth_multiplier = 2; }),
            "takes one output for an input channel, got 2");
  const std::string windows = "takes dense windows of 3x3 and 5x5 with strides of 1 and 2, got ";
  EXPECT_EQ(with([](SeparableConv2dDesc& d) { d.kw = 5; }), windows + "3x5, strides 1x1, dilations 1x1");
  EXPECT_EQ(with([](SeparableConv2dDesc& d) { d.kh = d.kw = 7; }), windows + "7x7, strides 1x1, dilations 1x1");
  EXPECT_EQ(with([](SeparableConv2dDesc& d) { d.stride_h = 2; }), windows + "3x3, strides 2x1, dilations 1x1");
  EXPECT_EQ(with([](SeparableConv2dDesc& d) { d.stride_h = d.stride_w = 3; }),
            windows + "3x3, strides 3x3, dilations 1x1");
  EXPECT_EQ(with([](SeparableConv2dDesc& d) { d.dilation_w = 2; }), windows + "3x3, strides 1x1, dilations 1x2");
  EXPECT_EQ(with([](SeparableConv2dDesc& d) { d.ic = 20; }),
            "takes strides of a multiple of 16 bytes, below 2^40, got 40");
  EXPECT_EQ(with([](SeparableConv2dDesc& d) { d.fusion = Fusion::kNever; }), "fusion=never: this is one kernel");
  EXPECT_EQ(with([](SeparableConv2dDesc& d) { d.order = SeparableOrder::kPwDw; }), "only order=dw_pw is fused");
  cuda::emulator::TheFaults().capability = 80;
  EXPECT_EQ(with([](SeparableConv2dDesc&) {}), "is for compute capability 9.0, got 8.0");
}

// MobileNetV1 at large batches, whose layers move more than they compute: fused, by this kernel where the depthwise
// step keeps up with memory. One small image has too few tiles for all the multiprocessors.
TEST_F(Sm90Fused, IsChosenWhereItPays) {
  cuda::emulator::TheFaults() = {};
  const auto chosen = [](int64_t n, int64_t size, int64_t ic, int64_t oc, int64_t stride = 1) {
    SeparableConv2dDesc d = DwPw(size, size, ic, oc, 3, stride);
    d.n = n;
    d.dtype = DType::kBf16;
    const auto reports = SeparableConv2d::Candidates(d, {.backend = Backend::kCuda});
    const CandidateReport* best = nullptr;
    for (const CandidateReport& r : *reports) {
      if (r.accepted && (best == nullptr || r.predicted_ns < best->predicted_ns)) best = &r;
    }
    return best->name;
  };
  for (const int64_t n : {32, 64, 256}) {
    EXPECT_EQ(chosen(n, 112, 64, 128, 2), "cuda/fused_dw_pw_wgmma");
    EXPECT_EQ(chosen(n, 56, 128, 128), "cuda/fused_dw_pw_wgmma");
    EXPECT_EQ(chosen(n, 28, 256, 256), "cuda/fused_dw_pw_wgmma");
    EXPECT_EQ(chosen(n, 14, 512, 512), "cuda/fused_dw_pw_wgmma");
  }
  EXPECT_EQ(chosen(1, 7, 1024, 1024), "cuda/unfused_wgmma");
}

}  // namespace
}  // namespace lamina::harness
