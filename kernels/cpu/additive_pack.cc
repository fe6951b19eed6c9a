#include "kernels/cpu/additive_pack.h"

#include <algorithm>
#include <string>

#include "kernels/operators/prepared_keys.h"

namespace lamina::cpu {
namespace {

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
  std::copy_n(static_cast<const float*>(w.v), count, v.as<double>());
  const double g = d.normalized ? double{*static_cast<const float*>(w.g)} : 1.0;
  additive::Normalize(d.normalized ? &g : nullptr, count, v.as<double>());
  if (form == AdditiveForm::kReciprocalQuad) {
    additive::Fold fold{p.v(), p.c(), p.factor(), sign.as<float>(), 1, 0};
    additive::FoldVector(v.as<double>(), count, p.units, p.score->lanes, fold);
    p.scale = fold.scale;
    p.offset = fold.offset;
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
