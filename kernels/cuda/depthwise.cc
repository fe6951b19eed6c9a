#include "kernels/cuda/depthwise.h"

#include <vector>

#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/core/element.h"

namespace lamina::cuda {
namespace {

// The kernel made for this window, if x and y come in quads.
DepthwiseVariant VariantOf(const DepthwiseArgs& a, bool quads) {
  const bool square = a.kh == a.kw && a.stride_h == a.stride_w && a.dilation_h == 1 && a.dilation_w == 1;
  if (quads && square && a.stride_h <= 2) {
    const bool one = a.stride_h == 1;
    if (a.kh == 3) return one ? DepthwiseVariant::kWalk3x3Stride1 : DepthwiseVariant::kWalk3x3Stride2;
    if (a.kh == 5) return one ? DepthwiseVariant::kWalk5x5Stride1 : DepthwiseVariant::kWalk5x5Stride2;
    if (a.kh == 7 && one) return DepthwiseVariant::kRow7x7Stride1;
  }
  return DepthwiseVariant::kQuads;
}

bool HasQuads(const DepthwiseArgs& a) {
  return a.x_channel == 1 && a.multiplier.divisor == 1 && Multiples(4, {a.channels, a.x_image, a.x_row, a.x_pixel});
}

int ColumnsOf(const DepthwiseArgs& a) {
  return a.kh == 3   ? DepthwiseWindow<3, 1>::kColumns
         : a.kh == 5 ? DepthwiseWindow<5, 1>::kColumns
                     : DepthwiseWindow<7, 1>::kColumns;
}

// Blocks that are at work on a multiprocessor at one time.
int BlocksOf(const DepthwiseArgs& a) { return a.kh == 5 ? 2 : 3; }

DepthwiseWalks ShareOut(const Device& device, const DepthwiseArgs& a) {
  const int64_t threads = int64_t{device.multiprocessors} * kDepthwiseThreads * BlocksOf(a);
  return WalksOf(a.images, a.oh, a.ow.divisor, QuadsOf(a), ColumnsOf(a),
                 a.kh == 7 ? INT64_MAX : threads);  // 7 x 7 is walks of one row
}

}  // namespace

Result<std::shared_ptr<const DepthwiseWeights>> DepthwiseWeights::Pack(const std::string& desc, DType dtype,
                                                                       const void* w, const void* bias,
                                                                       int64_t channels, int64_t taps) {
  const int64_t padded = PaddedChannels(channels);
  std::vector<float> packed(static_cast<size_t>(taps * padded)), biases(static_cast<size_t>(padded));
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      packed[static_cast<size_t>(tap * padded + c)] = LoadElement(w, dtype, c * taps + tap);
    }
    if (bias != nullptr) biases[static_cast<size_t>(c)] = LoadElement(bias, dtype, c);
  }
  auto on_device = DeviceMemory::Upload(desc, packed.data(), packed.size() * sizeof(float));
  if (!on_device.ok()) return on_device.status();
  auto biases_on_device = DeviceMemory::Upload(desc, biases.data(), biases.size() * sizeof(float));
  if (!biases_on_device.ok()) return biases_on_device.status();
  const std::shared_ptr<DepthwiseWeights> weights(new DepthwiseWeights);
  weights->channels_padded_ = static_cast<int>(padded);
  weights->w_ = *on_device;
  weights->bias_ = *biases_on_device;
  return std::shared_ptr<const DepthwiseWeights>(weights);
}

void DepthwiseWeights::Describe(DepthwiseArgs& args) const {
  args.w = w_->as<float>();
  args.channels_padded = channels_padded_;
  args.epilogue.bias = bias_->as<float>();
}

double DepthwiseBytes(DType dtype, const DepthwiseArgs& a) {
  const double outputs = static_cast<double>(a.images) * a.pixels.divisor * a.channels;
  const double inputs = static_cast<double>(a.images) * a.ih * a.iw * a.channels / a.multiplier.divisor;
  const double passes = a.epilogue.residual_kind == Residual::kNone ? 1 : 2;
  return (inputs + passes * outputs) * static_cast<double>(SizeOf(dtype));
}

double PortableDepthwise::Predict(const Device& device, DType dtype, const DepthwiseArgs& a) {
  // Instructions of a thread for one output, each with the time of two floating-point operations.
  const double taps = static_cast<double>(a.kh) * a.kw;
  double threads = static_cast<double>(a.images) * a.pixels.divisor * QuadsOf(a), of_thread = 4 * (5 * taps + 20);
  if (const DepthwiseVariant variant = VariantOf(a, HasQuads(a)); variant != DepthwiseVariant::kQuads) {
    const DepthwiseWalks walks = ShareOut(device, a);
    const bool row = variant == DepthwiseVariant::kRow7x7Stride1;
    const double rows = row ? 1 : walks.rows + (a.kh - 1) / a.stride_h;  // those before a band's first are dropped
    threads = static_cast<double>(walks.count * walks.groups);
    of_thread = 4 * ColumnsOf(a) * rows * (row ? 2.5 * taps + 10 : 2 * taps + 4);
  }
  return PredictNs(device.figures(), 2 * of_thread * threads, PortableFlopsPerClock(device.capability, Math::kF32),
                   DepthwiseBytes(dtype, a), threads / kDepthwiseThreads + 1, BlocksOf(a));
}

Error PortableDepthwise::Launch(DepthwiseArgs a, void* stream) const {
  const size_t element = SizeOf(dtype_);
  a.x_quads = HasQuads(a) && Aligned(a.x, 4 * element);
  a.epilogue.quads = TakesQuads(a.epilogue, element);
  const DepthwiseVariant variant = VariantOf(a, a.x_quads && a.epilogue.quads);
  if (variant == DepthwiseVariant::kQuads) {
    const auto rows = static_cast<uint32_t>(a.images) * a.pixels.divisor;
    a.inner = Divider::Of(a.x_channel == 1 ? static_cast<uint32_t>(QuadsOf(a)) : rows);
  } else {
    a.walks = ShareOut(*device_, a);
  }
  switch (dtype_) {
    case DType::kF32: return StartDepthwise<float>(a, variant, stream);
    case DType::kBf16: return StartDepthwise<Bf16>(a, variant, stream);
    case DType::kF16: return StartDepthwise<F16>(a, variant, stream);
  }
  return {};
}

}  // namespace lamina::cuda
