#include "kernels/cuda/sm90_fused_dw_pw.h"

#include <algorithm>

#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/fused_dw_pw.h"
#include "kernels/cuda/image.h"

namespace lamina::cuda {
namespace {

constexpr int kStep = FusedWgmmaShape<3, 1, 128>::kStepBytes;

uint64_t StrideBytes(Math math, int64_t elements) { return static_cast<uint64_t>(elements * ElementBytes(math)); }

// Channels, columns, rows, images; a box is a patch, where it lies beyond the image it is zero.
TileMap ImageMap(Math math, const DepthwiseArgs& d, const PatchSize& patch) {
  return {.element = math == Math::kTf32 ? TmaElement::kF32 : TmaElementOf(math),  // d is computed in f32
          .rank = 4,
          .base = d.x,
          .dims = {static_cast<uint64_t>(d.channels), static_cast<uint64_t>(d.iw), static_cast<uint64_t>(d.ih),
                   static_cast<uint64_t>(d.images)},
          .strides = {StrideBytes(math, d.x_pixel), StrideBytes(math, d.x_row), StrideBytes(math, d.x_image)},
          .box = {static_cast<uint32_t>(kStep / ElementBytes(math)), static_cast<uint32_t>(patch.columns),
                  static_cast<uint32_t>(patch.rows), static_cast<uint32_t>(patch.images)},
          .swizzle = Swizzle::kNone};
}

// Channels, outputs.
TileMap WeightsMap(Math math, const GemmArgs& p, int tile_n) {
  return {.element = TmaElementOf(math),
          .rank = 2,
          .base = p.w,
          .dims = {static_cast<uint64_t>(p.channels), static_cast<uint64_t>(p.n)},
          .strides = {StrideBytes(math, PaddedK(p.k, math))},
          .box = {static_cast<uint32_t>(kStep / ElementBytes(math)), static_cast<uint32_t>(tile_n)}};
}

int64_t Steps(Math math, const FusedDwPwArgs& a) { return DivUp(a.depthwise.channels * ElementBytes(math), kStep); }

struct PlanAndClocks {
  FusedWgmmaPlan plan;
  int64_t clocks = 0;  // of the multiprocessor with most tiles
};

// The width of tile with the fewest clocks.
PlanAndClocks PlanOf(const Device& device, Math math, const FusedDwPwArgs& a) {
  const DepthwiseArgs& d = a.depthwise;
  PlanAndClocks best;
  for (const int tile_n : {256, 128}) {
    const PlanAndClocks p = WithFusedShape(d.kh, d.stride_h, tile_n, [&]<class Shape>(Shape) -> PlanAndClocks {
      const FusedTiling tiling = TilingOf<Shape>(d.images, d.oh, d.ow.divisor);
      const PatchSize patch = PatchOf<Shape>(tiling);
      const int64_t items = tiling.tiles * DivUp(a.project.n, tile_n);
      const int64_t clocks = FusedItemClocks<Shape>(patch, Steps(math, a), a.project.n, 4 / ElementBytes(math));
      // Nothing is under way before the first patch is there, and nothing else than the last tile's end at the end.
      return {{d.kh, d.stride_h, tile_n, tiling, patch}, DivUp(items, device.multiprocessors) * clocks + 3000};
    });
    if (best.clocks == 0 || p.clocks < best.clocks) best = p;
  }
  return best;
}

}  // namespace

std::string WgmmaFusedDwPw::Refuses(const Device& device, Math math, const FusedDwPwArgs& a) {
  const DepthwiseArgs& d = a.depthwise;
  if (std::string why = RefusesSm90(device); !why.empty()) return why;
  if (math == Math::kF32) return "multiplies 16-bit elements, got f32";
  if (d.x_channel != 1) return "reads images with dense channels (nhwc)";
  if (d.multiplier.divisor != 1) {
    return "takes one output for an input channel, got " + std::to_string(d.multiplier.divisor);
  }
  const bool square = d.kh == d.kw && d.stride_h == d.stride_w;
  if (!square || (d.kh != 3 && d.kh != 5) || d.stride_h > 2 || d.dilation_h != 1 || d.dilation_w != 1) {
    return "takes dense windows of 3x3 and 5x5 with strides of 1 and 2, got " + std::to_string(d.kh) + "x" +
           std::to_string(d.kw) + ", strides " + std::to_string(d.stride_h) + "x" + std::to_string(d.stride_w) +
           ", dilations " + std::to_string(d.dilation_h) + "x" + std::to_string(d.dilation_w);
  }
  if (int64_t{a.project.rows} * DivUp(a.project.n, 128) >= int64_t{1} << 30) {
    return "takes fewer than 2^30 pixels times columns of 128 outputs";
  }
  if (a.project.rows == 0) return "";  // nothing is ever read
  if (std::string why = Validate(WeightsMap(math, a.project, 256)); !why.empty()) return why;
  if (std::string why = Validate(ImageMap(math, d, PlanOf(device, math, a).plan.patch)); !why.empty()) return why;
  return PortableFusedDwPw::Refuses(device, math, a);  // which takes an x off TMA's alignment
}

double WgmmaFusedDwPw::Predict(const Device& device, Math math, const FusedDwPwArgs& a) {
  const DepthwiseArgs& d = a.depthwise;
  const GemmArgs& p = a.project;
  const PlanAndClocks best = PlanOf(device, math, a);
  const double inputs = static_cast<double>(d.images) * d.ih * d.iw * d.channels;
  const double outputs = static_cast<double>(p.rows) * p.n * (p.epilogue.residual_kind == Residual::kNone ? 1 : 2);
  const double bytes = ElementBytes(math) * (inputs + outputs + static_cast<double>(p.n) * p.k);
  return kLaunchNs +
         1e9 * std::max(static_cast<double>(best.clocks) / device.clock_hz, bytes / device.bytes_per_second);
}

Result<std::shared_ptr<const WgmmaFusedDwPw>> WgmmaFusedDwPw::Make(const std::string& desc, const Device* device,
                                                                   Math math, const FusedDwPwArgs& args) {
  const std::shared_ptr<WgmmaFusedDwPw> fused(new WgmmaFusedDwPw);
  fused->device_ = device;
  fused->math_ = math;
  fused->plan_ = PlanOf(*device, math, args).plan;
  const Error error = EncodeTensorMap(WeightsMap(math, args.project, fused->plan_.tile_n), &fused->w_);
  if (!error.ok()) return DeviceStatus(desc, "describing the weights to TMA", error);
  return std::shared_ptr<const WgmmaFusedDwPw>(fused);
}

Error WgmmaFusedDwPw::Launch(const FusedDwPwArgs& args, void* stream) const {
  if (!Aligned(args.depthwise.x, 16)) return PortableFusedDwPw(math_).Launch(args, stream);
  const auto columns = static_cast<uint32_t>(DivUp(args.project.n, plan_.tile_n));
  FusedWgmmaArgs a{.x = {}, .w = w_, .steps = args, .tiling = plan_.tiling, .columns = Divider::Of(columns)};
  if (const Error e = x_.Encode(ImageMap(math_, args.depthwise, plan_.patch), &a.x); !e.ok()) return e;
  a.steps.project.epilogue.quads = TakesQuads(args.project.epilogue, static_cast<size_t>(ElementBytes(math_)));
  const int64_t items = int64_t{columns} * plan_.tiling.tiles;
  const auto blocks = static_cast<int>(std::min<int64_t>(items, device_->multiprocessors));
  switch (math_) {
    case Math::kBf16: return StartFusedWgmma<Math::kBf16>(a, plan_, blocks, stream);
    case Math::kF16: return StartFusedWgmma<Math::kF16>(a, plan_, blocks, stream);
    default: return StartFusedWgmma<Math::kTf32>(a, plan_, blocks, stream);
  }
}

}  // namespace lamina::cuda
