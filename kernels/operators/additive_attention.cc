// What is true of additive_attention on any backend: its rules, its text, its cost.
#include "lamina/additive_attention.h"

#include <algorithm>

#include "kernels/operators/backends.h"
#include "kernels/operators/prepare.h"
#include "kernels/operators/prepared_keys.h"
#include "kernels/operators/rules.h"

namespace lamina {

template <>
struct Fields<AdditiveAttentionDesc> {
  static constexpr const char* kName = "additive_attention";
  template <class V>
  static void Visit(V&& v) {
    using D = AdditiveAttentionDesc;
    using enum FieldKind;
    v("batch", &D::batch, kRunTime);
    v("queries", &D::queries, kRunTime);
    v("keys", &D::keys, kRunTime);
    v("query_dim", &D::query_dim, kFixed);
    v("key_dim", &D::key_dim, kFixed);
    v("units", &D::units, kFixed);
    v("value_dim", &D::value_dim, kFixed);
    v("bias", &D::bias, kFixed);
    v("normalized", &D::normalized, kFixed);
    v("mask", &D::mask, kRunTime);
    v("mask_queries", &D::mask_queries, kRunTime);
    v("dtype", &D::dtype, kFixed);
    v("query_stride", &D::query_stride, kRunTime);
    v("key_stride", &D::key_stride, kRunTime);
    v("value_stride", &D::value_stride, kRunTime);
    v("context_stride", &D::context_stride, kRunTime);
  }
};

Status AdditiveAttentionDesc::Validate() const {
  const AdditiveAttentionDesc& d = *this;
  if (batch < 0 || queries < 0 || keys < 0) {
    return Refuse(d, "batch, queries and keys must not be negative",
                  {{"batch", batch}, {"queries", queries}, {"keys", keys}});
  }
  if (query_dim < 1 || key_dim < 1 || units < 1) {
    return Refuse(d, "query_dim, key_dim and units must be at least 1",
                  {{"query_dim", query_dim}, {"key_dim", key_dim}, {"units", units}});
  }
  if (value_dim < 0) {
    return Refuse(d, "value_dim must not be negative (0: the values are the keys)", {{"value_dim", value_dim}});
  }
  if (std::max({queries, keys, query_dim, key_dim, units, value_dim}) >= int64_t{1} << 31) {
    return Refuse(d, "every size but batch must be less than 2^31");
  }
  if (mask_queries != 1 && !(mask && mask_queries == queries)) {
    return Refuse(d, mask ? "mask_queries must be 1 or queries" : "mask_queries must be 1 without a mask",
                  {{"mask_queries", mask_queries}, {"queries", queries}});
  }
  if (Status s = ValidateEnums(d, dtype); !s.ok()) return s;
  if (value_dim == 0 && value_stride != 0) {
    return Refuse(d, "value_stride must be 0 when the values are the keys", {{"value_stride", value_stride}});
  }
  if ((query_stride != 0 && query_stride < query_dim) || (key_stride != 0 && key_stride < key_dim) ||
      (value_stride != 0 && value_stride < value_dim) || (context_stride != 0 && context_stride < context_dim())) {
    return Refuse(d, "a row stride must be 0 or at least the row's elements",
                  {{"query_stride", query_stride},
                   {"key_stride", key_stride},
                   {"value_stride", value_stride},
                   {"context_stride", context_stride}});
  }
  const int64_t pairs = CheckedProduct({batch, queries, keys});
  if (pairs < 0 ||
      CheckedProduct({batch, queries, std::max({query_dim, query_stride, context_dim(), context_stride})}) < 0 ||
      CheckedProduct({batch, keys, std::max({key_dim, key_stride, value_dim, value_stride})}) < 0 ||
      CheckedProduct({batch, keys, units}) < 0 || CheckedProduct({batch, queries, units}) < 0 ||
      CheckedProduct({units, std::max(query_dim, key_dim)}) < 0) {
    return Refuse(d, "the size of a tensor overflows");
  }
  if (CheckedProduct({pairs, units + context_dim()}) < 0 || CheckedProduct({batch, queries, query_dim, units}) < 0 ||
      CheckedProduct({batch, keys, key_dim, units}) < 0) {
    return Refuse(d, "the count of multiply-accumulates overflows");
  }
  return {};
}

std::string ToString(const AdditiveAttentionDesc& d) { return text::Print(d); }
Result<AdditiveAttentionDesc> ParseAdditiveAttention(std::string_view t) {
  return text::Read<AdditiveAttentionDesc>(t);
}

Cost CostOf(const AdditiveAttentionDesc& d) {
  const int64_t query_rows = d.batch * d.queries, key_rows = d.batch * d.keys, pairs = query_rows * d.keys;
  const auto element = static_cast<int64_t>(SizeOf(d.dtype));
  Cost c;
  c.macs = query_rows * d.query_dim * d.units + key_rows * d.key_dim * d.units + pairs * (d.units + d.context_dim());
  c.transcendentals = pairs * (d.units + 1) + query_rows;  // tanh, exp, and one division a row
  c.params = d.units * (d.query_dim + d.key_dim + 1 + (d.bias ? 1 : 0)) + (d.normalized ? 1 : 0);
  c.weight_bytes = c.params * element;
  c.activation_bytes = (query_rows * (d.query_dim + d.context_dim()) + key_rows * (d.key_dim + d.value_dim)) * element +
                       (d.mask ? d.batch * d.mask_queries * d.keys : 0);
  return c;
}

namespace {

Status CheckPreparedAlignment(const AdditiveAttentionDesc& d, const void* prepared_keys) {
  const auto remainder = static_cast<int64_t>(reinterpret_cast<uintptr_t>(prepared_keys) % kScratchAlignment);
  if (remainder == 0) return {};
  return Refuse(d, "prepared_keys must lie at a multiple of 64 bytes", {{"remainder", remainder}});
}

}  // namespace

template <>
struct Traits<AdditiveAttention::Base> {
  using D = AdditiveAttentionDesc;
  static CandidateList<AdditiveAttention::Base> Offered(Backend backend) {
    return OfferedBy(backend, cpu::AdditiveAttentionCandidates, oracle::AdditiveAttentionCandidates,
                     cuda::AdditiveAttentionCandidates);
  }
  static Status CheckWeights(const D& d, const AdditiveAttentionWeights& w) {
    if (w.query_w == nullptr) return Refuse(d, "weights.query_w must not be null");
    if (w.key_w == nullptr) return Refuse(d, "weights.key_w must not be null");
    if (w.v == nullptr) return Refuse(d, "weights.v must not be null");
    if (d.bias && w.bias == nullptr) return Refuse(d, "weights.bias must not be null when bias=1");
    if (d.normalized && w.g == nullptr) return Refuse(d, "weights.g must not be null when normalized=1");
    return {};
  }
  static Status CheckTensors(const D& d, const AdditiveAttentionTensors& t) {
    if (t.query == nullptr) return Refuse(d, "query must not be null");
    if (t.context == nullptr) return Refuse(d, "context must not be null");
    if (t.keys == nullptr && d.keys > 0 && !(t.prepared_keys != nullptr && d.value_dim > 0)) {
      return Refuse(d, "keys must not be null without prepared_keys and separate values");
    }
    if (d.value_dim > 0 && t.values == nullptr && d.keys > 0) {
      return Refuse(d, "values must not be null when value_dim is not 0");
    }
    if (d.value_dim == 0 && t.values != nullptr)
      return Refuse(d, "values must be null when value_dim=0: the keys serve");
    if (d.mask && t.mask == nullptr && d.keys > 0) return Refuse(d, "mask must not be null when mask=1");
    if (!d.mask && t.mask != nullptr) return Refuse(d, "mask must be null when mask=0");
    return CheckPreparedAlignment(d, t.prepared_keys);
  }
  static Status CheckLengths(const D& d, const AdditiveAttentionTensors& t) {
    return prepared_keys::CheckLengths(d, t.key_lengths);
  }
  static bool IsEmpty(const D& d) { return d.batch == 0 || d.queries == 0; }
};

template class Operator<AdditiveAttentionDesc, AdditiveAttentionWeights, AdditiveAttentionTensors>;

Result<AdditiveAttention> AdditiveAttention::Prepare(const Desc& desc, const Weights& weights, const Context& context) {
  Result<Base> base = Base::Prepare(desc, weights, context);
  if (!base.ok()) return base.status();
  return AdditiveAttention(std::move(*base));
}

Result<AdditiveAttention> AdditiveAttention::LoadPacked(const std::string& path, const Context& context) {
  Result<Base> base = Base::LoadPacked(path, context);
  if (!base.ok()) return base.status();
  return AdditiveAttention(std::move(*base));
}

Result<AdditiveAttention> AdditiveAttention::Reshape(const Desc& desc) const {
  Result<Base> base = Base::Reshape(desc);
  if (!base.ok()) return base.status();
  return AdditiveAttention(std::move(*base));
}

size_t AdditiveAttention::prepared_keys_bytes() const { return state_->kernel->prepared_keys_bytes(); }

Status AdditiveAttention::PrepareKeys(const void* keys, const int32_t* key_lengths, void* prepared_keys,
                                      void* scratch) const {
  const State& s = *state_;
  if (s.desc.batch == 0) return {};
  return verbose::Doing(verbose::Event::kPrepareKeys, *this, [&]() -> Status {
    if (keys == nullptr && s.desc.keys > 0) return Refuse(s.desc, "keys must not be null");
    if (prepared_keys == nullptr) return Refuse(s.desc, "prepared_keys must not be null");
    if (Status status = CheckPreparedAlignment(s.desc, prepared_keys); !status.ok()) return status;
    if (s.context.backend != Backend::kCuda) {
      if (Status status = prepared_keys::CheckLengths(s.desc, key_lengths); !status.ok()) return status;
    }
    return WithScratch(s.desc, s.context.backend, s.kernel->scratch_bytes(), scratch, [&](std::byte* memory) {
      return s.kernel->PrepareKeys(keys, key_lengths, static_cast<std::byte*>(prepared_keys), memory);
    });
  });
}

}  // namespace lamina
