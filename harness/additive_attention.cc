#include "harness/additive_attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "reference/additive_attention.h"
#include "reference/element.h"

namespace lamina::harness {
namespace {

using Desc = AdditiveAttentionDesc;

// Elements that rows of a slice span: the last row has no gap behind it.
int64_t SliceSize(int64_t rows, int64_t row, int64_t stride) {
  return rows == 0 ? 0 : (rows - 1) * (stride ? stride : row) + row;
}

// Powers of two in the exact fill, where the weights must come out exact.
int64_t LiveCount(int64_t count, bool exact) {
  return exact ? static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(count))) : count;
}

// One row of a mask over `length` keys: some of them kept, now and then none or all.
void FillMaskRow(TensorStore& store, bool exact, int64_t length, char* row) {
  const int64_t kind = store.RandomBelow(8);
  int64_t kept = 0;
  for (int64_t j = 0; j < length; ++j) {
    row[j] = kind == 0 ? 0 : kind == 1 ? 1 : store.RandomBelow(10) < 7;
    kept += row[j];
  }
  for (int64_t j = length - 1, surplus = kept - LiveCount(kept, exact); surplus > 0; --j) {
    surplus -= row[j];
    row[j] = 0;
  }
}

}  // namespace

Case<AdditiveAttention>::Case(const Desc& d, TensorStore& store) : desc_(d) {
  const bool exact = store.fill() == Fill::kExact;
  const auto spread = [](int64_t terms) { return 1 / std::sqrt(static_cast<double>(terms)); };
  const auto zeros = [&](int64_t count) {
    return store.Input(std::vector<std::byte>(static_cast<size_t>(count) * SizeOf(d.dtype)));
  };
  weights.query_w = store.Input(d.dtype, d.units * d.query_dim, spread(d.query_dim));
  weights.key_w = store.Input(d.dtype, d.units * d.key_dim, spread(d.key_dim));
  if (d.bias) weights.bias = store.Input(d.dtype, d.units, 0.3);
  // v' is zero in the exact fill: v itself or, where that would be divided by its norm, g.
  if (exact && !d.normalized) {
    weights.v = zeros(d.units);
  } else {
    weights.v = store.Input(d.dtype, d.units, 2 * spread(d.units));
  }
  if (d.normalized && exact) weights.g = zeros(1);
  if (d.normalized && !exact) weights.g = store.Input(d.dtype, 1, 2.0);

  std::vector<int32_t> lengths(static_cast<size_t>(d.batch), static_cast<int32_t>(d.keys));
  if (!store.plain() && (store.RandomBelow(2) == 0 || (exact && !d.mask))) {
    for (int32_t& l : lengths) {
      l = static_cast<int32_t>(store.RandomBelow(4) == 0 ? d.keys : store.RandomBelow(d.keys + 1));
      if (!d.mask) l = static_cast<int32_t>(LiveCount(l, exact));
    }
    tensors.key_lengths = store.Input(lengths);
  }
  std::vector<char> mask(static_cast<size_t>(d.mask ? d.batch * d.mask_queries * d.keys : 0));
  for (int64_t r = 0; d.mask && r < d.batch * d.mask_queries; ++r) {
    FillMaskRow(store, exact, lengths[static_cast<size_t>(r / d.mask_queries)], mask.data() + r * d.keys);
  }
  static_assert(sizeof(bool) == sizeof(char));
  if (d.mask) tensors.mask = reinterpret_cast<const bool*>(store.Input(mask));

  tensors.query = store.Input(d.dtype, SliceSize(d.batch * d.queries, d.query_dim, d.query_stride));
  void* keys = store.Input(d.dtype, SliceSize(d.batch * d.keys, d.key_dim, d.key_stride));
  void* values = d.value_dim ? store.Input(d.dtype, SliceSize(d.batch * d.keys, d.value_dim, d.value_stride)) : nullptr;
  const auto set_nan = [&](void* data, int64_t row, int64_t dim, int64_t stride) {
    const int64_t first = row * (stride ? stride : dim);
    for (int64_t i = 0; i < dim; ++i) reference::Store(NAN, d.dtype, data, first + i);
  };
  for (int64_t b = 0; b < d.batch; ++b) {
    for (int64_t j = 0; j < d.keys; ++j) {
      bool live = false;
      for (int64_t i = 0; i < d.mask_queries; ++i) live |= reference::IsLive(d, tensors, b, i, j);
      if (live) continue;
      set_nan(keys, b * d.keys + j, d.key_dim, d.key_stride);
      if (values != nullptr) set_nan(values, b * d.keys + j, d.value_dim, d.value_stride);
    }
  }
  tensors.keys = keys;
  tensors.values = values;
  tensors.context = store.Output(d.dtype, SliceSize(d.batch * d.queries, d.context_dim(), d.context_stride));
  if (!store.plain() && store.RandomBelow(4) != 0) tensors.weights = store.Output(d.batch * d.queries * d.keys);
}

