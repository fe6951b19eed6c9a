// The portable matrix product through the operators that are one, fully_connected and conv2d, and its arithmetic.
#include "kernels/cuda/core/gemm.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <set>
#include <tuple>
#include <vector>

#include "harness/conv2d.h"
#include "harness/fully_connected.h"
#include "kernels/cuda/core/element.h"
#include "kernels/cuda/core/swizzle.h"
#include "kernels/cuda/emulator/runtime.h"
#include "reference/element.h"
#include "tests/cuda/emulated.h"

namespace lamina::harness {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBf16, DType::kF16};
// f32 has three candidates: fused multiply-adds, 3 x TF32, TF32.
int Candidates(DType dtype) { return dtype == DType::kF32 ? 3 : 1; }

const void* Zeros(int64_t count) {
  static const std::vector<float> zeros(1 << 20);
  return count <= int64_t{1} << 20 ? zeros.data() : nullptr;
}

TEST(CudaCore, DividerIsExact) {
  for (const uint32_t divisor :
       {1u, 2u, 3u, 5u, 7u, 49u, 112u, 641u, 12544u, 65535u, 65537u, 0x3fffffffu, 0x40000001u, 0x7fffffffu}) {
    const cuda::Divider d = cuda::Divider::Of(divisor);
    for (uint64_t n = 0; n < (1u << 31); n = n * 3 / 2 + 1) {
      for (const uint64_t near : {n, n / divisor * divisor, n / divisor * divisor + divisor - 1}) {
        if (near >= (1u << 31)) continue;
        ASSERT_EQ(d.Quotient(static_cast<uint32_t>(near)), near / divisor) << near << " / " << divisor;
        ASSERT_EQ(d.Remainder(static_cast<uint32_t>(near)), near % divisor);
      }
    }
  }
}

TEST(CudaCore, NarrowAgreesWithTheReference) {
  for (uint32_t bits = 0; bits < 0xffff0000u; bits += 0xfff) {
    const float x = std::bit_cast<float>(bits);
    if (std::isnan(x)) {
      EXPECT_TRUE(std::isnan(cuda::Widen(cuda::NarrowBf16(x))) && std::isnan(cuda::Widen(cuda::NarrowF16(x))));
      continue;
    }
    uint16_t bf16, f16;
    reference::Store(x, DType::kBf16, &bf16, 0);
    reference::Store(x, DType::kF16, &f16, 0);
    ASSERT_EQ(cuda::NarrowBf16(x).bits, bf16) << x;
    ASSERT_EQ(cuda::NarrowF16(x).bits, f16) << x;
  }
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const double bf16 = reference::Load(&half, DType::kBf16, 0), f16 = reference::Load(&half, DType::kF16, 0);
    ASSERT_TRUE(cuda::Widen(cuda::Bf16{half}) == bf16 || std::isnan(bf16)) << bits;
    ASSERT_TRUE(cuda::Widen(cuda::F16{half}) == f16 || std::isnan(f16)) << bits;
  }
}

TEST(CudaCore, TilesCoverEveryOutputOnce) {
  for (const int m : {1, 7, 8, 9, 20}) {
    for (const int n : {1, 3, 16}) {
      std::set<std::tuple<int, int, int>> seen;
      for (uint32_t block = 0; block < static_cast<uint32_t>(m * n * 2); ++block) {
        const cuda::Tile t = cuda::TileOf(block, m, n);
        EXPECT_TRUE(t.m >= 0 && t.m < m && t.n >= 0 && t.n < n && t.group >= 0 && t.group < 2);
        seen.insert({t.m, t.n, t.group});
      }
      EXPECT_EQ(seen.size(), static_cast<size_t>(m * n * 2));
    }
  }
}

// Eight rows' chunks, which one ldmatrix or a quarter of a warp's 16-byte loads reads, lie on all 32 banks.
TEST(CudaCore, SwizzlesSpreadRowsOverTheBanks) {
  const auto check = [](const auto& offset, int row_bytes) {
    std::set<int> all;
    for (int first = 0; first < 64; first += 8) {
      for (int chunk = 0; chunk < row_bytes / 16; ++chunk) {
        std::set<int> banks;
        for (int row = first; row < first + 8; ++row) {
          const int at = offset(row, chunk);
          EXPECT_EQ(at / row_bytes, row);  // stays in its row
          all.insert(at);
          banks.insert(at % 128 / 16);
        }
        EXPECT_EQ(banks.size(), 8u);
      }
    }
    EXPECT_EQ(all.size(), static_cast<size_t>(64 * row_bytes / 16));
  };
  check(cuda::Swizzle64, 64);
  check(cuda::Swizzle128, 128);
  check(cuda::SwizzleWide<256>, 256);
}

