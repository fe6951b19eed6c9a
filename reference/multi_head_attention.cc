#include "reference/multi_head_attention.h"

#include <algorithm>
#include <cmath>

#include "reference/element.h"

namespace lamina::reference {
namespace {

using Desc = MultiHeadAttentionDesc;

// One projection: out[i] = bias[i] + sum_c x[c] * w[i, c] for i < count; magnitude likewise of absolute values.
void Project(const Desc& d, const void* x, int64_t x_at, int64_t channels, const void* w, const void* bias,
             int64_t count, double* out, double* magnitude) {
  for (int64_t i = 0; i < count; ++i) {
    double sum = d.projection_bias ? Load(bias, d.dtype, i) : 0.0, abs_sum = std::fabs(sum);
    for (int64_t c = 0; c < channels; ++c) {
      const double term = Load(x, d.dtype, x_at + c) * Load(w, d.dtype, i * channels + c);
      sum += term;
      abs_sum += std::fabs(term);
    }
    out[i] = sum;
    if (magnitude != nullptr) magnitude[i] = abs_sum;
  }
}

// rows x heads x dim of a tensor with strides, from row `begin` to `end`, widened.
void Widen(const Desc& d, const void* from, const AttentionStrides& s, int64_t seqlen, int64_t begin, int64_t end,
           int64_t heads, int64_t dim, double* to, double* magnitude) {
  for (int64_t b = 0; b < d.batch; ++b) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t c = 0; c < dim; ++c) {
          const int64_t at = ((b * seqlen + i) * heads + h) * dim + c;
          to[at] = Load(from, d.dtype, b * s.batch + i * s.row + h * s.head + c);
          if (magnitude != nullptr) magnitude[at] = 0.0;
        }
      }
    }
  }
}

// q, k and v: from the tensors of those names, or by the projections and from the caches.
void FillInputs(const Desc& d, const MultiHeadAttentionWeights& w, const MultiHeadAttentionTensors& t,
                const MultiHeadAttentionValues& out, const MultiHeadAttentionMagnitudes* m) {
  const int64_t q_row = d.num_heads * d.head_dim, k_row = d.kv_heads() * d.head_dim, v_row = d.kv_heads() * d.v_dim();
  if (!d.projections) {
    Widen(d, t.q, d.q_strides(), d.seqlen_q, 0, d.seqlen_q, d.num_heads, d.head_dim, out.q, m ? m->q : nullptr);
    Widen(d, t.k, d.k_strides(), d.seqlen_kv, 0, d.seqlen_kv, d.kv_heads(), d.head_dim, out.k, m ? m->k : nullptr);
    Widen(d, t.v, d.v_strides(), d.seqlen_kv, 0, d.seqlen_kv, d.kv_heads(), d.v_dim(), out.v, m ? m->v : nullptr);
    return;
  }
  const bool cross = d.memory_dim != 0;
  const int64_t x_stride = d.x_stride ? d.x_stride : d.model_dim;
  for (int64_t r = 0; r < d.batch * d.seqlen_q; ++r) {
    Project(d, t.x, r * x_stride, d.model_dim, w.wq, w.bq, q_row, out.q + r * q_row, m ? m->q + r * q_row : nullptr);
  }
  // Rows of k and v: [0, begin) and [end, seqlen_kv) lie in the caches, [begin, end) are new.
  const void* source = cross ? t.memory : t.x;
  const int64_t begin = source == nullptr ? 0 : t.position;
  const int64_t count = source == nullptr ? 0 : cross ? d.seqlen_kv : d.seqlen_q, end = begin + count;
  const int64_t channels = cross ? d.memory_dim : d.model_dim;
  const int64_t stride = cross ? (d.memory_stride ? d.memory_stride : d.memory_dim) : x_stride;
  for (auto [first, last] : {std::pair{int64_t{0}, begin}, std::pair{end, d.seqlen_kv}}) {
    if (first >= last) continue;
    Widen(d, t.k_cache, d.k_strides(), d.seqlen_kv, first, last, d.kv_heads(), d.head_dim, out.k, m ? m->k : nullptr);
    Widen(d, t.v_cache, d.v_strides(), d.seqlen_kv, first, last, d.kv_heads(), d.v_dim(), out.v, m ? m->v : nullptr);
  }
  for (int64_t b = 0; b < d.batch; ++b) {
    for (int64_t j = 0; j < count; ++j) {
      const int64_t from = (b * count + j) * stride, to = b * d.seqlen_kv + begin + j;
      Project(d, source, from, channels, w.wk, w.bk, k_row, out.k + to * k_row, m ? m->k + to * k_row : nullptr);
      Project(d, source, from, channels, w.wv, w.bv, v_row, out.v + to * v_row, m ? m->v + to * v_row : nullptr);
    }
  }
}

