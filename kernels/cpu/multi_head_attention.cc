// multi_head_attention on the CPU: its candidates, and the layer's projections around any of them.
#include "lamina/multi_head_attention.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "kernels/cpu/aligned.h"
#include "kernels/cpu/attention_form.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/operators/backends.h"
#include "kernels/operators/packing.h"

namespace lamina::cpu {
namespace {

using Desc = MultiHeadAttentionDesc;
using Tensors = MultiHeadAttentionTensors;
using Weights = MultiHeadAttentionWeights;
using KernelPtr = std::shared_ptr<const Kernel<MultiHeadAttention>>;

constexpr AttentionForm kForms[] = {AttentionForm::kFlash, AttentionForm::kDecode};

AttentionForm FastestForm(const Desc& d, const Context& context) {
  return *std::min_element(std::begin(kForms), std::end(kForms), [&](AttentionForm a, AttentionForm b) {
    return PredictAttention(a, d, *context.machine, context.isa) <
           PredictAttention(b, d, *context.machine, context.isa);
  });
}

// Rows of q, k and v when heads lie side by side, and of o.
int64_t QRow(const Desc& d) { return d.num_heads * d.head_dim; }
int64_t KRow(const Desc& d) { return d.kv_heads() * d.head_dim; }
int64_t VRow(const Desc& d) { return d.kv_heads() * d.v_dim(); }
int64_t ORow(const Desc& d) { return d.num_heads * d.v_dim(); }
bool IsCross(const Desc& d) { return d.memory_dim != 0; }

// Scratch rows are an odd number of cache lines apart: rows 4 KiB apart would share a few sets of the L1 cache.
int64_t ScratchRow(int64_t columns) {
  return (columns + 15) / 16 % 2 == 1 ? (columns + 15) / 16 * 16 : (columns + 31) / 16 * 16;
}

// The packed weights: of self-attention Q, K and V as one matrix, of cross-attention Q and then K and V.
struct Projections {
  PackedMatrix q, kv, o;  // q: all three in self-attention, and kv empty
  size_t bytes() const { return q.bytes() + kv.bytes() + o.bytes(); }
};

// One matrix from the rows of several with k columns each.
struct Part {
  const void *w, *bias;
  int64_t rows;
};
Result<PackedMatrix> PackParts(Isa isa, int64_t m, int64_t k, bool with_bias, std::initializer_list<Part> parts) {
  int64_t n = 0;
  for (const Part& part : parts) n += part.rows;
  if (packing::Loading()) return PackedMatrix::Pack(isa, MatMulKernel(isa, m), k, n, nullptr, k, 1, nullptr);
  const AlignedBuffer w(static_cast<size_t>(n * k) * sizeof(float)), bias(static_cast<size_t>(n) * sizeof(float));
  if (w.data() == nullptr || bias.data() == nullptr) {
    return Status{StatusCode::kOutOfMemory, "no memory to put the projections' weights together"};
  }
  float *to = w.as<float>(), *to_bias = bias.as<float>();
  for (const Part& part : parts) {
    to = std::copy_n(static_cast<const float*>(part.w), part.rows * k, to);
    if (with_bias) to_bias = std::copy_n(static_cast<const float*>(part.bias), part.rows, to_bias);
  }
  return PackedMatrix::Pack(isa, MatMulKernel(isa, m), k, n, w.as<float>(), k, 1,
                            with_bias ? bias.as<float>() : nullptr);
}

Result<std::shared_ptr<const Projections>> PackProjections(const Desc& d, const Weights& w, Isa isa) {
  auto packed = std::make_shared<Projections>();
  const Part q{w.wq, w.bq, QRow(d)}, k{w.wk, w.bk, KRow(d)}, v{w.wv, w.bv, VRow(d)}, o{w.wo, w.bo, d.model_dim};
  const auto pack = [&](PackedMatrix& into, int64_t rows, int64_t channels,
                        std::initializer_list<Part> parts) -> Status {
    Result<PackedMatrix> matrix = PackParts(isa, d.batch * rows, channels, d.projection_bias, parts);
    if (!matrix.ok()) return matrix.status();
    into = std::move(*matrix);
    return {};
  };
  const Status status =
      IsCross(d) ? pack(packed->q, d.seqlen_q, d.model_dim, {q}) : pack(packed->q, d.seqlen_q, d.model_dim, {q, k, v});
  if (!status.ok()) return status;
  if (IsCross(d)) {
    if (Status s = pack(packed->kv, d.seqlen_kv, d.memory_dim, {k, v}); !s.ok()) return s;
  }
  if (Status s = pack(packed->o, d.seqlen_q, ORow(d), {o}); !s.ok()) return s;
  return std::shared_ptr<const Projections>(std::move(packed));
}

class AttentionKernel final : public Kernel<MultiHeadAttention> {
 public:
  // form: empty for whichever is the fastest, at each Reshape anew.
  AttentionKernel(const Desc& desc, std::optional<AttentionForm> form, const Context& context,
                  std::shared_ptr<const Projections> projections)
      : desc_(desc),
        form_(form),
        context_(context),
        projections_(std::move(projections)),
        attention_(form ? *form : FastestForm(desc, context), desc, context) {}