// The bound. u = 2^-24, K the terms of a dot product, D = 4 u sqrt(K) S its bound (compare.h), S its sum of |terms|.
//
// Unit by unit, z = a + b is off by delta = D(query_dim + 1) + D(key_dim), and tanh z by delta times its greatest slope
// nearby, min(1, 1 - tanh(z)^2 + delta). The dot products of different units are independent, so a score is off by the
// root of the sum of squares of v' times that. Its own evaluation adds D(units) of sum|v'| for the sum, 16 u sum|v'|
// for exponentials, division and the rounding of v' (each term is off by a few u of itself), and 2^-30 max|v'| a unit
// for what the reciprocal form gives up to keep products finite (kernels/cpu/additive_score.h):
//   d_j = sqrt(sum_u (v'_u slope_u delta_u)^2) + (4 sqrt(units) + 16) u V + 2^-30 units max|v'|,  V = sum|v'|
// A weight is p_j = exp(s_j) / sum_k exp(s_k). Errors d move it by a factor of at most exp(d_j + sum_k p_k d_k), the
// exponent's rounding by u (|s_j - max| + 2), its evaluation by 4 u, the sum over n keys by 4 u sqrt(n), the division
// by 2 u; below 2^-126 it may be flushed. The context is off by what its weights are, and as a dot product:
//   e_j = p_j (expm1(d_j + sum_k p_k d_k) + u (|s_j - max| + 4 sqrt(n) + 8)) + 2^-126
//   E_c = sum_j e_j |value_jc| + D(n)
// A zero v' gives s = 0 and p = 1 / n: exact when n is a power of two, and so is then the context of integers.
std::vector<Expected> Case<AdditiveAttention>::ExpectAdditiveAttention(const Desc& d,
                                                                       const AdditiveAttentionWeights& weights,
                                                                       const AdditiveAttentionTensors& tensors) {
  const int64_t rows = d.batch * d.queries, dim = d.context_dim();
  const auto doubles = [](int64_t count) { return std::vector<double>(static_cast<size_t>(count)); };
  auto query_units = doubles(rows * d.units), query_magnitude = query_units;
  auto key_units = doubles(d.batch * d.keys * d.units), key_magnitude = key_units;
  auto v = doubles(d.units), magnitude = doubles(rows * dim);
  reference::ProjectQueries(d, weights, tensors.query, query_units.data(), query_magnitude.data());
  reference::ProjectKeys(d, weights, tensors.keys, tensors.key_lengths, key_units.data(), key_magnitude.data());
  reference::ScoreVector(d, weights, v.data());
  Expected context{"context",           tensors.context,    rows, dim, d.context_stride ? d.context_stride : dim,
                   doubles(rows * dim), doubles(rows * dim)};
  Expected attention{"weights", tensors.weights, rows, d.keys, d.keys, doubles(rows * d.keys), doubles(rows * d.keys)};
  reference::AdditiveAttention(d, tensors, query_units.data(), key_units.data(), v.data(), context.want.data(),
                               attention.want.data(), magnitude.data());

  const double u = kUnitRoundoff;
  double sum_v = 0, max_v = 0;
  for (double x : v) {
    sum_v += std::fabs(x);
    max_v = std::max(max_v, std::fabs(x));
  }
  const double evaluation =
      (4 * std::sqrt(static_cast<double>(d.units)) + 16) * u * sum_v + 0x1p-30 * static_cast<double>(d.units) * max_v;
  const void* values = d.value_dim ? tensors.values : tensors.keys;
  const int64_t asked_stride = d.value_dim ? d.value_stride : d.key_stride, stride = asked_stride ? asked_stride : dim;
  auto off = doubles(d.keys);  // d_j
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t b = row / d.queries, i = row % d.queries;
    const double* p = attention.want.data() + row * d.keys;
    double most = 0, mean_off = 0;
    int64_t live = 0;
    for (int64_t j = 0; j < d.keys; ++j) {
      if (!reference::IsLive(d, tensors, b, i, j)) continue;
      ++live;
      double squares = 0;
      for (int64_t n = 0; n < d.units; ++n) {
        const int64_t at_query = row * d.units + n, at_key = (b * d.keys + j) * d.units + n;
        const double delta =
            DotTolerance(d.query_dim + 1, query_magnitude[at_query]) + DotTolerance(d.key_dim, key_magnitude[at_key]);
        const double t = std::tanh(query_units[at_query] + key_units[at_key]);
        const double term = v[n] * std::min(1.0, 1 - t * t + delta) * std::min(delta, 2.0);
        squares += term * term;
      }
      off[j] = std::sqrt(squares) + evaluation;
      most = std::max(most, p[j]);
      mean_off += p[j] * off[j];
    }
    const bool exact = sum_v == 0 && std::has_single_bit(static_cast<uint64_t>(live));
    const double own = u * (4 * std::sqrt(static_cast<double>(live)) + 8);
    for (int64_t j = 0; j < d.keys; ++j) {
      if (!reference::IsLive(d, tensors, b, i, j)) continue;
      const double below = p[j] > 0 ? std::log(most / p[j]) : 0;  // |s_j - max|
      double e = exact ? 0 : p[j] * (std::expm1(off[j] + mean_off) + own + u * below) + 0x1p-126;
      if (!(e < 1)) e = 1;  // weights lie in [0, 1]; infinite or 0 * infinity where v' is enormous
      attention.tolerance[row * d.keys + j] = e;
      for (int64_t c = 0; c < dim; ++c) {
        const double value = reference::Load(values, d.dtype, (b * d.keys + j) * stride + c);
        context.tolerance[row * dim + c] += e * std::fabs(value);
      }
    }
    for (int64_t c = 0; c < dim && !exact; ++c) {
      context.tolerance[row * dim + c] += DotTolerance(live, magnitude[row * dim + c]);
    }
  }
  RoundTo(d.dtype, context);
  std::vector<Expected> expected;
  expected.push_back(std::move(context));
  if (tensors.weights != nullptr) expected.push_back(std::move(attention));
  return expected;
}