// Element [b, h, i, j] of a mask or bias whose batch and heads may be 1 for all.
int64_t PlaneIndex(const Desc& d, int64_t batches, int64_t heads, int64_t b, int64_t h, int64_t i, int64_t j) {
  return (((batches == 1 ? 0 : b) * heads + (heads == 1 ? 0 : h)) * d.seqlen_q + i) * d.seqlen_kv + j;
}

// One query of one head.
struct Query {
  int64_t b, h, i;
};

bool Kept(const Desc& d, const MultiHeadAttentionTensors& t, const Query& at, int64_t origin, int64_t j) {
  if (d.mask && !t.mask[PlaneIndex(d, d.mask_batch, d.mask_heads, at.b, at.h, at.i, j)]) return false;
  if (d.causal != Causal::kNone && j > origin) return false;
  if (d.window_left >= 0 && j < origin - d.window_left) return false;
  if (d.window_right >= 0 && j > origin + d.window_right) return false;
  return true;
}

void Attend(const Desc& d, const MultiHeadAttentionTensors& t, const Query& at, const MultiHeadAttentionValues& out,
            const WeightsSink& sink, const MultiHeadAttentionMagnitudes* m) {
  const int64_t kv_head = at.h / (d.num_heads / d.kv_heads()), length = KeyLength(d, t, at.b);
  const int64_t origin = at.i + (d.causal == Causal::kBottomRight ? length - d.seqlen_q : 0);  // i' of the formula
  const double scale = d.score_scale(), cap = d.softcap;
  const auto q_at = [&](int64_t c) { return ((at.b * d.seqlen_q + at.i) * d.num_heads + at.h) * d.head_dim + c; };
  const auto k_at = [&](int64_t j, int64_t c) {
    return ((at.b * d.seqlen_kv + j) * d.kv_heads() + kv_head) * d.head_dim + c;
  };
  const auto v_at = [&](int64_t j, int64_t c) {
    return ((at.b * d.seqlen_kv + j) * d.kv_heads() + kv_head) * d.v_dim() + c;
  };
  const int64_t row = (at.b * d.num_heads + at.h) * d.seqlen_q + at.i;
  double most = -INFINITY, score_magnitude = 0, shift_magnitude = 0, projected = 0;
  for (int64_t j = 0; j < d.seqlen_kv; ++j) {
    out.scores[j] = -INFINITY;
    if (j >= length || !Kept(d, t, at, origin, j)) continue;
    double s = 0, abs_s = 0, from_projections = 0;
    for (int64_t c = 0; c < d.head_dim; ++c) {
      const double q = out.q[q_at(c)], k = out.k[k_at(j, c)];
      s += q * k;
      abs_s += std::fabs(q * k);
      if (m != nullptr) from_projections += std::fabs(q) * m->k[k_at(j, c)] + std::fabs(k) * m->q[q_at(c)];
    }
    s *= scale;
    if (cap > 0) s = cap * std::tanh(s / cap);
    const double bias = d.bias ? t.bias[PlaneIndex(d, d.bias_batch, d.bias_heads, at.b, at.h, at.i, j)] : 0.0;
    const double alibi = d.alibi ? double{t.alibi_slopes[at.h]} * static_cast<double>(j - origin) : 0.0;
    out.scores[j] = s + bias + alibi;
    if (out.scores[j] == -INFINITY) continue;
    most = out.scores[j] > most || std::isnan(out.scores[j]) ? out.scores[j] : most;
    score_magnitude = std::max(score_magnitude, std::fabs(scale) * abs_s);
    shift_magnitude = std::max(shift_magnitude, std::fabs(s) + std::fabs(bias) + std::fabs(alibi));
    projected = std::max(projected, std::fabs(scale) * from_projections);
  }
  double sum = 0;
  for (int64_t j = 0; j < d.seqlen_kv; ++j) {
    // A key that is not kept has weight 0 also where the others are NaN.
    if (out.scores[j] != -INFINITY) sum += out.scores[j] = std::exp(out.scores[j] - most);
  }
  out.lse[row] = most == -INFINITY ? -INFINITY : most + std::log(sum);
  const auto o_at = [&](int64_t c) { return ((at.b * d.seqlen_q + at.i) * d.num_heads + at.h) * d.v_dim() + c; };
  for (int64_t c = 0; c < d.v_dim(); ++c) {
    double o = 0, abs_o = 0, projected_o = 0;
    for (int64_t j = 0; j < length; ++j) {
      if (out.scores[j] == -INFINITY) continue;
      const double p = out.scores[j], v = out.v[v_at(j, c)];
      o += p * v;
      abs_o += (p + 0x1p-126 * sum) * std::fabs(v);
      if (m != nullptr) projected_o += p * m->v[v_at(j, c)];
    }
    // Divided once: the means of the exact tests are exact before it.
    out.o[o_at(c)] = sum == 0 ? 0 : o / sum;  // 0: no key kept
    if (m != nullptr) {
      m->o[o_at(c)] = sum == 0 ? 0 : abs_o / sum;
      m->projected_o[o_at(c)] = sum == 0 ? 0 : projected_o / sum;
    }
  }
  if (sink) {
    for (int64_t j = 0; j < d.seqlen_kv; ++j) out.scores[j] = out.scores[j] == -INFINITY ? 0.0 : out.scores[j] / sum;
    sink(row, out.scores);
  }
  if (m != nullptr) {
    m->score[row] = score_magnitude;
    m->shift[row] = shift_magnitude;
    m->projected_score[row] = projected;
  }
}

}  // namespace