  Status Run(const Tensors& t, std::byte* scratch) const override {
    if (projections_ != nullptr) {
      RunLayer(t, scratch);
    } else {
      AttentionOperands op = Operands(t);
      op.q = static_cast<const float*>(t.q);
      op.k = static_cast<const float*>(t.k);
      op.v = static_cast<const float*>(t.v);
      op.o = static_cast<float*>(t.o);
      attention_.Run(op, scratch);
    }
    return {};
  }
  size_t scratch_bytes() const override {
    return attention_.scratch_bytes() +
           static_cast<size_t>(projections_ ? QFloats() + KvFloats() + OFloats() : 0) * sizeof(float);
  }
  size_t packed_bytes() const override { return projections_ ? projections_->bytes() : 0; }
  Result<KernelPtr> Reshape(const Desc& desc) const override {
    return KernelPtr(std::make_shared<AttentionKernel>(desc, form_, context_, projections_));
  }

 private:
  // Floats of the projections' outputs in scratch.
  int64_t QColumns() const { return IsCross(desc_) ? QRow(desc_) : QRow(desc_) + KRow(desc_) + VRow(desc_); }
  int64_t KvColumns() const { return KRow(desc_) + VRow(desc_); }
  int64_t QFloats() const { return desc_.batch * desc_.seqlen_q * ScratchRow(QColumns()); }
  int64_t KvFloats() const { return IsCross(desc_) ? desc_.batch * desc_.seqlen_kv * ScratchRow(KvColumns()) : 0; }
  int64_t OFloats() const { return desc_.batch * desc_.seqlen_q * ScratchRow(ORow(desc_)); }

  AttentionOperands Operands(const Tensors& t) const {
    AttentionOperands op;
    op.q_strides = desc_.q_strides();
    op.k_strides = desc_.k_strides();
    op.v_strides = desc_.v_strides();
    op.o_strides = desc_.o_strides();
    op.key_lengths = t.key_lengths;
    op.key_length = desc_.projections && !IsCross(desc_) ? t.position + desc_.seqlen_q : desc_.seqlen_kv;
    op.tensors = &t;
    return op;
  }
  void RunLayer(const Tensors& t, std::byte* scratch) const;
  void WriteCaches(const Tensors& t, const float* k, const float* v, int64_t rows, int64_t row_stride) const;

