#include "kernels/cpu/additive_pack.h"

#include <algorithm>
#include <string>

#include "kernels/operators/packing.h"
#include "kernels/operators/prepared_keys.h"

namespace lamina::cpu {
namespace {

// w [units, dim] and bias [units], each row times its sign, packed.
Result<PackedMatrix> PackSigned(Isa isa, int64_t m, int64_t units, int64_t dim, const void* w, const void* bias,
                                const float* sign) {
  if (packing::Loading()) return PackedMatrix::Pack(isa, MatMulKernel(isa, m), dim, units, nullptr, dim, 1, nullptr);
  const AlignedBuffer copy(static_cast<size_t>(units * (dim + 1)) * sizeof(float));
  if (copy.data() == nullptr) return Status{StatusCode::kOutOfMemory, "no memory to pack weights"};
  auto *signed_w = copy.as<float>(), *signed_bias = signed_w + units * dim;
  for (int64_t u = 0; u < units; ++u) {
    for (int64_t i = 0; i < dim; ++i) signed_w[u * dim + i] = sign[u] * static_cast<const float*>(w)[u * dim + i];
    signed_bias[u] = bias != nullptr ? sign[u] * static_cast<const float*>(bias)[u] : 0.0f;
  }
  return PackedMatrix::Pack(isa, MatMulKernel(isa, m), dim, units, signed_w, dim, 1, signed_bias);
}

// v' [units] in double precision and the units' signs, on the way to p.vectors.
void FoldVectors(const AdditiveAttentionDesc& d, const AdditiveAttentionWeights& w, double* v, float* sign,
                 AdditivePacked& p) {
  const auto count = static_cast<size_t>(d.units);
  std::copy_n(static_cast<const float*>(w.v), count, v);
  const double g = d.normalized ? double{*static_cast<const float*>(w.g)} : 1.0;
  additive::Normalize(d.normalized ? &g : nullptr, count, v);
  additive::Fold fold{p.v(), p.c(), p.factor(), sign, 1, 0};
  if (p.form == AdditiveForm::kReciprocalQuad) {
    additive::FoldVector(v, count, p.units, p.score->lanes, fold);
  } else {
    std::fill_n(p.v(), 3 * p.units, 0.0f);
    std::copy_n(v, count, p.v());
    std::fill_n(sign, p.units, 1.0f);
  }
  p.vectors.as<float>()[3 * p.units] = fold.scale;
  p.vectors.as<float>()[3 * p.units + 1] = fold.offset;
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
  p.vectors = packing::Part((3 * p.units + 2) * sizeof(float));
  const AlignedBuffer v(count * sizeof(double)), sign(p.units * sizeof(float));
  if (p.vectors.data() == nullptr || v.data() == nullptr || sign.data() == nullptr) {
    return Status{StatusCode::kOutOfMemory, ToString(d) + ": no memory to pack weights"};
  }
  if (!packing::Loading()) FoldVectors(d, w, v.as<double>(), sign.as<float>(), p);
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
