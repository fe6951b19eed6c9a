#include "reference/additive_attention.h"

#include <algorithm>
#include <cmath>

#include "reference/element.h"

namespace lamina::reference {
namespace {

// projected[r, u] = bias[u] + sum_i w[u, i] * x[r, i] for `rows` rows `stride` apart from row `first` on.
void Project(DType dtype, int64_t first, int64_t rows, int64_t dim, int64_t stride, int64_t units, const void* x,
             const void* w, const void* bias, double* projected, double* magnitude) {
  for (int64_t r = first; r < first + rows; ++r) {
    for (int64_t u = 0; u < units; ++u) {
      double sum = bias != nullptr ? Load(bias, dtype, u) : 0.0, abs_sum = std::fabs(sum);
      for (int64_t i = 0; i < dim; ++i) {
        const double term = Load(w, dtype, u * dim + i) * Load(x, dtype, r * stride + i);
        sum += term;
        abs_sum += std::fabs(term);
      }
      projected[r * units + u] = sum;
      if (magnitude != nullptr) magnitude[r * units + u] = abs_sum;
    }
  }
}

}  // namespace

void ProjectQueries(const AdditiveAttentionDesc& d, const AdditiveAttentionWeights& w, const void* query,
                    double* projected, double* magnitude) {
  Project(d.dtype, 0, d.batch * d.queries, d.query_dim, d.query_stride ? d.query_stride : d.query_dim, d.units, query,
          w.query_w, d.bias ? w.bias : nullptr, projected, magnitude);
}

void ProjectKeys(const AdditiveAttentionDesc& d, const AdditiveAttentionWeights& w, const void* keys,
                 const int32_t* key_lengths, double* projected, double* magnitude) {
  for (int64_t b = 0; b < d.batch; ++b) {
    Project(d.dtype, b * d.keys, key_lengths != nullptr ? key_lengths[b] : d.keys, d.key_dim,
            d.key_stride ? d.key_stride : d.key_dim, d.units, keys, w.key_w, nullptr, projected, magnitude);
  }
}

void ScoreVector(const AdditiveAttentionDesc& d, const AdditiveAttentionWeights& w, double* v) {
  double squares = 0;
  for (int64_t u = 0; u < d.units; ++u) {
    v[u] = Load(w.v, d.dtype, u);
    squares += v[u] * v[u];
  }
  if (!d.normalized) return;
  const double scale = Load(w.g, d.dtype, 0) / std::sqrt(squares);
  for (int64_t u = 0; u < d.units; ++u) v[u] *= scale;
}

bool IsLive(const AdditiveAttentionDesc& d, const AdditiveAttentionTensors& t, int64_t b, int64_t i, int64_t j) {
  if (t.key_lengths != nullptr && j >= t.key_lengths[b]) return false;
  return !d.mask || t.mask[(b * d.mask_queries + (d.mask_queries == 1 ? 0 : i)) * d.keys + j];
}

void AdditiveAttention(const AdditiveAttentionDesc& d, const AdditiveAttentionTensors& t, const double* query_units,
                       const double* key_units, const double* v, double* context, double* attention,
                       double* magnitude) {
  const int64_t dim = d.context_dim();
  const void* values = d.value_dim ? t.values : t.keys;
  const int64_t asked_stride = d.value_dim ? d.value_stride : d.key_stride, stride = asked_stride ? asked_stride : dim;
  for (int64_t b = 0; b < d.batch; ++b) {
    for (int64_t i = 0; i < d.queries; ++i) {
      const int64_t row = b * d.queries + i;
      double* weight = attention + row * d.keys;
      double most = -INFINITY;
      for (int64_t j = 0; j < d.keys; ++j) {
        weight[j] = 0;
        if (!IsLive(d, t, b, i, j)) continue;
        const double *a = query_units + row * d.units, *k = key_units + (b * d.keys + j) * d.units;
        for (int64_t u = 0; u < d.units; ++u) weight[j] += v[u] * std::tanh(a[u] + k[u]);
        most = std::max(most, weight[j]);
      }
      double sum = 0;
      for (int64_t j = 0; j < d.keys; ++j) {
        if (!IsLive(d, t, b, i, j)) continue;
        weight[j] = std::exp(weight[j] - most);
        sum += weight[j];
      }
      std::fill_n(context + row * dim, dim, 0.0);
      if (magnitude != nullptr) std::fill_n(magnitude + row * dim, dim, 0.0);
      for (int64_t j = 0; j < d.keys; ++j) {
        if (!IsLive(d, t, b, i, j)) continue;
        weight[j] /= sum;
        for (int64_t c = 0; c < dim; ++c) {
          const double term = weight[j] * Load(values, d.dtype, (b * d.keys + j) * stride + c);
          context[row * dim + c] += term;
          if (magnitude != nullptr) magnitude[row * dim + c] += std::fabs(term);
        }
      }
    }
  }
}

}  // namespace lamina::reference
