// Elements of any supported dtype, widened to and rounded from double.
#ifndef LAMINA_REFERENCE_ELEMENT_H_
#define LAMINA_REFERENCE_ELEMENT_H_

#include <cstdint>

#include "lamina/types.h"

namespace lamina::reference {

double LoadNarrow(const void* data, DType dtype, int64_t i);  // bf16 and f16

// Element i of an array of that dtype. Exact: every f32, bf16 and f16 is a double.
inline double Load(const void* data, DType dtype, int64_t i) {
  return dtype == DType::kF32 ? static_cast<const float*>(data)[i] : LoadNarrow(data, dtype, i);
}

// Rounds to nearest, ties to even; NaN stays NaN, what is too large becomes infinite.
void Store(double value, DType dtype, void* data, int64_t i);

// rows x row values, dense, into rows `stride` elements apart.
void StoreRows(const double* values, int64_t rows, int64_t row, int64_t stride, DType dtype, void* data);

}  // namespace lamina::reference

#endif  // LAMINA_REFERENCE_ELEMENT_H_
