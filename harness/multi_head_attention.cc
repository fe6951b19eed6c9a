#include "harness/multi_head_attention.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "reference/element.h"
#include "reference/multi_head_attention.h"

namespace lamina::harness {
namespace {

using Desc = MultiHeadAttentionDesc;

void* Zeros(TensorStore& store, DType dtype, int64_t count) {
  return store.Input(std::vector<std::byte>(static_cast<size_t>(count) * SizeOf(dtype)));
}

// Rows from `first` on of every batch element's k or v.
void SetRows(void* data, DType dtype, const AttentionStrides& s, int64_t b, int64_t first, int64_t last, int64_t heads,
             int64_t dim, double value) {
  for (int64_t j = first; j < last; ++j) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t c = 0; c < dim; ++c) {
        reference::Store(value, dtype, data, b * s.batch + j * s.row + h * s.head + c);
      }
    }
  }
}

// The rows that a cache holds before a call: integers that depend on their place alone.
void FillPast(const Desc& d, const MultiHeadAttentionTensors& t) {
  if (t.k_cache == nullptr) return;
  const int64_t rows = d.memory_dim != 0 && t.memory == nullptr ? d.seqlen_kv : t.position;
  const auto fill = [&](void* cache, const AttentionStrides& s, int64_t dim, uint64_t salt) {
    for (int64_t b = 0; b < d.batch; ++b) {
      for (int64_t j = 0; j < rows; ++j) {
        for (int64_t h = 0; h < d.kv_heads(); ++h) {
          for (int64_t c = 0; c < dim; ++c) {
            const auto place = static_cast<uint64_t>(((b * d.seqlen_kv + j) * d.kv_heads() + h) * dim + c) + salt;
            const auto integer = static_cast<int>((place * 0x9e3779b97f4a7c15u) >> 61);  // 0..7
            reference::Store(integer < 4 ? integer - 4 : integer - 3, d.dtype, cache,
                             b * s.batch + j * s.row + h * s.head + c);
          }
        }
      }
    }
  };
  fill(t.k_cache, d.k_strides(), d.head_dim, 1);
  fill(t.v_cache, d.v_strides(), d.v_dim(), 2);
}

// Doubles that the reference fills, owned.
struct ReferenceRun {
  explicit ReferenceRun(const Desc& d) {
    reference::VisitSizes(d, [&](auto member, size_t count) { values.*member = Make(count); });
    const auto rows = static_cast<size_t>(d.batch * d.num_heads * d.seqlen_q);
    weights.resize(rows * static_cast<size_t>(d.seqlen_kv));
    magnitudes = {Make(rows),
                  Make(rows),
                  Make(rows * static_cast<size_t>(d.v_dim())),
                  Make(rows * static_cast<size_t>(d.head_dim)),
                  Make(static_cast<size_t>(d.batch * d.seqlen_kv * d.kv_heads() * d.head_dim)),
                  Make(static_cast<size_t>(d.batch * d.seqlen_kv * d.kv_heads() * d.v_dim())),
                  Make(rows),
                  Make(rows * static_cast<size_t>(d.v_dim()))};
  }
  reference::MultiHeadAttentionValues values;
  reference::MultiHeadAttentionMagnitudes magnitudes;
  std::vector<double> weights;  // [batch, num_heads, seqlen_q, seqlen_kv]

 private:
  double* Make(size_t count) {
    owned_.emplace_back(count);
    return owned_.back().data();
  }
  std::deque<std::vector<double>> owned_;
};

