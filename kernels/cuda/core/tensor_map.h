// What TMA copies between a tensor and shared memory, as plain values: the arguments of cuTensorMapEncodeTiled and
// cuTensorMapEncodeIm2col (CUDA Driver API, "Tensor Map Object Management"), and every limit that they document for
// the types used here. EncodeTensorMap (runtime.h) makes a TensorMap, which a kernel takes as a __grid_constant__.
#ifndef LAMINA_KERNELS_CUDA_CORE_TENSOR_MAP_H_
#define LAMINA_KERNELS_CUDA_CORE_TENSOR_MAP_H_

#include <cstdint>
#include <string>

#include "kernels/cuda/core/descriptor.h"
#include "kernels/cuda/core/gemm.h"

namespace lamina::cuda {

// Opaque to all but the driver and the emulator.
struct alignas(128) TensorMap {
  unsigned char bytes[128];
};

// Elements as TMA sees them; f32 it takes as it is, or rounds to TF32 on the way.
enum class TmaElement : uint32_t { kBf16, kF16, kTf32, kF32 };
constexpr int Bytes(TmaElement e) { return e >= TmaElement::kTf32 ? 4 : 2; }
constexpr TmaElement TmaElementOf(Math math) {
  switch (math) {
    case Math::kBf16: return TmaElement::kBf16;
    case Math::kF16: return TmaElement::kF16;
    case Math::kTf32: return TmaElement::kTf32;
    default: return TmaElement::kF32;
  }
}

// Boxes of a dense-in-the-first-dimension tensor. Dimension 0 is the fastest. Outside the tensor reads zero.
struct TileMap {
  TmaElement element = TmaElement::kBf16;
  uint32_t rank = 2;
  const void* base = nullptr;
  uint64_t dims[5] = {};     // elements
  uint64_t strides[4] = {};  // bytes from one of dimension i + 1 to the next
  uint32_t box[5] = {};      // elements
  Swizzle swizzle = Swizzle::k128;
  bool operator==(const TileMap&) const = default;
};

// Columns of an image [n, h, w, c]: `pixels` pixels one after the other, w first, then h, then n, each `channels` of c.
// The pixels are those from `lower` to `upper`, counted from the image's first and last one, `step` apart; a load adds
// the tap's offset to each. Outside the image reads zero.
struct Im2colMap {
  TmaElement element = TmaElement::kBf16;
  const void* base = nullptr;
  uint64_t dims[4] = {};                 // c, w, h, n
  uint64_t strides[3] = {};              // bytes
  int32_t lower[2] = {}, upper[2] = {};  // w, h
  uint32_t step[2] = {1, 1};             // w, h
  uint32_t channels = 0, pixels = 0;
  Swizzle swizzle = Swizzle::k128;
  bool operator==(const Im2colMap&) const = default;
};

inline constexpr int kMostTapOffset = 255;  // of a load from a four-dimensional Im2colMap

// "" or which documented limit the map breaks.
std::string Validate(const TileMap& map);
std::string Validate(const Im2colMap& map);

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_TENSOR_MAP_H_
