// What follows the scores of additive attention: weights = softmax of a row, context = weights * values.
//
// Rows of values are named by an index, so that keys which are masked are never read, not multiplied by 0.
#ifndef LAMINA_KERNELS_CPU_ADDITIVE_CONTEXT_H_
#define LAMINA_KERNELS_CPU_ADDITIVE_CONTEXT_H_

#include <cstddef>
#include <cstdint>

#include "lamina/context.h"

namespace lamina::cpu {

struct ContextArgs {
  size_t queries = 0, keys = 0, dim = 0;
  const float* weight = nullptr;  // [queries, keys], rows weight_stride apart
  size_t weight_stride = 0;
  const float* value = nullptr;  // rows of `dim`, value_stride apart
  size_t value_stride = 0;
  const int32_t* rows = nullptr;  // [keys]: the row of each key
  float* context = nullptr;       // [queries, dim], rows context_stride apart
  size_t context_stride = 0;
};

struct AdditiveContextKernel {
  // In place, n >= 1. Writes up to the next whole vector behind n: rows hold a multiple of kRowBlock floats.
  void (*softmax)(float* row, size_t n);
  // Each context element is one chain of multiply-adds over the keys in order: its bits do not depend on the tiles.
  void (*context)(const ContextArgs&);
};
inline constexpr size_t kRowBlock = 16;
const AdditiveContextKernel& GetAdditiveContextKernel(Isa isa);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_ADDITIVE_CONTEXT_H_