TEST(CudaCore, SplitsShareOutEveryStepOnce) {
  for (const int steps : {1, 7, 8, 16, 17, 36, 144, 1000}) {
    for (const int tiles : {1, 2, 16, 60, 132, 264, 1000}) {
      const int splits = cuda::SplitsOf(tiles, steps, 132);
      EXPECT_TRUE(splits >= 1 && splits <= 16);
      EXPECT_TRUE(splits == 1 || (splits * 8 <= steps && splits * tiles <= 264)) << steps << " " << tiles;
      int next = 0;
      for (int split = 0; split < splits; ++split) {
        const cuda::StepRange range = cuda::StepsOf(steps, split, splits);
        EXPECT_EQ(range.first, next);
        EXPECT_LT(range.first, range.last);
        next = range.last;
      }
      EXPECT_EQ(next, steps);
    }
  }
}

// Few tiles and many products to an output.
TEST(CudaFullyConnected, SharesOutK) {
  for (const DType dtype : kDTypes) {
    for (const int64_t oc : {64, 37}) {
      const FullyConnectedDesc d{.m = 33, .ic = 1048, .oc = oc, .activation = {ActivationKind::kRelu}, .dtype = dtype};
      EXPECT_GT(FullyConnected::Prepare(d, {.w = Zeros(d.ic * d.oc), .bias = Zeros(d.oc)},
                                        {.backend = Backend::kCuda, .implementation = "implicit_gemm"})
                    ->scratch_bytes(),
                0u);
      ExpectEmulatedParity<FullyConnected>(d, Candidates(dtype));
    }
  }
}

TEST(CudaConv2d, SharesOutK) {
  for (const DType dtype : kDTypes) {
    Conv2dDesc d{.n = 2, .ih = 5, .iw = 6, .ic = 128, .oc = 36, .kh = 3, .kw = 3, .dtype = dtype};
    d.pad_top = d.pad_left = 1, d.groups = 2, d.residual = Residual::kAfterActivation;
    ExpectEmulatedParity<Conv2d>(d, Candidates(dtype));
    d.layout = Layout::kNchw, d.groups = 1, d.oc = 34;
    ExpectEmulatedParity<Conv2d>(d, Candidates(dtype));
  }
}

TEST(CudaFullyConnected, AgreesWithTheReference) {
  for (const DType dtype : kDTypes) {
    for (const int64_t m : {1, 63, 130}) {
      for (const int64_t oc : {1, 64, 131}) {
        for (const int64_t ic : {1, 16, 72}) {
          ExpectEmulatedParity<FullyConnected>({.m = m, .ic = ic, .oc = oc, .dtype = dtype}, Candidates(dtype));
        }
      }
    }
  }
}

// Up to 16 rows go through a kernel of their own, and so do pixels of 1x1 windows.
TEST(CudaFullyConnected, FewRows) {
  for (const DType dtype : kDTypes) {
    for (const int64_t m : {1, 2, 4, 7, 16}) {
      for (const int64_t ic : {3, 64, 520}) {
        ExpectEmulatedParity<FullyConnected>({.m = m, .ic = ic, .oc = 20 + m, .dtype = dtype}, Candidates(dtype));
      }
      FullyConnectedDesc d{.m = m, .ic = 40, .oc = 36, .residual = Residual::kAfterActivation, .dtype = dtype};
      d.activation = {ActivationKind::kRelu};
      d.x_stride = 44 + m;
      d.y_stride = 36 + m % 2;
      ExpectEmulatedParity<FullyConnected>(d, Candidates(dtype));
    }
    Conv2dDesc d{.n = 2, .ih = 2, .iw = 3, .ic = 16, .oc = 18, .pad_top = 1, .dtype = dtype};
    d.stride_h = d.stride_w = 2;
    for (d.layout = Layout::kNhwc;; d.layout = Layout::kNchw) {
      ExpectEmulatedParity<Conv2d>(d, Candidates(dtype));
      if (d.layout == Layout::kNchw) break;
    }
  }
}

