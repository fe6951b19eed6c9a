// What is true of multi_head_attention on any backend: its rules, its text, its cost.
#include "lamina/multi_head_attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/operators/backends.h"
#include "kernels/operators/prepare.h"
#include "kernels/operators/rules.h"

namespace lamina {
namespace {

constexpr int64_t kMostChannels = 256;

// Zeros become the strides of a dense [batch, seqlen, heads, dim] or [batch, heads, seqlen, dim].
AttentionStrides Filled(const AttentionStrides& asked, AttentionLayout layout, int64_t seqlen, int64_t heads,
                        int64_t dim) {
  const bool bshd = layout == AttentionLayout::kBshd;
  const auto or_else = [](int64_t stride, int64_t dense) { return stride ? stride : dense; };
  return {.batch = or_else(asked.batch, seqlen * heads * dim),
          .row = or_else(asked.row, bshd ? heads * dim : dim),
          .head = or_else(asked.head, bshd ? dim : seqlen * dim)};
}

// One of q, k, v, o: sizes that fit, and rows that do not overlap.
Status ValidateTensor(const MultiHeadAttentionDesc& d, const char* name, const AttentionStrides& asked, int64_t seqlen,
                      int64_t heads, int64_t dim) {
  if (asked.batch < 0 || asked.row < 0 || asked.head < 0) {
    return Refuse(d, std::string("strides of ") + name + " must not be negative",
                  {{"batch", asked.batch}, {"row", asked.row}, {"head", asked.head}});
  }
  if (CheckedProduct({d.batch, seqlen, heads, dim}) < 0)
    return Refuse(d, std::string("the size of ") + name + " overflows");
  if (seqlen == 0) return {};  // no rows
  const AttentionStrides s = Filled(asked, d.layout, seqlen, heads, dim);
  struct Axis {
    int64_t stride, count;
  } axes[] = {{s.batch, d.batch}, {s.row, seqlen}, {s.head, heads}};
  std::sort(std::begin(axes), std::end(axes), [](const Axis& a, const Axis& b) { return a.stride < b.stride; });
  int64_t span = dim;  // elements from the first to the last of what the axes so far hold
  for (const Axis& axis : axes) {
    if (axis.count <= 1) continue;
    if (axis.stride < span) {
      return Refuse(d, std::string("strides of ") + name + " must not make its rows overlap",
                    {{"batch", s.batch}, {"row", s.row}, {"head", s.head}});
    }
    const int64_t steps = CheckedProduct({axis.count, axis.stride});
    if (steps < 0) return Refuse(d, std::string("the size of ") + name + " overflows");
    span += steps - axis.stride;
    if (span > INT64_MAX / 32) return Refuse(d, std::string("the size of ") + name + " overflows");
  }
  return {};
}

// A mask or bias [batches, heads, seqlen_q, seqlen_kv].
Status ValidatePlane(const MultiHeadAttentionDesc& d, const char* name, int64_t batches, int64_t heads) {
  if ((batches != 1 && batches != d.batch) || (heads != 1 && heads != d.num_heads)) {
    return Refuse(d, std::string(name) + "_batch must be 1 or batch and " + name + "_heads 1 or num_heads",
                  {{"batch", batches}, {"heads", heads}});
  }
  if (CheckedProduct({batches, heads, d.seqlen_q, d.seqlen_kv}) < 0) {
    return Refuse(d, std::string("the size of ") + name + " overflows");
  }
  return {};
}

Status ValidateProjections(const MultiHeadAttentionDesc& d) {
  if (!d.projections) {
    if (d.model_dim != 0 || d.memory_dim != 0 || d.x_stride != 0 || d.memory_stride != 0 || d.y_stride != 0) {
      return Refuse(d, "model_dim, memory_dim, x_stride, memory_stride and y_stride need projections=1");
    }
    return {};
  }
  if (d.model_dim < 1 || d.memory_dim < 0) {
    return Refuse(d, "model_dim must be at least 1 and memory_dim at least 0",
                  {{"model_dim", d.model_dim}, {"memory_dim", d.memory_dim}});
  }
  const int64_t memory_dim = d.memory_dim ? d.memory_dim : d.model_dim;
  if (d.memory_dim == 0 && d.seqlen_kv < d.seqlen_q) {
    return Refuse(d, "in self-attention with projections seqlen_kv must be at least seqlen_q",
                  {{"seqlen_q", d.seqlen_q}, {"seqlen_kv", d.seqlen_kv}});
  }
  if (!(d.q == AttentionStrides{}) || !(d.o == AttentionStrides{})) {
    return Refuse(d, "strides of q and o must be 0 with projections: x_stride and y_stride take their place");
  }
  if ((d.x_stride != 0 && d.x_stride < d.model_dim) || (d.y_stride != 0 && d.y_stride < d.model_dim) ||
      (d.memory_stride != 0 && d.memory_stride < memory_dim)) {
    return Refuse(d, "x_stride and y_stride must be 0 or at least model_dim, memory_stride 0 or at least memory_dim",
                  {{"x_stride", d.x_stride}, {"y_stride", d.y_stride}, {"memory_stride", d.memory_stride}});
  }
  if (d.memory_dim == 0 && d.memory_stride != 0) return Refuse(d, "memory_stride needs memory_dim");
  if (std::max(d.model_dim, d.memory_dim) >= int64_t{1} << 31) {
    return Refuse(d, "model_dim and memory_dim must be less than 2^31");
  }
  if (CheckedProduct({d.num_heads, std::max(d.head_dim, d.v_dim()), std::max(d.model_dim, memory_dim)}) < 0 ||
      CheckedProduct({d.batch, d.seqlen_q, std::max({d.x_stride, d.y_stride, d.model_dim})}) < 0 ||
      CheckedProduct({d.batch, d.seqlen_kv, std::max(d.memory_stride, memory_dim)}) < 0 ||
      CheckedProduct({d.batch, std::max(d.seqlen_q, d.seqlen_kv), d.num_heads, kMostChannels, 4,
                      std::max(d.model_dim, memory_dim)}) < 0) {
    return Refuse(d, "the size of the projections overflows");
  }
  return {};
}

// sum over 0 <= i < rows of clamp(i + shift, 0, most)
int64_t SumOfClamped(int64_t rows, int64_t shift, int64_t most) {
  const auto triangle = [](int64_t n) { return n > 0 ? n * (n - 1) / 2 : 0; };  // 0 + 1 + .. + n - 1
  // Up to `last` terms are i + shift where positive; the others are `most`.
  const int64_t last = std::clamp<int64_t>(most - shift, 0, rows);
  const int64_t first = std::clamp<int64_t>(-shift, 0, last);
  return triangle(last + shift) - triangle(first + shift) + (rows - last) * most;
}

// Pairs of a query and a key that causal and window keep, of one head, at full key lengths.
int64_t KeptPairs(const MultiHeadAttentionDesc& d) {
  const int64_t origin = d.causal == Causal::kBottomRight ? d.seqlen_kv - d.seqlen_q : 0;  // i' = i + origin
  const int64_t right = d.causal != Causal::kNone ? 0 : d.window_right;
  const int64_t up_to =
      right < 0 ? d.seqlen_q * d.seqlen_kv
                : SumOfClamped(d.seqlen_q, origin + std::min(right, d.seqlen_kv + d.seqlen_q) + 1, d.seqlen_kv);
  const int64_t before =
      d.window_left < 0
          ? 0
          : SumOfClamped(d.seqlen_q, origin - std::min(d.window_left, d.seqlen_kv + d.seqlen_q), d.seqlen_kv);
  return up_to - before;
}

}  // namespace

template <>
struct Fields<MultiHeadAttentionDesc> {
  static constexpr const char* kName = "multi_head_attention";
  template <class V>
  static void Visit(V&& v) {
    using D = MultiHeadAttentionDesc;
    using enum FieldKind;
    v("batch", &D::batch, kRunTime);
    v("num_heads", &D::num_heads, kFixed);
    v("num_kv_heads", &D::num_kv_heads, kFixed);
    v("seqlen_q", &D::seqlen_q, kRunTime);
    v("seqlen_kv", &D::seqlen_kv, kRunTime);
    v("head_dim", &D::head_dim, kFixed);
    v("value_dim", &D::value_dim, kFixed);
    v("scale", &D::scale, kFixed);
    v("causal", &D::causal, kFixed);
    v("window_left", &D::window_left, kFixed);
    v("window_right", &D::window_right, kFixed);
    v("mask", &D::mask, kFixed);
    v("mask_batch", &D::mask_batch, kRunTime);
    v("mask_heads", &D::mask_heads, kFixed);
    v("bias", &D::bias, kFixed);
    v("bias_batch", &D::bias_batch, kRunTime);
    v("bias_heads", &D::bias_heads, kFixed);
    v("alibi", &D::alibi, kFixed);
    v("softcap", &D::softcap, kFixed);
    v("layout", &D::layout, kFixed);
    v("q", &D::q, kRunTime);
    v("k", &D::k, kRunTime);
    v("v", &D::v, kRunTime);
    v("o", &D::o, kRunTime);
    v("dtype", &D::dtype, kFixed);
    v("projections", &D::projections, kFixed);
    v("model_dim", &D::model_dim, kFixed);
    v("memory_dim", &D::memory_dim, kFixed);
    v("projection_bias", &D::projection_bias, kFixed);
    v("x_stride", &D::x_stride, kRunTime);
    v("memory_stride", &D::memory_stride, kRunTime);
    v("y_stride", &D::y_stride, kRunTime);
  }
};

float MultiHeadAttentionDesc::score_scale() const {
  return scale != 0.0f ? scale : static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
}
AttentionStrides MultiHeadAttentionDesc::q_strides() const { return Filled(q, layout, seqlen_q, num_heads, head_dim); }
AttentionStrides MultiHeadAttentionDesc::k_strides() const {
  return Filled(k, layout, seqlen_kv, kv_heads(), head_dim);
}
AttentionStrides MultiHeadAttentionDesc::v_strides() const { return Filled(v, layout, seqlen_kv, kv_heads(), v_dim()); }
AttentionStrides MultiHeadAttentionDesc::o_strides() const { return Filled(o, layout, seqlen_q, num_heads, v_dim()); }

Status MultiHeadAttentionDesc::Validate() const {
  const MultiHeadAttentionDesc& d = *this;
  if (batch < 0 || seqlen_q < 0 || seqlen_kv < 0) {
    return Refuse(d, "batch, seqlen_q and seqlen_kv must not be negative",
                  {{"batch", batch}, {"seqlen_q", seqlen_q}, {"seqlen_kv", seqlen_kv}});
  }
  if (num_heads < 1) return Refuse(d, "num_heads must be at least 1", {{"num_heads", num_heads}});
  if (num_kv_heads < 0 || num_heads % kv_heads() != 0) {
    return Refuse(d, "num_kv_heads must divide num_heads", {{"num_heads", num_heads}, {"num_kv_heads", num_kv_heads}});
  }
  if (head_dim < 1 || head_dim > kMostChannels) {
    return Refuse(d, "head_dim must be 1 to 256", {{"head_dim", head_dim}});
  }
  if (value_dim < 0 || value_dim > kMostChannels) {
    return Refuse(d, "value_dim must be 1 to 256, or 0 for head_dim", {{"value_dim", value_dim}});
  }
  if (std::max({seqlen_q, seqlen_kv, num_heads}) >= int64_t{1} << 31) {
    return Refuse(d, "seqlen_q, seqlen_kv and num_heads must be less than 2^31");
  }
  if (!std::isfinite(scale)) return Refuse(d, "scale must be finite, got scale=" + text::Format(scale));
  if (!std::isfinite(softcap) || softcap < 0) {
    return Refuse(d, "softcap must be finite and not negative, got softcap=" + text::Format(softcap));
  }
  if (window_left < -1 || window_right < -1) {
    return Refuse(d, "window_left and window_right must be at least -1 (-1 keeps all)",
                  {{"window_left", window_left}, {"window_right", window_right}});
  }
  if (Status s = ValidateEnums(d, causal, layout, dtype); !s.ok()) return s;
  if (Status s = ValidatePlane(d, "mask", mask_batch, mask_heads); !s.ok()) return s;
  if (Status s = ValidatePlane(d, "bias", bias_batch, bias_heads); !s.ok()) return s;
  if (Status s = ValidateTensor(d, "q", q, seqlen_q, num_heads, head_dim); !s.ok()) return s;
  if (Status s = ValidateTensor(d, "k", k, seqlen_kv, kv_heads(), head_dim); !s.ok()) return s;
  if (Status s = ValidateTensor(d, "v", v, seqlen_kv, kv_heads(), v_dim()); !s.ok()) return s;
  if (Status s = ValidateTensor(d, "o", o, seqlen_q, num_heads, v_dim()); !s.ok()) return s;
  if (CheckedProduct({batch, num_heads, seqlen_q, seqlen_kv, head_dim + v_dim()}) < 0) {
    return Refuse(d, "the count of multiply-accumulates overflows");
  }
  return ValidateProjections(d);
}

std::string ToString(const MultiHeadAttentionDesc& d) { return text::Print(d); }
Result<MultiHeadAttentionDesc> ParseMultiHeadAttention(std::string_view t) {
  return text::Read<MultiHeadAttentionDesc>(t);
}

Cost CostOf(const MultiHeadAttentionDesc& d) {
  const int64_t size = static_cast<int64_t>(SizeOf(d.dtype));
  const int64_t pairs = d.batch * d.num_heads * KeptPairs(d), rows = d.batch * d.num_heads * d.seqlen_q;
  const int64_t kv_channels = d.kv_heads() * (d.head_dim + d.v_dim());
  Cost c;
  c.macs = pairs * (d.head_dim + d.v_dim());
  c.transcendentals = pairs * (d.softcap > 0 ? 2 : 1) + rows;  // one division a row
  if (d.mask) c.activation_bytes += d.mask_batch * d.mask_heads * d.seqlen_q * d.seqlen_kv;
  if (d.bias) c.activation_bytes += d.bias_batch * d.bias_heads * d.seqlen_q * d.seqlen_kv * 4;
  if (d.alibi) c.activation_bytes += d.num_heads * 4;
  if (!d.projections) {
    c.activation_bytes += (rows * (d.head_dim + d.v_dim()) + d.batch * d.seqlen_kv * kv_channels) * size;
    return c;
  }
  const bool cross = d.memory_dim != 0;
  const int64_t tokens = d.batch * d.seqlen_q, memory_dim = cross ? d.memory_dim : d.model_dim;
  const int64_t new_kv = d.batch * (cross ? d.seqlen_kv : d.seqlen_q);
  c.macs += tokens * d.model_dim * d.num_heads * (d.head_dim + d.v_dim()) + new_kv * memory_dim * kv_channels;
  c.params = d.model_dim * d.num_heads * (d.head_dim + d.v_dim()) + memory_dim * kv_channels;
  if (d.projection_bias) c.params += d.num_heads * d.head_dim + kv_channels + d.model_dim;
  c.weight_bytes = c.params * size;
  c.activation_bytes += 2 * tokens * d.model_dim * size;
  if (cross) c.activation_bytes += new_kv * memory_dim * size;
  // Caches that hold more than the new rows: old rows are read, new ones written.
  if (!cross && d.seqlen_kv > d.seqlen_q) c.activation_bytes += d.batch * d.seqlen_kv * kv_channels * size;
  return c;
}

template <>
struct Traits<MultiHeadAttention> {
  static CandidateList<MultiHeadAttention> Offered(Backend backend) {
    return OfferedBy(backend, cpu::MultiHeadAttentionCandidates, oracle::MultiHeadAttentionCandidates,
                     cuda::MultiHeadAttentionCandidates);
  }

