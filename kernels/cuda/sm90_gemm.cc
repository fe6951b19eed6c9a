#include "kernels/cuda/sm90_gemm.h"

#include <algorithm>

#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/image.h"

namespace lamina::cuda {
namespace {

int StepElements(Math math) { return 128 / ElementBytes(math); }
int64_t Steps(Math math, const GemmArgs& a) { return int64_t{a.kh} * a.kw * DivUp(a.channels, StepElements(math)); }
uint64_t StrideBytes(Math math, int64_t elements) { return static_cast<uint64_t>(elements * ElementBytes(math)); }

// Whether every row of the product is one pixel, and the pixels are evenly spaced.
bool IsMatrix(const GemmArgs& a) {
  const auto pixels = static_cast<int64_t>(a.pixels.divisor);
  return a.kh == 1 && a.kw == 1 && a.stride_h == 1 && a.stride_w == 1 && a.pad_top == 0 && a.pad_left == 0 &&
         pixels == int64_t{a.ih} * a.iw && (a.ih == 1 || a.x_row == a.iw * a.x_pixel) &&
         (a.rows <= pixels || a.x_image == pixels * a.x_pixel);
}

// Whether a pixel's distance to the next is the same from one image to the next, too.
bool EvenRows(const GemmArgs& a, const RowStrides& s) {
  const auto pixels = static_cast<int64_t>(a.pixels.divisor);
  return a.rows <= pixels || s.image == pixels * s.pixel;
}

TileMap MatrixMap(Math math, const GemmArgs& a, int tile_m) {
  return {.element = TmaElementOf(math),
          .rank = 2,
          .base = a.x,
          .dims = {static_cast<uint64_t>(a.channels), static_cast<uint64_t>(a.rows)},
          .strides = {StrideBytes(math, a.x_pixel)},
          .box = {static_cast<uint32_t>(StepElements(math)), static_cast<uint32_t>(tile_m)}};
}

// Windows begin at -pad and end where the last output's does.
Im2colMap ImageMap(Math math, const GemmArgs& a, int tile_m) {
  const auto ow = static_cast<int>(a.ow.divisor), oh = static_cast<int>(a.pixels.divisor / a.ow.divisor);
  const int images = a.rows / static_cast<int>(a.pixels.divisor);
  return {.element = TmaElementOf(math),
          .base = a.x,
          .dims = {static_cast<uint64_t>(a.channels), static_cast<uint64_t>(a.iw), static_cast<uint64_t>(a.ih),
                   static_cast<uint64_t>(images)},
          .strides = {StrideBytes(math, a.x_pixel), StrideBytes(math, a.x_row), StrideBytes(math, a.x_image)},
          .lower = {-a.pad_left, -a.pad_top},
          .upper = {(ow - 1) * a.stride_w - a.pad_left - (a.iw - 1), (oh - 1) * a.stride_h - a.pad_top - (a.ih - 1)},
          .step = {static_cast<uint32_t>(a.stride_w), static_cast<uint32_t>(a.stride_h)},
          .channels = static_cast<uint32_t>(StepElements(math)),
          .pixels = static_cast<uint32_t>(tile_m)};
}

// Channels, taps, outputs, parts: a tap's channels end where the image's do, and what lies beyond is zero in both.
TileMap WeightsMap(Math math, const GemmArgs& a, int tile_n) {
  const int taps = a.kh * a.kw;
  const auto parts = static_cast<uint32_t>(WeightParts(math));
  const uint64_t row = StrideBytes(math, PaddedK(a.k, math));
  return {.element = TmaElementOf(math),
          .rank = parts == 1 ? 3u : 4u,
          .base = a.w,
          .dims = {static_cast<uint64_t>(a.channels), static_cast<uint64_t>(taps), static_cast<uint64_t>(a.n), parts},
          .strides = {taps == 1 ? row : StrideBytes(math, a.channels), row, row * static_cast<uint64_t>(PaddedN(a.n))},
          .box = {static_cast<uint32_t>(StepElements(math)), 1, static_cast<uint32_t>(tile_n), parts}};
}

WgmmaPlan PlanFor(const Device& device, Math math, const GemmArgs& a) {
  return WgmmaPlanFor(math, a.rows, a.n, Steps(math, a), device.multiprocessors);
}

}  // namespace

std::string WgmmaProduct::Refuses(const Device& device, Math math, const GemmArgs& a) {
  if (std::string why = RefusesSm90(device); !why.empty()) return why;
  if (math == Math::kF32) return "multiplies 16-bit elements, got f32";
  if (a.groups != 1) return "takes one group, got " + std::to_string(a.groups);
  if (a.x_channel != 1) return "reads images with dense channels (nhwc)";
  if (a.rows == 0) return "";  // nothing is ever read
  if (std::string why = Validate(WeightsMap(math, a, 256)); !why.empty()) return why;
  if (IsMatrix(a)) return Validate(MatrixMap(math, a, 256));
  for (const int64_t last : {int64_t{a.kh - 1} * a.dilation_h, int64_t{a.kw - 1} * a.dilation_w}) {
    if (last > kMostTapOffset)
      return "takes filters of up to 256 pixels, dilation counted, got " + std::to_string(last + 1);
  }
  return Validate(ImageMap(math, a, 256));
}

double WgmmaProduct::Predict(const Device& device, Math math, const GemmArgs& a) {
  const WgmmaPlan plan = PlanFor(device, math, a);
  const auto rows = static_cast<double>(a.rows), n = static_cast<double>(a.n);
  const double bytes = ElementBytes(math) * ((rows + n * WeightParts(math)) * a.k + rows * n);
  return kLaunchNs +
         1e9 * std::max(static_cast<double>(plan.clocks) / device.clock_hz, bytes / device.bytes_per_second);
}

Result<std::shared_ptr<const WgmmaProduct>> WgmmaProduct::Make(const std::string& desc, const Device* device, Math math,
                                                               const GemmArgs& args) {
  const std::shared_ptr<WgmmaProduct> product(new WgmmaProduct);
  product->device_ = device;
  product->math_ = math;
  const WgmmaPlan plan = PlanFor(*device, math, args);
  product->tile_ = plan.tile;
  product->splits_ = plan.splits;
  if (plan.splits > 1) {
    product->scratch_bytes_ =
        static_cast<size_t>(int64_t{plan.splits} * args.rows * PartialPitch(args)) * sizeof(float);
  }
  const Error error = EncodeTensorMap(WeightsMap(math, args, product->tile_.n), &product->w_);
  if (!error.ok()) return DeviceStatus(desc, "describing the weights to TMA", error);
  return std::shared_ptr<const WgmmaProduct>(product);
}

Error WgmmaProduct::Launch(const GemmArgs& args, std::byte* scratch, void* stream) const {
  if (!Aligned(args.x, 16)) return LaunchGemm(*device_, math_, args, stream);
  WgmmaGemmArgs a{.x = {}, .w = w_, .gemm = args, .matrix = IsMatrix(args)};
  const Error mapped =
      a.matrix ? x_.Encode(MatrixMap(math_, args, tile_.m), &a.x) : x_.Encode(ImageMap(math_, args, tile_.m), &a.x);
  if (!mapped.ok()) return mapped;
  a.gemm.splits = splits_;
  a.gemm.epilogue.quads = TakesQuads(args.epilogue, static_cast<size_t>(ElementBytes(math_)));
  if (splits_ > 1) {
    const GemmArgs whole = a.gemm;
    a.gemm.epilogue = {.bias = args.epilogue.bias, .y = scratch, .y_strides = {0, PartialPitch(args), 1}};
    const Error error = Start(a, stream);
    return error.ok() ? StartReduce(math_, whole, reinterpret_cast<const float*>(scratch), stream) : error;
  }
  a.gemm.epilogue.quads = a.gemm.epilogue.quads && EvenRows(args, args.epilogue.y_strides) &&
                          EvenRows(args, args.epilogue.residual_strides);
  return Start(a, stream);
}

Error WgmmaProduct::Start(const WgmmaGemmArgs& a, void* stream) const {
  const int64_t tiles = DivUp(a.gemm.rows, tile_.m) * DivUp(a.gemm.n, tile_.n) * splits_;
  const auto blocks = static_cast<int>(std::min<int64_t>(tiles, device_->multiprocessors));
  switch (math_) {
    case Math::kBf16: return StartWgmmaGemm<Math::kBf16>(a, tile_, blocks, stream);
    case Math::kF16: return StartWgmmaGemm<Math::kF16>(a, tile_, blocks, stream);
    case Math::kTf32x3: return StartWgmmaGemm<Math::kTf32x3>(a, tile_, blocks, stream);
    default: return StartWgmmaGemm<Math::kTf32>(a, tile_, blocks, stream);
  }
}

}  // namespace lamina::cuda
