#include "kernels/cpu/additive_pack.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/operators/prepared_keys.h"

namespace lamina::cpu {
namespace {

// v' in double.
void ScoreVector(const AdditiveAttentionDesc& d, const AdditiveAttentionWeights& w, double* v) {
  const auto* raw = static_cast<const float*>(w.v);
  double squares = 0;
  for (int64_t u = 0; u < d.units; ++u) squares += double{raw[u]} * raw[u];
  const double scale = d.normalized ? double{*static_cast<const float*>(w.g)} / std::sqrt(squares) : 1.0;
  for (int64_t u = 0; u < d.units; ++u) v[u] = scale * raw[u];
}

// Fills v, c and factor of the reciprocal form, and the sign that each unit's projections take: sign * v' is positive
// in even vectors of units and negative in odd ones.
void FoldVector(const double* v, size_t count, AdditivePacked& p, float* sign) {
  double most = 0, offset = 0;
  for (size_t u = 0; u < count; ++u) most = std::max(most, std::fabs(v[u]));
  for (size_t u = 0; u < p.units; ++u) {
    const double alternating = u / p.score->lanes % 2 == 0 ? 1 : -1, value = u < count ? v[u] : 0.0;
    sign[u] = static_cast<float>(value < 0 ? -alternating : alternating);
    p.v()[u] = static_cast<float>(alternating * std::fabs(value));
    offset -= p.v()[u];
    // A unit of no weight, or of less than 2^-30 of the greatest, is a constant and cancels. NaN is kept.
    const bool none = value == 0 || std::fabs(value) < 0x1p-30 * most;
    p.c()[u] = none ? kReciprocalCap : static_cast<float>(most / std::fabs(value));
    p.factor()[u] = none ? 0.0f : p.c()[u];
  }
  p.scale = static_cast<float>(-2 * most);
  p.offset = static_cast<float>(offset);
}

// w [units, dim] and bias [units], each row times its sign, packed.
Result<PackedMatrix> PackSigned(Isa isa, int64_t m, int64_t units, int64_t dim, const void* w, const void* bias,
                                const float* sign) {
  const AlignedBuffer copy(static_cast<size_t>(units * (dim + 1)) * sizeof(float));
  if (copy.data() == nullptr) return Status{StatusCode::kOutOfMemory, "no memory to pack weights"};
  auto *signed_w = copy.as<float>(), *signed_bias = signed_w + units * dim;
  for (int64_t u = 0; u < units; ++u) {
    for (int64_t i = 0; i < dim; ++i) signed_w[u * dim + i] = sign[u] * static_cast<const float*>(w)[u * dim + i];
    signed_bias[u] = bias != nullptr ? sign[u] * static_cast<const float*>(bias)[u] : 0.0f;
  }
  return PackedMatrix::Pack(isa, MatMulKernel(isa, m), dim, units, signed_w, dim, 1, signed_bias);
}

}  // namespace

Result<std::shared_ptr<const AdditivePacked>> PackAdditive(AdditiveForm form, Isa isa, const AdditiveAttentionDesc& d,
                                                           const AdditiveAttentionWeights& w) {
  auto packed = std::make_shared<AdditivePacked>();
  AdditivePacked& p = *packed;
  p.score = &GetAdditiveScoreKernel(isa);
  p.context = &GetAdditiveContextKernel(isa);
  p.form = form;
  p.writer = prepared_keys::NewWriter();
  const auto count = static_cast<size_t>(d.units);
  p.units = RoundUp(count, p.score->unit_block);
  p.vectors = AlignedBuffer(3 * p.units * sizeof(float));
  const AlignedBuffer v(count * sizeof(double)), sign(p.units * sizeof(float));
  if (p.vectors.data() == nullptr || v.data() == nullptr || sign.data() == nullptr) {
    return Status{StatusCode::kOutOfMemory, ToString(d) + ": no memory to pack weights"};
  }
  ScoreVector(d, w, v.as<double>());
  if (form == AdditiveForm::kReciprocalQuad) {
    FoldVector(v.as<double>(), count, p, sign.as<float>());
  } else {
    std::fill_n(p.v(), 3 * p.units, 0.0f);
    std::copy_n(v.as<double>(), count, p.v());
    std::fill_n(sign.as<float>(), p.units, 1.0f);
  }
  auto query_w = PackSigned(isa, d.batch * d.queries, d.units, d.query_dim, w.query_w, d.bias ? w.bias : nullptr,
                            sign.as<float>());
  if (!query_w.ok()) return query_w.status();
  auto key_w = PackSigned(isa, d.batch * d.keys, d.units, d.key_dim, w.key_w, nullptr, sign.as<float>());
  if (!key_w.ok()) return key_w.status();
  p.query_w = std::move(*query_w);
  p.key_w = std::move(*key_w);
  return std::shared_ptr<const AdditivePacked>(std::move(packed));
}

}  // namespace lamina::cpu
