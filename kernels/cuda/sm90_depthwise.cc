#include "kernels/cuda/sm90_depthwise.h"

#include <algorithm>

#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/image.h"

namespace lamina::cuda {
namespace {

constexpr int kWarps = kDepthwiseThreads / 32, kBlocks = StripShape<2, 3, 1>::kBlocks;

StripSizes SizesOf(DType dtype, const DepthwiseArgs& a) {
  return StripSizesOf(static_cast<int>(SizeOf(dtype)), a.kh, a.stride_h);
}
int64_t WarpsOf(const Device& device) { return int64_t{device.multiprocessors} * kBlocks * kWarps; }

StripWalks WalksOf(const Device& device, DType dtype, const DepthwiseArgs& a) {
  StripWalks w = StripWalksOf(SizesOf(dtype, a), a.kh, a.stride_h, a.images, a.oh, a.ow.divisor, a.channels, a.pad_top,
                              WarpsOf(device));
  w.y_row = a.ow.divisor * a.epilogue.y_strides.pixel;
  w.residual_row = a.ow.divisor * a.epilogue.residual_strides.pixel;
  return w;
}

// Channels, columns, rows, images.
TileMap MapOf(DType dtype, const DepthwiseArgs& a, int of_images) {
  const StripSizes sizes = SizesOf(dtype, a);
  const int columns = sizes.columns * (sizes.strips() / of_images);
  const auto bytes = [&](int64_t elements) { return static_cast<uint64_t>(elements) * SizeOf(dtype); };
  return {.element = TmaElementOf(NativeMath(dtype)),
          .rank = 4,
          .base = a.x,
          .dims = {static_cast<uint64_t>(a.channels), static_cast<uint64_t>(a.iw), static_cast<uint64_t>(a.ih),
                   static_cast<uint64_t>(a.images)},
          .strides = {bytes(a.x_pixel), bytes(a.x_row), bytes(a.x_image)},
          .box = {kWalkChannels, static_cast<uint32_t>(InputColumns(columns, a.kw, a.stride_w)),
                  static_cast<uint32_t>(sizes.steps * a.stride_h), static_cast<uint32_t>(of_images)},
          .swizzle = Swizzle::kNone};
}

}  // namespace

std::string TmaDepthwise::Refuses(const Device& device, DType dtype, const DepthwiseArgs& a) {
  if (std::string why = RefusesSm90(device); !why.empty()) return why;
  if (a.x_channel != 1) return "reads images with dense channels (nhwc)";
  if (a.multiplier.divisor != 1) {
    return "makes one output of an input channel, got " + std::to_string(a.multiplier.divisor);
  }
  const int most_stride = a.kh == 3 || a.kh == 5 ? 2 : a.kh == 7 ? 1 : 0;
  if (a.kh != a.kw || a.stride_h != a.stride_w || a.stride_h > most_stride) {
    return "takes windows of 3 x 3 and 5 x 5 with strides 1 and 2, of 7 x 7 with stride 1";
  }
  if (a.dilation_h != 1 || a.dilation_w != 1) return "takes dense windows, got a dilation";
  const Epilogue& e = a.epilogue;
  if (!Multiples(4, {a.channels, e.y_strides.pixel, e.y_strides.image})) return "stores quads of channels, aligned";
  if (e.residual_kind != Residual::kNone && !Multiples(4, {e.residual_strides.pixel, e.residual_strides.image})) {
    return "reads the residual in quads of channels, aligned";
  }
  return a.images == 0 ? "" : Validate(MapOf(dtype, a, 1));  // of no image nothing is ever read
}

double TmaDepthwise::Predict(const Device& device, DType dtype, const DepthwiseArgs& a) {
  const StripSizes sizes = SizesOf(dtype, a);
  const StripWalks w = WalksOf(device, dtype, a);
  // Instructions of a lane, as the machine code has them: for a step, and to begin a walk.
  const int inputs = a.stride_h * InputColumns(sizes.columns, a.kw, a.stride_w);
  const int step = sizes.columns * sizes.channels * a.kh * a.kw +
                   inputs * (dtype == DType::kF32 ? 1 : 1 + sizes.channels) + sizes.columns * 7 + 30;
  const double instructions = w.count * 32.0 * ((w.rows + w.lead) * step + 300);
  return PredictNs(device.figures(), 2 * instructions, PortableFlopsPerClock(device.capability, Math::kF32),
                   DepthwiseBytes(dtype, a), w.count, kBlocks * kWarps);
}

TmaDepthwise::TmaDepthwise(const Device* device, DType dtype, const DepthwiseArgs& args)
    : device_(device), dtype_(dtype), walks_(WalksOf(*device, dtype, args)) {}

Error TmaDepthwise::Launch(const DepthwiseArgs& args, void* stream) const {
  if (!Aligned(args.x, 16) || !TakesQuads(args.epilogue, SizeOf(dtype_))) {
    return PortableDepthwise(device_, dtype_, args).Launch(args, stream);
  }
  TmaDepthwiseArgs a{.x = {}, .depthwise = args, .walks = walks_};
  if (const Error e = x_.Encode(MapOf(dtype_, args, walks_.images), &a.x); !e.ok()) return e;
  const int blocks = static_cast<int>(std::min<int64_t>(walks_.count, int64_t{device_->multiprocessors} * kBlocks));
  switch (dtype_) {
    case DType::kF32: return StartTmaDepthwise<float>(a, blocks, stream);
    case DType::kBf16: return StartTmaDepthwise<Bf16>(a, blocks, stream);
    case DType::kF16: return StartTmaDepthwise<F16>(a, blocks, stream);
  }
  return {};
}

double FastestDepthwise::Predict(const Device& device, DType dtype, const DepthwiseArgs& args) {
  const double portable = PortableDepthwise::Predict(device, dtype, args);
  if (!TmaDepthwise::Refuses(device, dtype, args).empty()) return portable;
  return std::min(portable, TmaDepthwise::Predict(device, dtype, args));
}

FastestDepthwise::FastestDepthwise(const Device* device, DType dtype, const DepthwiseArgs& args)
    : portable_(device, dtype, args) {
  if (TmaDepthwise::Refuses(*device, dtype, args).empty() &&
      TmaDepthwise::Predict(*device, dtype, args) <= PortableDepthwise::Predict(*device, dtype, args)) {
    tma_.emplace(device, dtype, args);
  }
}

Error FastestDepthwise::Launch(const DepthwiseArgs& args, void* stream) const {
  return tma_ ? tma_->Launch(args, stream) : portable_.Launch(args, stream);
}

}  // namespace lamina::cuda
