// The scores of additive attention, s[i, j] = sum_u v[u] * tanh(a[i, u] + b[j, u]), for queries that are projected to
// a = query_w q + bias and keys that are projected to b = key_w h.
//
// Units are padded to whole blocks with a = b = 0; lanes are units, so any number of keys and queries will do. A
// score's bits depend on its own query and key alone, not on how many others are computed with it.
#ifndef LAMINA_KERNELS_CPU_ADDITIVE_SCORE_H_
#define LAMINA_KERNELS_CPU_ADDITIVE_SCORE_H_

#include <cstddef>
#include <cstdint>

#include "kernels/operators/additive_fold.h"
#include "lamina/context.h"

namespace lamina::cpu {

using additive::kKeyLimit, additive::kQueryLimit, additive::kReciprocalCap;

struct ScoreArgs {
  size_t queries = 0, keys = 0;
  size_t units = 0;               // padded
  const float* query = nullptr;   // [queries, units], 64-byte aligned: what exp_query wrote, or a itself for tanh
  const float* key = nullptr;     // rows of `units`, 64-byte aligned: what exp_key wrote, or b itself for tanh
  const int32_t* rows = nullptr;  // [keys]: the row of each key
  const float* v = nullptr;       // [units]: c for reciprocal_quad, v for tanh
  float scale = 1, offset = 0;    // score = scale * sum + offset
  float* score = nullptr;         // [queries, keys], rows score_stride apart
  size_t score_stride = 0;
};

struct AdditiveScoreKernel {
  size_t unit_block;  // units are padded to a multiple of this: four vectors
  size_t lanes;
  // row = exp(2 row) in place; or, when a unit is beyond kKeyLimit, false and the row as it was.
  bool (*exp_key)(float* row, size_t units);
  // out = factor * exp(2 clamp(row)).
  void (*exp_query)(const float* row, const float* factor, float* out, size_t units);
  // sum = sum over units of +-1 / (c + query * key), the sign + in even vectors of units and - in odd ones.
  void (*reciprocal_quad)(const ScoreArgs&);
  // sum = sum over units of v * tanh(query + key).
  void (*tanh)(const ScoreArgs&);
};
const AdditiveScoreKernel& GetAdditiveScoreKernel(Isa isa);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_ADDITIVE_SCORE_H_