int64_t KeyLength(const Desc& d, const MultiHeadAttentionTensors& t, int64_t b) {
  if (t.key_lengths != nullptr) return t.key_lengths[b];
  return d.projections && d.memory_dim == 0 ? t.position + d.seqlen_q : d.seqlen_kv;
}

void MultiHeadAttention(const Desc& d, const MultiHeadAttentionWeights& w, const MultiHeadAttentionTensors& t,
                        const MultiHeadAttentionValues& values, const WeightsSink& sink,
                        const MultiHeadAttentionMagnitudes* m) {
  FillInputs(d, w, t, values, m);
  for (int64_t b = 0; b < d.batch; ++b) {
    for (int64_t h = 0; h < d.num_heads; ++h) {
      for (int64_t i = 0; i < d.seqlen_q; ++i) Attend(d, t, {b, h, i}, values, sink, m);
    }
  }
  if (!d.projections) return;
  const int64_t o_row = d.num_heads * d.v_dim();
  for (int64_t r = 0; r < d.batch * d.seqlen_q; ++r) {
    for (int64_t i = 0; i < d.model_dim; ++i) {
      double sum = d.projection_bias ? Load(w.bo, d.dtype, i) : 0.0;
      for (int64_t c = 0; c < o_row; ++c) sum += values.o[r * o_row + c] * Load(w.wo, d.dtype, i * o_row + c);
      values.y[r * d.model_dim + i] = sum;
    }
  }
}

}  // namespace lamina::reference