Status Case<AdditiveAttention>::RunOnce(const AdditiveAttention& op, const AdditiveAttentionTensors& t, void* scratch) {
  const Desc& d = op.desc();
  if (Status s = op.Run(t, scratch); !s.ok() || d.batch == 0 || d.queries == 0) return s;
  if (Status s = WaitForGpu(); !s.ok()) return s;
  const size_t context_bytes =
      static_cast<size_t>(SliceSize(d.batch * d.queries, d.context_dim(), d.context_stride)) * SizeOf(d.dtype);
  const size_t weight_bytes =
      t.weights != nullptr ? static_cast<size_t>(d.batch * d.queries * d.keys) * sizeof(float) : 0;
  std::vector<std::byte> context(context_bytes), attention(weight_bytes);
  std::memcpy(context.data(), t.context, context_bytes);
  if (weight_bytes > 0) std::memcpy(attention.data(), t.weights, weight_bytes);

  const auto prepared = GuardedScratch(op.prepared_keys_bytes());
  if (Status s = op.PrepareKeys(t.keys, t.key_lengths, prepared->data(), scratch); !s.ok()) return s;
  prepared->Protect();
  AdditiveAttentionTensors with = t;
  with.prepared_keys = prepared->data();
  if (d.value_dim > 0) with.keys = nullptr;
  if (Status s = op.Run(with, scratch); !s.ok()) return s;
  if (Status s = WaitForGpu(); !s.ok()) return s;
  if (std::memcmp(context.data(), t.context, context_bytes) != 0 ||
      (weight_bytes > 0 && std::memcmp(attention.data(), t.weights, weight_bytes) != 0)) {
    return InvalidArgument(ToString(d) + ": prepared keys give other bits than keys");
  }
  return {};
}

}  // namespace lamina::harness
