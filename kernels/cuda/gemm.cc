#include "kernels/cuda/gemm.h"

#include <bit>
#include <cstring>
#include <vector>

#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/core/element.h"
#include "kernels/cuda/image.h"

namespace lamina::cuda {
namespace {

constexpr int64_t kMost = int64_t{1} << 30;  // of rows, columns and k: their padded and dilated sizes fit an int

int64_t Tiles(int64_t rows, int64_t n, int64_t groups, int tile) { return DivUp(rows, tile) * DivUp(n, tile) * groups; }

// The large tile reads its operands half as often; it pays where enough of them fill the device.
int TileFor(const Device& device, int64_t rows, int64_t n, int64_t groups) {
  return n > 64 && Tiles(rows, n, groups, 128) >= device.multiprocessors ? 128 : 64;
}

bool TakesChunks(const GemmArgs& a, Math math) {
  const int elements = 16 / ElementBytes(math);
  return a.x_channel == 1 && Multiples(elements, {a.channels, a.x_image, a.x_row, a.x_pixel}) && Aligned(a.x, 16);
}

bool IsGemv(const GemmArgs& a) { return a.rows <= kGemvRows && a.groups == 1 && a.kh == 1 && a.kw == 1; }

int SplitsFor(const Device& device, Math math, int64_t rows, int64_t n, int64_t k, int64_t groups) {
  if (TileFor(device, rows, n, groups) == 128) return 1;
  const int64_t steps = PaddedK(k, math) * ElementBytes(math) / kStepBytes;
  return SplitsOf(Tiles(rows, n, groups, 64), steps, device.multiprocessors);
}

Error StartTiles(Math math, const GemmArgs& a, GemmVariant variant, void* stream) {
  switch (math) {
    case Math::kF32: return StartGemm<Math::kF32>(a, variant, stream);
    case Math::kTf32: return StartGemm<Math::kTf32>(a, variant, stream);
    case Math::kTf32x3: return StartGemm<Math::kTf32x3>(a, variant, stream);
    case Math::kBf16: return StartGemm<Math::kBf16>(a, variant, stream);
    case Math::kF16: return StartGemm<Math::kF16>(a, variant, stream);
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const GemmWeights>> GemmWeights::Pack(const std::string& desc, Math math,
                                                             const HostWeights& host, int parts) {
  GemmArgs a;
  a.groups = host.groups;
  a.n = host.n;
  a.k = host.kh * host.kw * host.channels;
  a.kh = host.kh;
  a.kw = host.kw;
  a.channels = host.channels;
  a.n_padded = PaddedN(a.n);
  a.k_padded = PaddedK(a.k, math);
  const auto element = static_cast<size_t>(ElementBytes(math));
  const size_t elements = static_cast<size_t>(a.groups) * a.n_padded * a.k_padded;
  std::vector<std::byte> packed(parts * elements * element);
  std::vector<float> bias(static_cast<size_t>(a.groups) * a.n_padded);
  for (int g = 0; g < a.groups; ++g) {
    for (int n = 0; n < a.n; ++n) {
      const size_t row = static_cast<size_t>(g) * a.n_padded + n;
      std::byte* to = packed.data() + row * a.k_padded * element;
      for (int r = 0; r < host.kh; ++r) {
        for (int s = 0; s < host.kw; ++s) {
          const auto* from = static_cast<const std::byte*>(host.w) +
                             (g * host.group_stride + n * host.n_stride + r * host.h_stride + s * host.w_stride) *
                                 static_cast<int64_t>(element);
          for (int c = 0; c < host.channels; ++c, to += element) {
            std::memcpy(to, from + c * host.channel_stride * static_cast<int64_t>(element), element);
          }
        }
      }
      if (host.bias != nullptr) bias[row] = LoadElement(host.bias, DTypeOf(math), int64_t{g} * a.n + n);
    }
  }
  if (parts == 2) {
    const auto* weights = reinterpret_cast<const float*>(packed.data());
    auto* rests = reinterpret_cast<float*>(packed.data()) + elements;
    for (size_t i = 0; i < elements; ++i) rests[i] = Tf32Rest(weights[i]);
  }
  auto w = DeviceMemory::Upload(desc, packed.data(), packed.size());
  if (!w.ok()) return w.status();
  auto b = DeviceMemory::Upload(desc, bias.data(), bias.size() * sizeof(float));
  if (!b.ok()) return b.status();
  const std::shared_ptr<GemmWeights> weights(new GemmWeights);
  weights->math_ = math;
  weights->w_ = *w;
  weights->bias_ = *b;
  a.w = weights->w_->as();
  a.epilogue.bias = weights->bias_->as<float>();
  weights->args_ = a;
  return std::shared_ptr<const GemmWeights>(weights);
}

void GemmWeights::Describe(GemmArgs& args) const {
  args.w = args_.w;
  args.epilogue.bias = args_.epilogue.bias;
  args.n_padded = args_.n_padded;
  args.k_padded = args_.k_padded;
}

std::string RefusesGemm(int64_t rows, int64_t n, int64_t k, int64_t groups) {
  if (rows >= kMost || n >= kMost || k >= kMost) return "takes fewer than 2^30 rows, outputs and products per output";
  if (Tiles(rows, n, groups, 64) > INT32_MAX) return "takes at most 2^31 - 1 tiles of 64 x 64 outputs";
  return "";
}

double PredictGemm(const Device& device, Math math, const GemmArgs& a) {
  const int64_t rows = a.rows, n = a.n, k = a.k, groups = a.groups;
  const int tile = TileFor(device, rows, n, groups);
  const auto blocks = static_cast<double>(Tiles(rows, n, groups, tile));
  const double k_bytes = static_cast<double>(PaddedK(k, math)) * ElementBytes(math);
  const double from_memory =
      static_cast<double>(groups) * ((rows + n) * k_bytes + static_cast<double>(rows) * n * ElementBytes(math));
  // What a block reads comes from L2, which may hold its products up: those of a byte.
  const auto rate = [&](Math by, int64_t per_element) {
    return std::min(PortableFlopsPerClock(device.capability, by),
                    kL2BytesPerClock * static_cast<double>(per_element) / ElementBytes(math));
  };
  if (IsGemv(a)) {
    return PredictNs(device.figures(), 2.0 * static_cast<double>(rows * n) * static_cast<double>(k),
                     rate(Math::kF32, 2 * std::min<int64_t>(rows, 4)), from_memory, device.multiprocessors, 1);
  }
  const int splits = SplitsFor(device, math, rows, n, k, groups);
  const double parts = splits == 1 ? 0
                                   : kLaunchNs + 8e9 * splits * static_cast<double>(rows * n * groups) /
                                                     (kL2BytesPerClock * device.multiprocessors * device.clock_hz);
  return parts + PredictNs(device.figures(), blocks * tile * tile * 2 * PaddedK(k, math), rate(math, tile), from_memory,
                           blocks * splits, 2);
}

size_t PartialBytes(const Device& device, Math math, const GemmArgs& a) {
  if (a.rows == 0 || IsGemv(a)) return 0;
  const int splits = SplitsFor(device, math, a.rows, a.n, a.k, a.groups);
  return splits == 1 ? 0 : static_cast<size_t>(int64_t{splits} * a.rows * PartialPitch(a)) * sizeof(float);
}

Error LaunchGemm(const Device& device, Math math, GemmArgs a, void* stream, void* partials) {
  const bool chunks = TakesChunks(a, math);
  const bool quads = a.groups == 1 || a.n % 4 == 0;
  a.epilogue.quads =
      quads && TakesQuads(a.epilogue, a.epilogue.f32 ? sizeof(float) : static_cast<size_t>(ElementBytes(math)));
  if (IsGemv(a)) {
    switch (math) {
      case Math::kBf16: return StartGemv<Math::kBf16>(a, chunks, stream);
      case Math::kF16: return StartGemv<Math::kF16>(a, chunks, stream);
      default: return StartGemv<Math::kF32>(a, chunks, stream);
    }
  }
  const int splits = partials == nullptr ? 1 : SplitsFor(device, math, a.rows, a.n, a.k, a.groups);
  if (splits == 1) {
    return StartTiles(math, a, {chunks ? TileFor(device, a.rows, a.n, a.groups) : 64, chunks}, stream);
  }
  a.splits = splits;
  GemmArgs parts = a;
  const int64_t pitch = PartialPitch(a);
  parts.epilogue = {.bias = a.epilogue.bias,
                    .y = partials,
                    .y_strides = {pitch * a.pixels.divisor, pitch, 1},
                    .f32 = true,
                    .quads = quads};
  const Error error = StartTiles(math, parts, {64, chunks}, stream);
  return error.ok() ? StartReduce(math, a, static_cast<const float*>(partials), stream) : error;
}

}  // namespace lamina::cuda