// The tolerances of one query of one head, [b, h, i] = row.
//
// A score is off by what its dot product is, sqrt(head_dim) u L with L = scale * sum |q||k| (the statistical form of
// DotTolerance, which was measured at a seventh of it), by 4 u L for the rounding of the folded scale, of the maximum's
// subtraction and of exp2's polynomial, and by 6 u B for bias and alibi, which are multiplied by log2(e) and added,
// B = |softcapped score| + |bias| + |alibi|; 10 u B more for the tanh of a softcap. With projections q and k are
// themselves off by DotTolerance of theirs. A weight is exp(score) over a sum of such: its relative error is twice the
// score's, and sqrt(seqlen_kv) u + 8 u for the sums and the division. o is off by as much of A = sum weight |v|.
//
// 16-bit elements, half a unit in the last place w: weights are rounded before they meet v, which adds w A, and in f16
// half the least number, 2^-25 of the largest weight, for each key. Projections round q and k, 2 w L in a score, v, w
// A, and o itself.
struct Tolerances {
  Tolerances(const Desc& d, const ReferenceRun& r, int64_t row) {
    const double u = kUnitRoundoff, shift = r.magnitudes.shift[row], score = r.magnitudes.score[row];
    const bool shifted = d.bias || d.alibi || d.softcap > 0;
    if (d.projections) projection = DotTolerance(std::max(d.model_dim, d.memory_dim) + 1, 1.0);
    const double w = d.dtype == DType::kF32 ? 0 : UnitRoundoff(d.dtype);
    relative =
        2 * (d.projections ? 2 * w * score : 0) +
        u * ((std::sqrt(static_cast<double>(d.head_dim)) + 4) * score + std::sqrt(static_cast<double>(d.seqlen_kv)) +
             8) +
        2 * (u * (shifted ? (d.softcap > 0 ? 16 : 6) * shift : 0) + projection * r.magnitudes.projected_score[row]);
    lse = relative + 4 * u * (score + shift + std::fabs(r.values.lse[row]));
    rounded = (d.projections ? 2 : 1) * w;
  }
  double relative = 0, lse = 0, projection = 0;
  double rounded = 0;  // of weights and v, relative to A
};

// The number of kept keys of a query when all their weights are equal.
int64_t KeptKeys(const Desc& d, const ReferenceRun& r, int64_t row) {
  const auto* p = r.weights.data() + row * d.seqlen_kv;
  return d.seqlen_kv - std::count(p, p + d.seqlen_kv, 0.0);
}

// Two roundings, of a reciprocal and a product, unless both are exact.
double MeanTolerance(int64_t count, double mean) {
  return std::has_single_bit(static_cast<uint64_t>(std::max<int64_t>(count, 1))) ? 0
                                                                                 : 4 * kUnitRoundoff * std::fabs(mean);
}

// Every [batch, heads] of a strided tensor is an Expected of its own: rows of `dim`, from row 0 to `rows`.
template <class F>
void ExpectPlanes(const Desc& d, const char* name, DType dtype, const void* got, const AttentionStrides& s,
                  int64_t heads, int64_t rows, int64_t dim, std::vector<Expected>& out, const F& element) {
  for (int64_t b = 0; b < d.batch; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      Expected e{std::string(name) + "[batch " + std::to_string(b) + ", head " + std::to_string(h) + "]",
                 static_cast<const std::byte*>(got) + (b * s.batch + h * s.head) * static_cast<int64_t>(SizeOf(dtype)),
                 rows,
                 dim,
                 s.row,
                 {},
                 {}};
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t c = 0; c < dim; ++c) {
          const auto [want, tolerance] = element(b, h, i, c);
          e.want.push_back(want);
          e.tolerance.push_back(tolerance);
        }
      }
      RoundTo(dtype, e);
      if (rows > 0) out.push_back(std::move(e));
    }
  }
}

}  // namespace

int64_t SpanOf(int64_t batch, int64_t seqlen, int64_t heads, int64_t dim, const AttentionStrides& s) {
  if (batch == 0 || seqlen == 0) return 0;
  return (batch - 1) * s.batch + (seqlen - 1) * s.row + (heads - 1) * s.head + dim;
}