  Desc desc_;
  std::optional<AttentionForm> form_;
  Context context_;
  std::shared_ptr<const Projections> projections_;
  Attention attention_;
};

// The new rows of k and v, whose heads lie side by side, to where the caches have them.
void AttentionKernel::WriteCaches(const Tensors& t, const float* k, const float* v, int64_t rows,
                                  int64_t row_stride) const {
  const Desc& d = desc_;
  const auto write = [&](const float* from, int64_t b, int64_t j, void* cache, const AttentionStrides& s, int64_t dim) {
    float* const to = static_cast<float*>(cache) + b * s.batch + (t.position + j) * s.row;
    for (int64_t h = 0; h < d.kv_heads(); ++h) {
      std::copy_n(from + (b * rows + j) * row_stride + h * dim, dim, to + h * s.head);
    }
  };
  constexpr int64_t kRows = 16;  // of a task
  const int64_t tasks = (rows + kRows - 1) / kRows;
  ParallelTasks(*context_.pool, static_cast<size_t>(d.batch * tasks), [&](size_t task, size_t) {
    const int64_t b = static_cast<int64_t>(task) / tasks, first = static_cast<int64_t>(task) % tasks * kRows;
    for (int64_t j = first; j < std::min(rows, first + kRows); ++j) {
      write(k, b, j, t.k_cache, d.k_strides(), d.head_dim);
      write(v, b, j, t.v_cache, d.v_strides(), d.v_dim());
    }
  });
}

void AttentionKernel::RunLayer(const Tensors& t, std::byte* scratch) const {
  const Desc& d = desc_;
  float* const q = reinterpret_cast<float*>(scratch);  // [batch, seqlen_q, QColumns]
  float* const kv = q + QFloats();                     // cross-attention: [batch, seqlen_kv, KvColumns]
  float* const o = kv + KvFloats();                    // [batch, seqlen_q, ORow]
  const int64_t tokens = d.batch * d.seqlen_q, q_row = ScratchRow(QColumns()), o_row = ScratchRow(ORow(d));
  MatMul(*context_.pool, projections_->q,
         {.m = tokens,
          .a = static_cast<const float*>(t.x),
          .a_stride = d.x_stride ? d.x_stride : d.model_dim,
          .c = q,
          .c_stride = q_row});
  // Where the new keys are: behind their queries, or the memory's.
  const float* k = q + QRow(d);
  int64_t rows = d.seqlen_q, row_stride = q_row;
  if (IsCross(d)) {
    k = kv;
    rows = t.memory != nullptr ? d.seqlen_kv : 0;
    row_stride = ScratchRow(KvColumns());
    MatMul(*context_.pool, projections_->kv,
           {.m = d.batch * rows,
            .a = static_cast<const float*>(t.memory),
            .a_stride = d.memory_stride ? d.memory_stride : d.memory_dim,
            .c = kv,
            .c_stride = row_stride});
  }
  const float* const v = k + KRow(d);

  AttentionOperands op = Operands(t);
  op.q = q;
  op.q_strides = {d.seqlen_q * q_row, q_row, d.head_dim};
  op.o = o;
  op.o_strides = {d.seqlen_q * o_row, o_row, d.v_dim()};
  if (t.k_cache != nullptr) {
    if (rows > 0) WriteCaches(t, k, v, rows, row_stride);
    op.k = static_cast<const float*>(t.k_cache);
    op.v = static_cast<const float*>(t.v_cache);
  } else {
    op.k = k;
    op.v = v;
    op.k_strides = {rows * row_stride, row_stride, d.head_dim};
    op.v_strides = {rows * row_stride, row_stride, d.v_dim()};
  }
  attention_.Run(op, reinterpret_cast<std::byte*>(o + OFloats()));
  MatMul(*context_.pool, projections_->o,
         {.m = tokens,
          .a = o,
          .a_stride = o_row,
          .c = static_cast<float*>(t.y),
          .c_stride = d.y_stride ? d.y_stride : d.model_dim});
}

double PredictProjections(const Desc& d, const Context& context) {
  if (!d.projections) return 0;
  const auto predict = [&](int64_t m, int64_t n, int64_t k) {
    return PredictMatMul(*context.machine, context.isa, 1, m, n, k);
  };
  const int64_t tokens = d.batch * d.seqlen_q;
  const double inputs = IsCross(d) ? predict(tokens, QRow(d), d.model_dim) +
                                         predict(d.batch * d.seqlen_kv, KRow(d) + VRow(d), d.memory_dim)
                                   : predict(tokens, QRow(d) + KRow(d) + VRow(d), d.model_dim);
  return inputs + predict(tokens, d.model_dim, ORow(d));
}

Judgement JudgeForm(const Desc& d, const Context& context, std::optional<AttentionForm> form) {
  if (d.dtype != DType::kF32) return Refused("only dtype=f32 is computed on the CPU");
  const double one_thread = PredictProjections(d, context) +
                            PredictAttention(form ? *form : FastestForm(d, context), d, *context.machine, context.isa);
  return Accepted(one_thread / static_cast<double>(context.pool->num_threads()));
}

Result<KernelPtr> PrepareForm(const Desc& d, const Weights& w, const Context& context,
                              std::optional<AttentionForm> form) {
  std::shared_ptr<const Projections> projections;
  if (d.projections) {
    auto packed = PackProjections(d, w, context.isa);
    if (!packed.ok()) return packed.status();
    projections = std::move(*packed);
  }
  return KernelPtr(std::make_shared<AttentionKernel>(d, form, context, std::move(projections)));
}

template <AttentionForm kForm>
constexpr Candidate<MultiHeadAttention> Form(const char* name) {
  return {name, [](const Desc& d, const Context& c) { return JudgeForm(d, c, kForm); },
          [](const Desc& d, const Weights& w, const Context& c) { return PrepareForm(d, w, c, kForm); }};
}

}  // namespace

CandidateList<MultiHeadAttention> MultiHeadAttentionCandidates() {
  // The first takes the form that is predicted to be the fastest, and follows Reshape from a prompt to single steps.
  static const Candidate<MultiHeadAttention> kCandidates[] = {
      {"by_shape", [](const Desc& d, const Context& c) { return JudgeForm(d, c, std::nullopt); },
       [](const Desc& d, const Weights& w, const Context& c) { return PrepareForm(d, w, c, std::nullopt); }},
      Form<AttentionForm::kFlash>("flash"),
      Form<AttentionForm::kDecode>("decode_split512"),
  };
  return kCandidates;
}

}  // namespace lamina::cpu
