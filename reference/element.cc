#include "reference/element.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

namespace lamina::reference {
namespace {

// IEEE 754 binary formats of 16 bits: 1 sign, `exponent_bits`, `mantissa_bits`.
double Widen(uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const double sign = bits >> 15 ? -1.0 : 1.0;
  const int exponent = (bits >> mantissa_bits) & top, mantissa = bits & ((1 << mantissa_bits) - 1);
  if (exponent == top) return mantissa ? std::nan("") : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

// Of every bit pattern: a reference reads each of its inputs many times.
std::vector<double> WidenAll(int exponent_bits, int mantissa_bits) {
  std::vector<double> values(1 << 16);
  for (size_t bits = 0; bits < values.size(); ++bits) {
    values[bits] = Widen(static_cast<uint16_t>(bits), exponent_bits, mantissa_bits);
  }
  return values;
}

uint16_t Narrow(double value, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return static_cast<uint16_t>(sign | (top << mantissa_bits) | (1 << (mantissa_bits - 1)));
  const double magnitude = std::fabs(value);
  if (magnitude == 0) return sign;
  int exponent = std::isinf(magnitude) ? bias + 1 : std::ilogb(magnitude);
  if (exponent < 1 - bias) exponent = 1 - bias;  // subnormal: the spacing of the least normal numbers
  // In units of the last place; nearbyint rounds ties to even in the default mode. A carry out of the mantissa flows
  // into the exponent below, as it should.
  const double units = std::isinf(magnitude) ? 0 : std::nearbyint(std::ldexp(magnitude, mantissa_bits - exponent));
  const bool subnormal = units < (1 << mantissa_bits);
  const int64_t field =
      subnormal ? static_cast<int64_t>(units)
                : (static_cast<int64_t>(exponent + bias - 1) << mantissa_bits) + static_cast<int64_t>(units);
  const int64_t infinity = static_cast<int64_t>(top) << mantissa_bits;
  return static_cast<uint16_t>(sign | (std::isinf(magnitude) || field > infinity ? infinity : field));
}

}  // namespace

double LoadNarrow(const void* data, DType dtype, int64_t i) {
  const uint16_t bits = static_cast<const uint16_t*>(data)[i];
  static const std::vector<double> bf16 = WidenAll(8, 7), f16 = WidenAll(5, 10);
  return (dtype == DType::kBf16 ? bf16 : f16)[bits];
}

void Store(double value, DType dtype, void* data, int64_t i) {
  if (dtype == DType::kF32) {
    static_cast<float*>(data)[i] = static_cast<float>(value);
  } else {
    static_cast<uint16_t*>(data)[i] = dtype == DType::kBf16 ? Narrow(value, 8, 7) : Narrow(value, 5, 10);
  }
}

void StoreRows(const double* values, int64_t rows, int64_t row, int64_t stride, DType dtype, void* data) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < row; ++i) Store(values[r * row + i], dtype, data, r * stride + i);
  }
}

}  // namespace lamina::reference