Case<MultiHeadAttention>::Case(const Desc& d, TensorStore& store) : desc_(d), fill_(store.fill()) {
  const uint64_t choice = store.plain() ? 0 : store.Random();
  const bool lengths = choice & 1, lse = choice & 2, weights_out = choice & 4, cached = choice & 8,
             filled = choice & 16;
  const bool exact = fill_ == Fill::kExact;
  const int64_t q_size = SpanOf(d.batch, d.seqlen_q, d.num_heads, d.head_dim, d.q_strides());
  const int64_t k_size = SpanOf(d.batch, d.seqlen_kv, d.kv_heads(), d.head_dim, d.k_strides());
  const int64_t v_size = SpanOf(d.batch, d.seqlen_kv, d.kv_heads(), d.v_dim(), d.v_strides());
  if (d.projections) {
    MakeWeights(store);
    const bool cross = d.memory_dim != 0;
    const auto rows = [](int64_t count, int64_t stride, int64_t row) { return count ? (count - 1) * stride + row : 0; };
    const int64_t tokens = d.batch * d.seqlen_q, keys = d.batch * d.seqlen_kv;
    tensors.x = store.Input(d.dtype, rows(tokens, d.x_stride ? d.x_stride : d.model_dim, d.model_dim));
    tensors.y = store.Output(d.dtype, rows(tokens, d.y_stride ? d.y_stride : d.model_dim, d.model_dim));
    if (cross && !(cached && filled)) {
      tensors.memory = store.Input(d.dtype, rows(keys, d.memory_stride ? d.memory_stride : d.memory_dim, d.memory_dim));
    }
    if (cached || (!cross && d.seqlen_kv != d.seqlen_q)) {
      tensors.k_cache = store.Output(d.dtype, k_size);
      tensors.v_cache = store.Output(d.dtype, v_size);
      if (!cross) tensors.position = store.RandomBelow(d.seqlen_kv - d.seqlen_q + 1);
    }
    if (lengths) MakeLengths(store, cross ? d.seqlen_kv : tensors.position + d.seqlen_q);
  } else {
    if (lengths) MakeLengths(store, d.seqlen_kv);
    tensors.q = exact ? Zeros(store, d.dtype, q_size) : store.Input(d.dtype, q_size);
    void* k = store.Input(d.dtype, k_size);
    void* v = store.Input(d.dtype, v_size);
    for (int64_t b = 0; tensors.key_lengths != nullptr && b < d.batch; ++b) {
      SetRows(k, d.dtype, d.k_strides(), b, tensors.key_lengths[b], d.seqlen_kv, d.kv_heads(), d.head_dim, NAN);
      SetRows(v, d.dtype, d.v_strides(), b, tensors.key_lengths[b], d.seqlen_kv, d.kv_heads(), d.v_dim(), NAN);
    }
    tensors.k = k;
    tensors.v = v;
    tensors.o = store.Output(d.dtype, SpanOf(d.batch, d.seqlen_q, d.num_heads, d.v_dim(), d.o_strides()));
  }
  MakeMasks(store);
  const int64_t queries = d.batch * d.num_heads * d.seqlen_q;
  if (lse) tensors.lse = store.Output(queries);
  if (weights_out) tensors.weights = store.Output(queries * d.seqlen_kv);
}

void Case<MultiHeadAttention>::MakeWeights(TensorStore& store) {
  const Desc& d = desc_;
  const int64_t memory_dim = d.memory_dim ? d.memory_dim : d.model_dim, q_row = d.num_heads * d.head_dim;
  const int64_t k_row = d.kv_heads() * d.head_dim, v_row = d.kv_heads() * d.v_dim(), o_row = d.num_heads * d.v_dim();
  const bool exact = fill_ == Fill::kExact;
  // Standard deviations that keep q, k, v and y near 1.
  const auto near_one = [](int64_t terms) { return 1 / std::sqrt(static_cast<double>(terms)); };
  weights.wq = exact ? Zeros(store, d.dtype, q_row * d.model_dim)
                     : store.Input(d.dtype, q_row * d.model_dim, near_one(d.model_dim));
  weights.wk = store.Input(d.dtype, k_row * memory_dim, near_one(memory_dim));
  weights.wv = store.Input(d.dtype, v_row * memory_dim, near_one(memory_dim));
  weights.wo = store.Input(d.dtype, d.model_dim * o_row, near_one(o_row));
  if (!d.projection_bias) return;
  weights.bq = exact ? Zeros(store, d.dtype, q_row) : store.Input(d.dtype, q_row);
  weights.bk = store.Input(d.dtype, k_row);
  weights.bv = store.Input(d.dtype, v_row);
  weights.bo = store.Input(d.dtype, d.model_dim);
}