  static Status CheckWeights(const MultiHeadAttentionDesc& d, const MultiHeadAttentionWeights& w) {
    if (!d.projections) return {};
    if (w.wq == nullptr || w.wk == nullptr || w.wv == nullptr || w.wo == nullptr) {
      return Refuse(d, "weights wq, wk, wv and wo must not be null with projections=1");
    }
    if (d.projection_bias && (w.bq == nullptr || w.bk == nullptr || w.bv == nullptr || w.bo == nullptr)) {
      return Refuse(d, "weights bq, bk, bv and bo must not be null when projection_bias=1");
    }
    return {};
  }

  static Status CheckTensors(const MultiHeadAttentionDesc& d, const MultiHeadAttentionTensors& t) {
    if (Status s = d.projections ? CheckLayer(d, t) : CheckPlain(d, t); !s.ok()) return s;
    if (d.mask != (t.mask != nullptr) && d.seqlen_kv > 0)
      return Refuse(d, "mask must be given when the descriptor has one, and only then");
    if (d.bias != (t.bias != nullptr) && d.seqlen_kv > 0)
      return Refuse(d, "bias must be given when the descriptor has one, and only then");
    if (d.alibi != (t.alibi_slopes != nullptr)) {
      return Refuse(d, "alibi_slopes must be given when alibi=1, and only then");
    }
    return {};
  }

