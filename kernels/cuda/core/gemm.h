// The matrix product that convolution and fully connected layers are on a GPU: what the host tells the kernel, and the
// arithmetic of tiles that both do.
//   y[row, n] = act(bias[n] + sum_k a[row, k] * w[n, k]),  row = (image, oh, ow),  k = (kh, kw, channel)
// a is never formed: its element (row, k) is x at the pixel oh*stride_h - pad_top + kh*dilation_h, ..., zero outside.
// A fully connected layer is the 1x1 case with one row of pixels.
#ifndef LAMINA_KERNELS_CUDA_CORE_GEMM_H_
#define LAMINA_KERNELS_CUDA_CORE_GEMM_H_

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/core/divider.h"
#include "kernels/cuda/core/element.h"
#include "kernels/cuda/core/round.h"
#include "lamina/types.h"

namespace lamina::cuda {

// How products are formed. The elements of memory are f32 for the first three.
enum class Math { kF32 = 0, kTf32 = 1, kTf32x3 = 2, kBf16 = 3, kF16 = 4 };

// The type of memory's elements.
template <Math kMath>
using ElementOf = std::conditional_t<kMath == Math::kBf16, Bf16, std::conditional_t<kMath == Math::kF16, F16, float>>;

// The products that serve a dtype: its own; for f32, fused multiply-adds.
constexpr Math NativeMath(DType dtype) {
  return dtype == DType::kBf16 ? Math::kBf16 : dtype == DType::kF16 ? Math::kF16 : Math::kF32;
}

// kF32 asks for the products of the dtype itself, the others for those of f32 in TF32.
constexpr Math MathOf(Math asked, DType dtype) { return asked == Math::kF32 ? NativeMath(dtype) : asked; }
constexpr DType DTypeOf(Math math) {
  return math == Math::kBf16 ? DType::kBf16 : math == Math::kF16 ? DType::kF16 : DType::kF32;
}

constexpr int ElementBytes(Math math) { return math <= Math::kTf32x3 ? 4 : 2; }
// Into how many summands a weight is split ahead for wgmma: 3 x TF32 has what TF32 reads of it, and the rest.
constexpr int WeightParts(Math math) { return math == Math::kTf32x3 ? 2 : 1; }

// A tensor of rows (image, pixel) and channels; elements from one to the next.
struct RowStrides {
  int64_t image = 0, pixel = 0, channel = 0;
};

struct Epilogue {
  const float* bias = nullptr;  // [groups, n_padded], zeros where the layer has none
  Activation activation = {};
  Residual residual_kind = Residual::kNone;
  const void* residual = nullptr;
  RowStrides residual_strides = {};
  void* y = nullptr;
  RowStrides y_strides = {};
  bool f32 = false;    // y (and residual) hold f32, whatever the factors' elements are
  bool quads = false;  // rows of y (and residual) have dense channels, four of them aligned wherever a column is
};

struct GemmArgs {
  const void* x = nullptr;
  int64_t x_image = 0, x_row = 0, x_pixel = 0, x_channel = 0;  // elements
  int ih = 1, iw = 1, kh = 1, kw = 1;
  int stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, pad_top = 0, pad_left = 0;
  int rows = 0;                  // images * oh * ow
  Divider pixels = {}, ow = {};  // of one image; of one of its rows
  int channels = 0;              // of one group's input
  int k = 0;                     // kh * kw * channels
  int n = 0, groups = 1;         // outputs of one group
  const void* w = nullptr;       // [parts, groups, n_padded, k_padded], zeros beyond n and k; the weights are part 0
  int n_padded = 0, k_padded = 0;
  int splits = 1;  // of k, over blocks: the sums of each go into y as if it had images of its own
  Epilogue epilogue = {};
  const int32_t* lengths = nullptr;  // [images]: rows of an image from this one on are not read and count as zeros
};

// Bytes of k that one step of the pipeline holds for each row of a tile: four 16-byte chunks.
inline constexpr int kStepBytes = 64;
inline constexpr int kMostTileN = 128;

constexpr int PaddedN(int64_t n) { return static_cast<int>(RoundUp(n, kMostTileN)); }
constexpr int PaddedK(int64_t k, Math math) { return static_cast<int>(RoundUp(k, kStepBytes / ElementBytes(math))); }

// Tiles in the order in which blocks start: bands of kBand tiles of rows, all columns within a band, so that what runs
// at one time shares both operands in L2.
struct Tile {
  int m, n, group;
};
inline constexpr uint32_t kBand = 8;
// In 32 bits, for a GPU divides 64 by a subroutine: there are fewer than 2^31 tiles (RefusesGemm).
LAMINA_HD Tile TileOf(uint32_t block, int m_tiles, int n_tiles) {
  const auto m = static_cast<uint32_t>(m_tiles), n = static_cast<uint32_t>(n_tiles);
  const uint32_t group = block / (m * n), in_group = block % (m * n);
  const uint32_t band = in_group / (kBand * n), in_band = in_group % (kBand * n);
  const uint32_t left = m - band * kBand, height = left < kBand ? left : kBand;
  return {static_cast<int>(band * kBand + in_band % height), static_cast<int>(in_band / height),
          static_cast<int>(group)};
}

// Into how many parts k is split where its tiles would leave a device idle: two blocks to a multiprocessor, as long as
// each part has eight steps. From the problem and the device alone, because it orders the sums.
LAMINA_HD int SplitsOf(int64_t tiles, int64_t steps, int64_t multiprocessors) {
  constexpr int64_t kLeastSteps = 8, kMostSplits = 16;
  const int64_t wanted = tiles > 0 ? 2 * multiprocessors / tiles : 1, possible = steps / kLeastSteps;
  const int64_t least = wanted < possible ? wanted : possible;
  return static_cast<int>(least < 1 ? 1 : least < kMostSplits ? least : kMostSplits);
}

// The steps of part `split`: [first, last). In 32 bits: at most 2^26 steps in 16 parts.
struct StepRange {
  int first, last;
};
LAMINA_HD StepRange StepsOf(int steps, int split, int splits) {
  return {steps * split / splits, steps * (split + 1) / splits};
}

// Where element k of a row of a lies: the tap and the channel, advanced step by step without a division.
struct Tap {
  int r = 0, s = 0, c = 0;
  LAMINA_HD void Advance(int by, int kw, int channels) {
    c += by;
    while (c >= channels) {
      c -= channels;
      if (++s == kw) {
        s = 0;
        ++r;
      }
    }
  }
};

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_GEMM_H_