void Case<MultiHeadAttention>::MakeMasks(TensorStore& store) {
  const Desc& d = desc_;
  if (d.mask) {  // three of four kept; one row in eight has none, one in eight has all
    std::vector<uint8_t> keep;
    for (int64_t row = 0; row < d.mask_batch * d.mask_heads * d.seqlen_q; ++row) {
      const int64_t kind = store.RandomBelow(8);
      for (int64_t j = 0; j < d.seqlen_kv; ++j) keep.push_back(kind == 0 ? 0 : kind == 1 || store.RandomBelow(4) != 0);
    }
    tensors.mask = reinterpret_cast<const bool*>(store.Input(keep));
  }
  if (d.bias) {  // one in sixteen masks by -inf
    std::vector<float> bias(static_cast<size_t>(d.bias_batch * d.bias_heads * d.seqlen_q * d.seqlen_kv));
    for (float& x : bias) {
      x = fill_ == Fill::kExact ? 0.0f : static_cast<float>(store.RandomNormal());
      if (store.RandomBelow(16) == 0) x = -INFINITY;
    }
    tensors.bias = store.Input(bias);
  }
  if (d.alibi) {
    std::vector<float> slopes(static_cast<size_t>(d.num_heads));
    for (float& x : slopes) x = fill_ == Fill::kExact ? 0.0f : static_cast<float>(0.1 * store.RandomNormal());
    tensors.alibi_slopes = store.Input(slopes);
  }
}

void Case<MultiHeadAttention>::MakeLengths(TensorStore& store, int64_t most) {
  std::vector<int32_t> lengths(static_cast<size_t>(desc_.batch));
  for (int32_t& length : lengths) {
    length = static_cast<int32_t>(store.RandomBelow(4) == 0 ? most : store.RandomBelow(most + 1));
  }
  tensors.key_lengths = store.Input(lengths);
}

Status Case<MultiHeadAttention>::RunOnce(const MultiHeadAttention& op, const MultiHeadAttentionTensors& t,
                                         void* scratch) {
  FillPast(op.desc(), t);
  return op.Run(t, scratch);
}