  static Status CheckLengths(const MultiHeadAttentionDesc& d, const MultiHeadAttentionTensors& t) {
    for (int64_t b = 0; t.key_lengths != nullptr && b < d.batch; ++b) {
      if (t.key_lengths[b] < 0 || t.key_lengths[b] > d.seqlen_kv) {
        return Refuse(d, "key_lengths must lie in [0, seqlen_kv]", {{"batch", b}, {"key_length", t.key_lengths[b]}});
      }
    }
    return {};
  }

  static bool IsEmpty(const MultiHeadAttentionDesc& d) { return d.batch == 0 || d.seqlen_q == 0; }

 private:
  static Status CheckPlain(const MultiHeadAttentionDesc& d, const MultiHeadAttentionTensors& t) {
    if (t.q == nullptr) return Refuse(d, "q must not be null");
    if (t.k == nullptr && d.seqlen_kv > 0) return Refuse(d, "k must not be null");
    if (t.v == nullptr && d.seqlen_kv > 0) return Refuse(d, "v must not be null");
    if (t.o == nullptr) return Refuse(d, "o must not be null");
    if (t.x != nullptr || t.memory != nullptr || t.y != nullptr || t.k_cache != nullptr || t.v_cache != nullptr ||
        t.position != 0) {
      return Refuse(d, "x, memory, y, the caches and position need projections=1");
    }
    return {};
  }