TEST(CudaFullyConnected, TakesStridesLayoutsAndResiduals) {
  for (const DType dtype : kDTypes) {
    for (const Residual residual : {Residual::kBeforeActivation, Residual::kAfterActivation}) {
      ExpectEmulatedParity<FullyConnected>({.m = 5,
                                            .ic = 24,
                                            .oc = 20,
                                            .bias = false,
                                            .activation = {ActivationKind::kRelu},
                                            .residual = residual,
                                            .weight_layout = MatrixLayout::kIo,
                                            .dtype = dtype,
                                            .x_stride = 32,
                                            .y_stride = 21,
                                            .residual_stride = 28},
                                           Candidates(dtype));
    }
  }
}

// 3 x TF32 keeps the bound of fused multiply-adds.
TEST(CudaFullyConnected, ThreeTf32ProductsKeepTheAccuracyOfF32) {
  for (const int64_t ic : {1, 16, 72, 600}) {
    ExpectEmulatedParity<FullyConnected>({.m = 63, .ic = ic, .oc = 66}, 1, 1, "cuda/implicit_gemm_tf32x3",
                                         Accuracy::kStrict);
  }
}

TEST(CudaFullyConnected, EveryActivation) {
  for (int kind = 0; kind <= static_cast<int>(ActivationKind::kElu); ++kind) {
    ExpectEmulatedParity<FullyConnected>(
        {.m = 9, .ic = 8, .oc = 12, .activation = {static_cast<ActivationKind>(kind), 0.25f, 0.5f}}, 3);
  }
}

// Enough tiles of 128 x 128 that the large tile is chosen.
TEST(CudaFullyConnected, LargeTiles) {
  cuda::emulator::TheFaults().multiprocessors = 8;
  for (const DType dtype : kDTypes) {
    ExpectEmulatedParity<FullyConnected>({.m = 3 * 128 + 3, .ic = 32, .oc = 128 + 8, .dtype = dtype},
                                         Candidates(dtype));
  }
  cuda::emulator::TheFaults() = {};
}

TEST(CudaConv2d, AgreesWithTheReference) {
  for (const DType dtype : kDTypes) {
    for (const Layout layout : {Layout::kNhwc, Layout::kNchw}) {
      for (const int64_t ic : {3, 8, 24}) {
        Conv2dDesc d{.n = 2, .ih = 9, .iw = 7, .ic = ic, .oc = 12, .kh = 3, .kw = 3};
        d.layout = layout;
        d.dtype = dtype;
        d.pad_top = d.pad_left = d.pad_bottom = d.pad_right = 1;
        ExpectEmulatedParity<Conv2d>(d, Candidates(dtype));
      }
    }
  }
}

TEST(CudaConv2d, TakesEveryWindow) {
  const Conv2dDesc base{.n = 2, .ih = 11, .iw = 8, .ic = 16, .oc = 20, .kh = 3, .kw = 2};
  const auto check = [&](const auto& change) {
    for (const DType dtype : kDTypes) {
      Conv2dDesc d = base;
      d.dtype = dtype;
      change(d);
      ExpectEmulatedParity<Conv2d>(d, Candidates(dtype));
    }
  };
  check([](Conv2dDesc& d) { d.stride_h = 2, d.stride_w = 3, d.pad_top = 2; });
  check([](Conv2dDesc& d) { d.dilation_h = 3, d.dilation_w = 2, d.pad_left = 2, d.pad_bottom = 1; });
  check([](Conv2dDesc& d) { d.kh = d.kw = 1; });
  check([](Conv2dDesc& d) { d.kh = d.kw = 1, d.stride_h = d.stride_w = 2, d.pad_right = 3; });
  check([](Conv2dDesc& d) { d.groups = 2, d.pad_left = 1; });
  check([](Conv2dDesc& d) { d.groups = 4, d.activation = {ActivationKind::kRelu6}; });
  check([](Conv2dDesc& d) { d.groups = 16, d.oc = 32; });
  check([](Conv2dDesc& d) { d.ih = d.kh = 1, d.pad_left = 4; });
  check([](Conv2dDesc& d) { d.weight_layout = WeightLayout::kOihw, d.bias = false; });
  check([](Conv2dDesc& d) {
    d.x_stride = 40, d.y_stride = 27, d.residual_stride = 24, d.residual = Residual::kAfterActivation;
  });
  check([](Conv2dDesc& d) {
    d.layout = Layout::kNchw, d.x_stride = 2000, d.y_stride = 1999, d.residual = Residual::kBeforeActivation;
  });
  check(
      [](Conv2dDesc& d) { d.pad_top = d.pad_bottom = 9, d.pad_left = d.pad_right = 11; });  // windows of padding alone
}

}  // namespace
}  // namespace lamina::harness
