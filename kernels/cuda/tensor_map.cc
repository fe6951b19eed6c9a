#include "kernels/cuda/core/tensor_map.h"

namespace lamina::cuda {
namespace {

std::string Must(const char* rule, int64_t got) { return std::string(rule) + ", got " + std::to_string(got); }

// What both kinds of maps ask of the tensor.
std::string ValidateTensor(const void* base, const uint64_t* dims, const uint64_t* strides, uint32_t rank) {
  if (reinterpret_cast<uintptr_t>(base) % 16 != 0) return "takes tensors that begin at a multiple of 16 bytes";
  for (uint32_t i = 0; i < rank; ++i) {
    if (dims[i] < 1 || dims[i] > uint64_t{1} << 32) {
      return Must("takes from 1 to 2^32 elements along a dimension", static_cast<int64_t>(dims[i]));
    }
  }
  for (uint32_t i = 0; i + 1 < rank; ++i) {
    if (strides[i] % 16 != 0 || strides[i] >= uint64_t{1} << 40) {
      return Must("takes strides of a multiple of 16 bytes, below 2^40", static_cast<int64_t>(strides[i]));
    }
  }
  return "";
}

// `row` elements of every line of a box.
std::string ValidateRow(TmaElement element, uint32_t row, Swizzle swizzle) {
  const auto bytes = static_cast<int64_t>(row) * Bytes(element);
  if (bytes % 16 != 0 || bytes == 0) return Must("takes boxes with rows of a multiple of 16 bytes", bytes);
  if (swizzle != Swizzle::kNone && bytes > SpanBytes(swizzle)) {
    return Must("takes boxes with rows within the swizzle's span", bytes);
  }
  return "";
}

}  // namespace

std::string Validate(const TileMap& m) {
  if (m.rank < 1 || m.rank > 5) return Must("takes tensors of 1 to 5 dimensions", m.rank);
  if (std::string why = ValidateTensor(m.base, m.dims, m.strides, m.rank); !why.empty()) return why;
  for (uint32_t i = 0; i < m.rank; ++i) {
    if (m.box[i] < 1 || m.box[i] > 256) return Must("takes boxes of 1 to 256 along a dimension", m.box[i]);
  }
  return ValidateRow(m.element, m.box[0], m.swizzle);
}

std::string Validate(const Im2colMap& m) {
  if (std::string why = ValidateTensor(m.base, m.dims, m.strides, 4); !why.empty()) return why;
  for (int i = 0; i < 2; ++i) {
    for (const int32_t corner : {m.lower[i], m.upper[i]}) {
      if (corner < -128 || corner > 127) return Must("takes windows that begin -128 to 127 pixels off an edge", corner);
    }
    if (static_cast<int64_t>(m.dims[i + 1]) + m.upper[i] - m.lower[i] < 1) return "takes images with a window";
    if (m.step[i] < 1 || m.step[i] > 8) return Must("takes strides of 1 to 8 pixels", m.step[i]);
  }
  if (m.channels > 256) return Must("takes columns of at most 256 channels", m.channels);
  if (m.pixels < 1 || m.pixels > 1024) return Must("takes columns of 1 to 1024 pixels", m.pixels);
  return ValidateRow(m.element, m.channels, m.swizzle);
}

}  // namespace lamina::cuda