  static Status CheckLayer(const MultiHeadAttentionDesc& d, const MultiHeadAttentionTensors& t) {
    const bool cross = d.memory_dim != 0, cached = t.k_cache != nullptr;
    if (t.x == nullptr) return Refuse(d, "x must not be null");
    if (t.y == nullptr) return Refuse(d, "y must not be null");
    if (t.q != nullptr || t.k != nullptr || t.v != nullptr || t.o != nullptr) {
      return Refuse(d, "q, k, v and o must be null with projections=1");
    }
    if (cached != (t.v_cache != nullptr)) return Refuse(d, "k_cache and v_cache must be given both or neither");
    if (cross && t.memory == nullptr && !cached && d.seqlen_kv > 0) {
      return Refuse(d, "without memory the caches must hold its keys and values");
    }
    if (!cross && t.memory != nullptr) return Refuse(d, "memory needs memory_dim");
    if (cross && t.position != 0) {
      return Refuse(d, "position must be 0 in cross-attention", {{"position", t.position}});
    }
    if (!cross && (t.position < 0 || t.position > d.seqlen_kv - d.seqlen_q)) {
      return Refuse(d, "position must lie in [0, seqlen_kv - seqlen_q]", {{"position", t.position}});
    }
    if (!cross && !cached && (t.position != 0 || d.seqlen_kv != d.seqlen_q)) {
      return Refuse(d, "without caches position must be 0 and seqlen_kv = seqlen_q", {{"position", t.position}});
    }
    return {};
  }
};

template class Operator<MultiHeadAttentionDesc, MultiHeadAttentionWeights, MultiHeadAttentionTensors>;

}  // namespace lamina
