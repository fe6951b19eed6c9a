#include "kernels/cuda/sm90_gemm.h"

#include <algorithm>

#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/core/schedule.h"
#include "kernels/cuda/image.h"

namespace lamina::cuda {
namespace {

constexpr int kTileM = WgmmaShape<256>::kM, kStep = WgmmaShape<256>::kStepBytes;

int StepElements(Math math) { return kStep / ElementBytes(math); }
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

TileMap MatrixMap(Math math, const GemmArgs& a) {
  return {.element = TmaElementOf(math),
          .rank = 2,
          .base = a.x,
          .dims = {static_cast<uint64_t>(a.channels), static_cast<uint64_t>(a.rows)},
          .strides = {StrideBytes(math, a.x_pixel)},
          .box = {static_cast<uint32_t>(StepElements(math)), kTileM}};
}

// Windows begin at -pad and end where the last output's does.
Im2colMap ImageMap(Math math, const GemmArgs& a) {
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
          .pixels = kTileM};
}

// Channels, taps, outputs: a tap's channels end where the image's do, and what lies beyond is zero in both.
TileMap WeightsMap(Math math, const GemmArgs& a, int tile_n) {
  const int taps = a.kh * a.kw;
  const uint64_t row = StrideBytes(math, PaddedK(a.k, math));
  return {.element = TmaElementOf(math),
          .rank = 3,
          .base = a.w,
          .dims = {static_cast<uint64_t>(a.channels), static_cast<uint64_t>(taps), static_cast<uint64_t>(a.n)},
          .strides = {taps == 1 ? row : StrideBytes(math, a.channels), row},
          .box = {static_cast<uint32_t>(StepElements(math)), 1, static_cast<uint32_t>(tile_n)}};
}

int TileN(const Device& device, Math math, const GemmArgs& a) {
  return WgmmaTileN(a.rows, a.n, Steps(math, a), device.multiprocessors);
}

}  // namespace

std::string WgmmaProduct::Refuses(const Device& device, Math math, const GemmArgs& a) {
  if (device.capability != 90) {
    return "is for compute capability 9.0, got " + std::to_string(device.capability / 10) + "." +
           std::to_string(device.capability % 10);
  }
  if (math == Math::kF32) return "multiplies 16-bit elements, got f32";
  if (a.groups != 1) return "takes one group, got " + std::to_string(a.groups);
  if (a.x_channel != 1) return "reads images with dense channels (nhwc)";
  if (a.rows == 0) return "";  // nothing is ever read
  if (std::string why = Validate(WeightsMap(math, a, 256)); !why.empty()) return why;
  if (IsMatrix(a)) return Validate(MatrixMap(math, a));
  for (const int64_t last : {int64_t{a.kh - 1} * a.dilation_h, int64_t{a.kw - 1} * a.dilation_w}) {
    if (last > kMostTapOffset)
      return "takes filters of up to 256 pixels, dilation counted, got " + std::to_string(last + 1);
  }
  return Validate(ImageMap(math, a));
}

double WgmmaProduct::Predict(const Device& device, Math math, const GemmArgs& a) {
  const int tile_n = TileN(device, math, a);
  const auto tiles = static_cast<double>(DivUp(a.rows, kTileM) * DivUp(a.n, tile_n));
  const auto steps = static_cast<double>(Steps(math, a));
  // What tiles read comes from L2 at about three times the memory's rate; what all must read comes from memory.
  const double from_l2 = tiles * steps * (kTileM + tile_n) * kStep / 3;
  const double from_memory = (static_cast<double>(a.rows) + a.n) * a.k * ElementBytes(math) +
                             static_cast<double>(a.rows) * a.n * ElementBytes(math);
  const double clocks = static_cast<double>(TileClocks(tile_n, Steps(math, a)));
  const double ideal = steps * 4 * tile_n;
  const double flops = tiles * kTileM * tile_n * 2 * steps * StepElements(math) * (clocks / ideal);
  return PredictNs({static_cast<double>(device.multiprocessors), device.clock_hz, device.bytes_per_second}, flops,
                   WgmmaFlopsPerClock(math), std::max(from_l2, from_memory), tiles, 1);
}

Result<std::shared_ptr<const WgmmaProduct>> WgmmaProduct::Make(const std::string& desc, const Device* device, Math math,
                                                               const GemmArgs& args) {
  const std::shared_ptr<WgmmaProduct> product(new WgmmaProduct);
  product->device_ = device;
  product->math_ = math;
  product->tile_n_ = TileN(*device, math, args);
  const Error error = EncodeTensorMap(WeightsMap(math, args, product->tile_n_), &product->w_);
  if (!error.ok()) return DeviceStatus(desc, "describing the weights to TMA", error);
  return std::shared_ptr<const WgmmaProduct>(product);
}

Error WgmmaProduct::MapX(const GemmArgs& args, TensorMap* map) const {
  const std::lock_guard lock(mutex_);
  if (args.x != last_x_) {
    last_x_ = nullptr;
    const Error error = IsMatrix(args) ? EncodeTensorMap(MatrixMap(math_, args), &last_map_)
                                       : EncodeTensorMap(ImageMap(math_, args), &last_map_);
    if (!error.ok()) return error;
    last_x_ = args.x;
  }
  *map = last_map_;
  return {};
}

Error WgmmaProduct::Launch(const GemmArgs& args, std::byte*, void* stream) const {
  if (!Aligned(args.x, 16)) return LaunchGemm(*device_, math_, args, stream);
  WgmmaGemmArgs a{.x = {}, .w = w_, .gemm = args, .matrix = IsMatrix(args)};
  if (const Error error = MapX(args, &a.x); !error.ok()) return error;
  a.gemm.epilogue.quads = TakesQuads(args.epilogue, static_cast<size_t>(ElementBytes(math_))) &&
                          EvenRows(args, args.epilogue.y_strides) && EvenRows(args, args.epilogue.residual_strides);
  const int64_t tiles = DivUp(args.rows, kTileM) * DivUp(args.n, tile_n_);
  const auto blocks = static_cast<int>(std::min<int64_t>(tiles, device_->multiprocessors));
  switch (math_) {
    case Math::kBf16: return StartWgmmaGemm<Math::kBf16>(a, tile_n_, blocks, stream);
    case Math::kF16: return StartWgmmaGemm<Math::kF16>(a, tile_n_, blocks, stream);
    default: return StartWgmmaGemm<Math::kTf32>(a, tile_n_, blocks, stream);
  }
}

}  // namespace lamina::cuda
