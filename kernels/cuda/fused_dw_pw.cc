#include "kernels/cuda/fused_dw_pw.h"

#include <algorithm>

#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/image.h"

namespace lamina::cuda {
namespace {

bool HasChunks(const DepthwiseArgs& a, Math math) {
  return a.x_channel == 1 && a.multiplier.divisor == 1 &&
         Multiples(16 / ElementBytes(math), {a.channels, a.x_image, a.x_row, a.x_pixel});
}

}  // namespace

std::string PortableFusedDwPw::Refuses(const Device& device, Math math, const FusedDwPwArgs& args) {
  const int64_t shared = FusedSharedBytes(args.depthwise.channels, math);
  if (shared <= static_cast<int64_t>(device.shared_bytes)) return "";
  return "needs " + std::to_string(shared) + " bytes of shared memory, a block can have " +
         std::to_string(device.shared_bytes);
}

double PortableFusedDwPw::Predict(const Device& device, Math math, const FusedDwPwArgs& args) {
  const DepthwiseArgs& d = args.depthwise;
  const GemmArgs& p = args.project;
  const double rate = PortableFlopsPerClock(device.capability, math);
  const double cuda_cores = PortableFlopsPerClock(device.capability, Math::kF32);
  const double blocks = static_cast<double>(DivUp(p.rows, kFusedRows)), n = static_cast<double>(RoundUp(p.n, 32));
  const double k = PaddedK(p.k, math), element = ElementBytes(math);

  // A tap of an output takes a multiply-add and its share of loads, conversions and bounds, each the time of two
  // floating-point operations. Flops of the tensor cores all.
  const double taps = static_cast<double>(d.kh) * d.kw, per_tap = HasChunks(d, math) ? 4 : 8;
  const double depthwise = blocks * kFusedRows * k * 2 * (per_tap * taps + 10) * rate / cuda_cores;
  const double products = blocks * kFusedRows * n * k * 2;
  // A block has its two parts one after the other. Where an SM has two blocks, the tensor cores work for one while the
  // other is at its depthwise part, about half of the time.
  const bool two = rate > cuda_cores && math != Math::kTf32x3 &&
                   2 * FusedSharedBytes(d.channels, math) <= static_cast<int64_t>(device.shared_bytes);
  const double both = std::max(products, depthwise) + (two ? 0.5 : 1) * std::min(products, depthwise);
  const double fed = blocks * n * k * element / kL2BytesPerClock * rate;  // weights, from L2

  const double inputs = static_cast<double>(d.images) * d.ih * d.iw * d.channels / d.multiplier.divisor;
  const double outputs = static_cast<double>(p.rows) * p.n * (p.epilogue.residual_kind == Residual::kNone ? 1 : 2);
  const double from_memory = element * (inputs + outputs + n * k);
  return PredictNs(device.figures(), std::max(both, fed), rate, from_memory, blocks, two ? 2 : 1);
}

Error PortableFusedDwPw::Launch(FusedDwPwArgs a, void* stream) const {
  a.chunks = HasChunks(a.depthwise, math_) && Aligned(a.depthwise.x, 16);
  a.project.epilogue.quads = TakesQuads(a.project.epilogue, static_cast<size_t>(ElementBytes(math_)));
  switch (math_) {
    case Math::kF32: return StartFusedDwPw<Math::kF32>(a, stream);
    case Math::kTf32: return StartFusedDwPw<Math::kTf32>(a, stream);
    case Math::kTf32x3: return StartFusedDwPw<Math::kTf32x3>(a, stream);
    case Math::kBf16: return StartFusedDwPw<Math::kBf16>(a, stream);
    case Math::kF16: return StartFusedDwPw<Math::kF16>(a, stream);
  }
  return {};
}

}  // namespace lamina::cuda
