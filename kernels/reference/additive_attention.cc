#include "reference/additive_attention.h"

#include "kernels/operators/backends.h"
#include "kernels/operators/prepared_keys.h"
#include "kernels/reference/oracle.h"

namespace lamina::oracle {
namespace {

using Op = AdditiveAttention::Base;

struct Kept {
  KeptWeights<Op> weights;
  uint64_t writer = prepared_keys::NewWriter();
};

// Prepared keys: the head, then key_w key in double.
class AdditiveAttentionKernel final : public Kernel<Op> {
 public:
  AdditiveAttentionKernel(const AdditiveAttentionDesc& desc, std::shared_ptr<const Kept> kept)
      : d_(desc), kept_(std::move(kept)) {}

  Status Run(const AdditiveAttentionTensors& t, std::byte* scratch) const override {
    const AdditiveAttentionWeights& w = kept_->weights.weights;
    auto* query_units = reinterpret_cast<double*>(scratch);
    double* key_units = query_units + d_.batch * d_.queries * d_.units;
    double* v = key_units + d_.batch * d_.keys * d_.units;
    double* attention = v + d_.units;
    double* context = attention + d_.batch * d_.queries * d_.keys;
    if (t.prepared_keys != nullptr) {
      const auto* prepared = static_cast<const std::byte*>(t.prepared_keys);
      if (Status s = prepared_keys::CheckHead(d_, kept_->writer, t.key_lengths, prepared); !s.ok()) return s;
      std::memcpy(key_units, prepared + prepared_keys::HeadBytes(d_), KeyUnits() * sizeof(double));
    } else {
      reference::ProjectKeys(d_, w, t.keys, t.key_lengths, key_units, nullptr);
    }
    reference::ProjectQueries(d_, w, t.query, query_units, nullptr);
    reference::ScoreVector(d_, w, v);
    reference::AdditiveAttention(d_, t, query_units, key_units, v, context, attention, nullptr);
    const int64_t rows = d_.batch * d_.queries, dim = d_.context_dim();
    reference::StoreRows(context, rows, dim, d_.context_stride ? d_.context_stride : dim, d_.dtype, t.context);
    if (t.weights != nullptr) reference::StoreRows(attention, rows, d_.keys, d_.keys, DType::kF32, t.weights);
    return {};
  }

  size_t scratch_bytes() const override {
    const int64_t rows = d_.batch * d_.queries;
    return (static_cast<size_t>(rows * (d_.units + d_.keys + d_.context_dim()) + d_.units) + KeyUnits()) *
           sizeof(double);
  }
  size_t packed_bytes() const override {
    size_t bytes = 0;
    for (const auto& k : kept_->weights.kept) bytes += k.size();
    return bytes;
  }
  size_t prepared_keys_bytes() const override { return prepared_keys::HeadBytes(d_) + KeyUnits() * sizeof(double); }
  Status PrepareKeys(const void* keys, const int32_t* key_lengths, std::byte* prepared, std::byte*) const override {
    prepared_keys::WriteHead(d_, kept_->writer, key_lengths, prepared);
    auto* key_units = reinterpret_cast<double*>(prepared + prepared_keys::HeadBytes(d_));
    std::fill_n(key_units, KeyUnits(), 0.0);
    reference::ProjectKeys(d_, kept_->weights.weights, keys, key_lengths, key_units, nullptr);
    return {};
  }
  Result<std::shared_ptr<const Kernel>> Reshape(const AdditiveAttentionDesc& desc) const override {
    return std::shared_ptr<const Kernel>(std::make_shared<AdditiveAttentionKernel>(desc, kept_));
  }

 private:
  size_t KeyUnits() const { return static_cast<size_t>(d_.batch * d_.keys * d_.units); }

  AdditiveAttentionDesc d_;
  std::shared_ptr<const Kept> kept_;
};

Result<std::shared_ptr<const Kernel<Op>>> PrepareNaive(const AdditiveAttentionDesc& d,
                                                       const AdditiveAttentionWeights& weights, const Context&) {
  auto kept = std::make_shared<Kept>();
  AdditiveAttentionWeights& w = kept->weights.weights = weights;
  auto& copies = kept->weights.kept;
  Keep(w.query_w, d.units * d.query_dim, d.dtype, copies);
  Keep(w.key_w, d.units * d.key_dim, d.dtype, copies);
  Keep(w.bias, d.units, d.dtype, copies);
  Keep(w.v, d.units, d.dtype, copies);
  Keep(w.g, 1, d.dtype, copies);
  return std::shared_ptr<const Kernel<Op>>(std::make_shared<AdditiveAttentionKernel>(d, std::move(kept)));
}

constexpr Candidate<Op> kCandidates[] = {
    {"naive",
     [](const AdditiveAttentionDesc& d, const Context&) { return Accepted(static_cast<double>(CostOf(d).macs)); },
     &PrepareNaive}};

}  // namespace

CandidateList<Op> AdditiveAttentionCandidates() { return kCandidates; }

}  // namespace lamina::oracle