std::vector<Expected> Case<MultiHeadAttention>::Reference() const {
  const Desc& d = desc_;
  const bool exact = fill_ == Fill::kExact, narrow = d.dtype != DType::kF32;
  const bool exact_o = exact && !(d.projections && narrow);  // v is rounded there
  FillPast(d, tensors);
  ReferenceRun r(d);
  const auto keep = [&](int64_t row, const double* p) {
    std::copy_n(p, d.seqlen_kv, r.weights.begin() + row * d.seqlen_kv);
  };
  reference::MultiHeadAttention(d, weights, tensors, r.values, keep, &r.magnitudes);

  std::vector<Tolerances> tolerances;  // and the number of kept keys of [b, h, i]
  std::vector<int64_t> kept;
  for (int64_t row = 0; row < d.batch * d.num_heads * d.seqlen_q; ++row) {
    tolerances.emplace_back(d, r, row);
    kept.push_back(KeptKeys(d, r, row));
  }
  const auto row_of = [&](int64_t b, int64_t h, int64_t i) { return (b * d.num_heads + h) * d.seqlen_q + i; };
  double most_v = 0;  // |v| of those that are numbers
  for (int64_t i = 0; i < d.batch * d.seqlen_kv * d.kv_heads() * d.v_dim(); ++i) {
    most_v = std::fmax(most_v, std::fabs(r.values.v[i]));
  }
  const auto o_element = [&](int64_t b, int64_t h, int64_t i, int64_t c) {
    const int64_t at = ((b * d.seqlen_q + i) * d.num_heads + h) * d.v_dim() + c, row = row_of(b, h, i);
    const Tolerances& t = tolerances[row];
    double bound = (t.relative + t.rounded) * r.magnitudes.o[at] + t.projection * r.magnitudes.projected_o[at];
    if (d.dtype == DType::kF16) bound += 0x1p-25 * static_cast<double>(kept[row]) * most_v;
    if (d.projections && narrow) bound += UnitRoundoff(d.dtype) * (std::fabs(r.values.o[at]) + bound);
    return std::pair{r.values.o[at], exact_o ? MeanTolerance(kept[row], r.values.o[at]) : bound};
  };

  std::vector<Expected> out;
  if (!d.projections) {
    ExpectPlanes(d, "o", d.dtype, tensors.o, d.o_strides(), d.num_heads, d.seqlen_q, d.v_dim(), out, o_element);
  } else {
    // y's heads are one: a [batch, seqlen_q, 1, model_dim].
    const int64_t stride = d.y_stride ? d.y_stride : d.model_dim;
    const auto y_element = [&](int64_t b, int64_t, int64_t i, int64_t c) {
      const int64_t o_row = d.num_heads * d.v_dim();
      double magnitude = d.projection_bias ? std::fabs(reference::Load(weights.bo, d.dtype, c)) : 0, spread = 0;
      int64_t most_kept = 1;
      for (int64_t h = 0; h < d.num_heads; ++h) {
        most_kept = std::max(most_kept, kept[row_of(b, h, i)]);
        for (int64_t e = 0; e < d.v_dim(); ++e) {
          const auto [o, tolerance] = o_element(b, h, i, e);
          const double wo = std::fabs(reference::Load(weights.wo, d.dtype, c * o_row + h * d.v_dim() + e));
          magnitude += wo * std::fabs(o);
          spread += wo * tolerance;
        }
      }
      // Exact means are multiples of 1 / most_kept, and so is every partial sum.
      const bool sums_exact = exact_o && spread == 0 && magnitude * static_cast<double>(most_kept) < 0x1p24;
      return std::pair{r.values.y[(b * d.seqlen_q + i) * d.model_dim + c],
                       sums_exact ? 0 : DotTolerance(o_row + 1, magnitude) + spread};
    };
    ExpectPlanes(d, "y", d.dtype, tensors.y, {d.seqlen_q * stride, stride, 0}, 1, d.seqlen_q, d.model_dim, out,
                 y_element);
  }
  if (tensors.k_cache != nullptr) {
    const int64_t filled = d.memory_dim != 0 ? d.seqlen_kv : tensors.position + d.seqlen_q;
    const auto expect = [&](const char* name, const void* cache, const AttentionStrides& s, int64_t dim,
                            const double* value, const double* magnitude) {
      ExpectPlanes(d, name, d.dtype, cache, s, d.kv_heads(), filled, dim, out,
                   [&](int64_t b, int64_t h, int64_t j, int64_t c) {
                     const int64_t at = ((b * d.seqlen_kv + j) * d.kv_heads() + h) * dim + c;
                     const int64_t channels = d.memory_dim ? d.memory_dim : d.model_dim;
                     return std::pair{value[at], exact ? 0 : DotTolerance(channels + 1, magnitude[at])};
                   });
    };
    expect("k_cache", tensors.k_cache, d.k_strides(), d.head_dim, r.values.k, r.magnitudes.k);
    expect("v_cache", tensors.v_cache, d.v_strides(), d.v_dim(), r.values.v, r.magnitudes.v);
  }
  if (tensors.lse != nullptr) {  // [batch, num_heads, seqlen_q] with rows of one
    ExpectPlanes(d, "lse", DType::kF32, tensors.lse, {d.num_heads * d.seqlen_q, 1, d.seqlen_q}, d.num_heads, d.seqlen_q,
                 1, out, [&](int64_t b, int64_t h, int64_t i, int64_t) {
                   const double lse = r.values.lse[row_of(b, h, i)];
                   return std::pair{lse, exact ? 4 * kUnitRoundoff * std::fabs(lse) : tolerances[row_of(b, h, i)].lse};
                 });
  }
  if (tensors.weights != nullptr && d.seqlen_kv > 0) {  // [batch, num_heads, seqlen_q, seqlen_kv]
    const int64_t plane = d.seqlen_q * d.seqlen_kv;
    ExpectPlanes(d, "weights", DType::kF32, tensors.weights, {d.num_heads * plane, d.seqlen_kv, plane}, d.num_heads,
                 d.seqlen_q, d.seqlen_kv, out, [&](int64_t b, int64_t h, int64_t i, int64_t j) {
                   const int64_t row = row_of(b, h, i);
                   const double p = r.weights[row * d.seqlen_kv + j];
                   // A weight that would be below 2^-125.5 times the largest is 0.
                   const double bound = p > 0 ? tolerances[row].relative * p + 0x1.8p-126 : 0;
                   return std::pair{p, exact ? MeanTolerance(kept[row], p) : bound};
                 });
  }
  return out;
}

}  // namespace lamina::harness
