// The 16-bit element types as bits, and their conversions: rounded to nearest, ties to even, NaN stays NaN.
#ifndef LAMINA_KERNELS_CUDA_CORE_ELEMENT_H_
#define LAMINA_KERNELS_CUDA_CORE_ELEMENT_H_

#include <bit>
#include <cstdint>

#include "kernels/cuda/core/host_device.h"
#include "lamina/types.h"

namespace lamina::cuda {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

constexpr float Widen(Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

constexpr float Widen(F16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7fff;
  if (magnitude >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // As a float of the same digits, 2^112 times too small: exact for subnormal numbers too.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(scaled) | sign);
}

constexpr Bf16 NarrowBf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};  // NaN, as the hardware's conversion writes it
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

constexpr F16 NarrowF16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {0x7fff};
  if (magnitude >= 0x477ff000) return {static_cast<uint16_t>(sign | 0x7c00)};  // from 65520 on: infinite
  if (magnitude < 0x38800000) {  // subnormal: adding 1/2 leaves the digits in units of 2^-24 at the end, rounded
    const auto units = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
    return {static_cast<uint16_t>(sign | units)};
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return {static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13))};
}

// What the tensor cores leave off x when they read it as TF32 (its low 13 bits), rounded to TF32: x up to 2^-22 |x| is
// what they read and this. Infinity has no rest.
constexpr float Tf32Rest(float x) {
  const float read = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0xffffe000);
  if (x == read) return 0;
  const float rest = x - read;
  return std::bit_cast<float>((std::bit_cast<uint32_t>(rest) + 0x1000) & 0xffffe000);
}

// Element i of an array on the host.
inline float LoadElement(const void* data, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kBf16: return Widen(static_cast<const Bf16*>(data)[i]);
    case DType::kF16: return Widen(static_cast<const F16*>(data)[i]);
    case DType::kF32: break;
  }
  return static_cast<const float*>(data)[i];
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_ELEMENT_H_
