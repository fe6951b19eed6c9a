// additive_attention on the CPU. Both candidates take the same road and differ in what a score is made from:
//
//   prepared keys   E = exp(2 key_w h) or key_w h itself, [batch, keys, units]: PrepareKeys, or the start of a Run
//   queries         query_w q + bias by one MatMul over the whole batch
//   blocks          of up to 16 queries of one batch element, as tasks: scores over the live keys, softmax, context
//
// The live keys of a block are a list of row numbers; what is masked is never touched. Queries with masks of their own
// go one by one. A block's results depend on its queries and keys alone: neither on threads nor on what else is in the
// batch.
#include <algorithm>

#include "kernels/cpu/additive_context.h"
#include "kernels/cpu/additive_pack.h"
#include "kernels/cpu/additive_score.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/operators/backends.h"
#include "kernels/operators/prepared_keys.h"
#include "kernels/operators/resolve.h"

namespace lamina::cpu {
namespace {

using Op = AdditiveAttention::Base;
using Desc = AdditiveAttentionDesc;

// Queries of a task: their exponentials (32 KB at 512 units) and four key rows fit in L1.
constexpr int64_t kQueryBlock = 16;
constexpr size_t kKeyRowsPerTask = 64;

int64_t StrideOf(int64_t asked, int64_t dense) { return asked ? asked : dense; }

// Where the parts of prepared keys lie, in bytes from their beginning: after the head.
struct KeyLayout {
  KeyLayout(const Desc& d, const AdditivePacked& p) {
    const auto keys = static_cast<size_t>(d.batch * d.keys);
    far = prepared_keys::HeadBytes(d);
    rows = far + RoundUp(keys, 64);
    bytes = rows + keys * p.units * sizeof(float);
  }
  size_t far;   // uint8_t [batch, keys]: 1 where the row holds key_w h because a unit is beyond kKeyLimit
  size_t rows;  // float [batch, keys, units]
  size_t bytes;
};

// Scratch, in bytes from its beginning.
struct Layout {
  Layout(const Desc& d, const AdditivePacked& p, size_t workers) {
    const auto rows = static_cast<size_t>(d.batch * d.queries), key_count = static_cast<size_t>(d.keys);
    const auto block = static_cast<size_t>(std::min(kQueryBlock, d.queries));
    score_stride = RoundUp(key_count, kRowBlock);
    keys = RoundUp(rows * p.units * sizeof(float), 64);
    workspace = keys + RoundUp(KeyLayout(d, p).bytes, 64);
    scores = p.form == AdditiveForm::kReciprocalQuad ? block * p.units * sizeof(float) : 0;
    live = scores + RoundUp(block * score_stride * sizeof(float), 64);
    workspace_bytes = live + RoundUp(key_count * sizeof(int32_t), 64);
    bytes = workspace + workers * workspace_bytes;
  }
  size_t keys, workspace;  // after [batch * queries, units] of projected queries
  size_t scores, live;     // in a worker's space, after [kQueryBlock, units] of exponentials
  size_t workspace_bytes, bytes, score_stride;
};

// FMAs' worth of time that a vector of terms takes, by Isa (Emerald Rapids, 2026-11-23).
constexpr double kQuadCost[kIsaCount] = {5.5, 2.0, 1.8, 3.5, 5.5};
constexpr double kTanhCost[kIsaCount] = {30, 23, 16, 22, 30};

// Nanoseconds of a Run that is given prepared keys.
double PredictWithPreparedKeys(AdditiveForm form, const Desc& d, const Context& context) {
  const Machine& machine = *context.machine;
  const int threads = static_cast<int>(context.pool->num_threads());
  const double pairs = static_cast<double>(d.batch * d.queries * d.keys);
  const double terms = pairs * static_cast<double>(d.units), sums = pairs * static_cast<double>(d.context_dim());
  const double cost = (form == AdditiveForm::kReciprocalQuad ? kQuadCost : kTanhCost)[static_cast<size_t>(context.isa)];
  const int64_t key_bytes = d.batch * d.keys * (d.units + d.context_dim()) * static_cast<int64_t>(sizeof(float));
  const double read = static_cast<double>(key_bytes) / machine.Gbps(key_bytes, threads);
  return PredictMatMul(machine, context.isa, threads, d.batch * d.queries, d.units, d.query_dim) +
         std::max(read, 2 * (terms * cost + sums * 1.3) / machine.Gflops(context.isa, threads));
}

class AdditiveAttentionKernel final : public Kernel<Op> {
 public:
  AdditiveAttentionKernel(const Desc& desc, std::shared_ptr<const AdditivePacked> packed, const Context& context)
      : d_(desc),
        packed_(std::move(packed)),
        context_(context),
        pool_(*context.pool),
        key_layout_(desc, *packed_),
        layout_(desc, *packed_, pool_.num_threads()),
        stays_in_one_thread_(
            StaysInOneThread(context, PredictWithPreparedKeys(packed_->form, desc, OnOneThread(context)))) {}

  Status Run(const AdditiveAttentionTensors& t, std::byte* scratch) const override {
    const auto* keys = static_cast<const std::byte*>(t.prepared_keys);
    // What was decided for this descriptor counts the keys' preparation, most of the work of a single step.
    const SerialScope scope(keys != nullptr && stays_in_one_thread_);
    if (keys != nullptr) {
      if (Status s = prepared_keys::CheckHead(d_, packed_->writer, t.key_lengths, keys); !s.ok()) return s;
    } else {
      if (Status s = PrepareKeys(t.keys, t.key_lengths, scratch + layout_.keys, scratch); !s.ok()) return s;
      keys = scratch + layout_.keys;
    }
    auto* projected = reinterpret_cast<float*>(scratch);
    Project(packed_->query_w, static_cast<const float*>(t.query), StrideOf(d_.query_stride, d_.query_dim),
            d_.batch * d_.queries, projected);

    const int64_t blocks = (d_.queries + kQueryBlock - 1) / kQueryBlock;
    ParallelTasks(pool_, static_cast<size_t>(d_.batch * blocks), [&](size_t task, size_t worker) {
      const int64_t b = static_cast<int64_t>(task) / blocks, first = static_cast<int64_t>(task) % blocks * kQueryBlock;
      Block(t, keys, projected, b, first, std::min(kQueryBlock, d_.queries - first),
            scratch + layout_.workspace + worker * layout_.workspace_bytes);
    });
    return {};
  }

  Status PrepareKeys(const void* keys, const int32_t* key_lengths, std::byte* prepared, std::byte*) const override {
    prepared_keys::WriteHead(d_, packed_->writer, key_lengths, prepared);
    // Whole batch elements that follow each other are projected together.
    for (int64_t b = 0; b < d_.batch; ++b) {
      const int64_t first = b * d_.keys;
      int64_t rows = prepared_keys::LengthOf(d_, key_lengths, b);
      while (first + rows == (b + 1) * d_.keys && b + 1 < d_.batch)
        rows += prepared_keys::LengthOf(d_, key_lengths, ++b);
      PrepareRows(static_cast<const float*>(keys), prepared, first, rows);
    }
    return {};
  }

  size_t prepared_keys_bytes() const override { return key_layout_.bytes; }
  size_t scratch_bytes() const override { return layout_.bytes; }
  size_t packed_bytes() const override {
    return packed_->query_w.bytes() + packed_->key_w.bytes() + packed_->vectors.bytes();
  }
  Result<std::shared_ptr<const Kernel>> Reshape(const Desc& desc) const override {
    return std::shared_ptr<const Kernel>(std::make_shared<AdditiveAttentionKernel>(desc, packed_, context_));
  }

 private:
  // projected[r, :] = w x[r] + bias with zeros in the padding units.
  void Project(const PackedMatrix& w, const float* x, int64_t stride, int64_t rows, float* projected) const {
    for (int64_t r = 0; r < rows; ++r) {
      float* row = projected + static_cast<size_t>(r) * packed_->units;
      std::fill(row + w.n(), row + packed_->units, 0.0f);
    }
    MatMulArgs args;
    args.m = rows;
    args.a = x;
    args.a_stride = stride;
    args.c = projected;
    args.c_stride = static_cast<int64_t>(packed_->units);
    MatMul(pool_, w, args);
  }

  // Rows [first, first + rows) of all batches' keys.
  void PrepareRows(const float* keys, std::byte* prepared, int64_t first, int64_t rows) const {
    const size_t units = packed_->units;
    auto* projected = reinterpret_cast<float*>(prepared + key_layout_.rows) + static_cast<size_t>(first) * units;
    auto* far = reinterpret_cast<uint8_t*>(prepared + key_layout_.far) + first;
    const int64_t stride = StrideOf(d_.key_stride, d_.key_dim);
    Project(packed_->key_w, keys + first * stride, stride, rows, projected);
    if (packed_->form == AdditiveForm::kTanh) return;
    const auto count = static_cast<size_t>(rows);
    ParallelTasks(pool_, (count + kKeyRowsPerTask - 1) / kKeyRowsPerTask, [&](size_t task, size_t) {
      const size_t last = std::min(count, (task + 1) * kKeyRowsPerTask);
      for (size_t r = task * kKeyRowsPerTask; r < last; ++r)
        far[r] = !packed_->score->exp_key(projected + r * units, units);
    });
  }

  // Queries [first, first + count) of batch element b.
  void Block(const AdditiveAttentionTensors& t, const std::byte* keys, const float* projected, int64_t b, int64_t first,
             int64_t count, std::byte* workspace) const {
    const AdditivePacked& p = *packed_;
    const float* query = projected + static_cast<size_t>(b * d_.queries + first) * p.units;
    auto* exponentials = reinterpret_cast<float*>(workspace);
    if (p.form == AdditiveForm::kReciprocalQuad) {
      for (size_t q = 0; q < static_cast<size_t>(count); ++q) {
        p.score->exp_query(query + q * p.units, p.factor(), exponentials + q * p.units, p.units);
      }
    }
    auto* live = reinterpret_cast<int32_t*>(workspace + layout_.live);
    const bool own_masks = d_.mask && d_.mask_queries > 1;
    const int64_t together = own_masks ? 1 : count;
    for (int64_t q = 0; q < count; q += together) {
      ContextArgs c;
      c.queries = static_cast<size_t>(together);
      c.keys = ListLive(t, b, own_masks ? first + q : 0, live);
      c.rows = live;
      auto* scores = reinterpret_cast<float*>(workspace + layout_.scores);
      Scores(keys, b, query + static_cast<size_t>(q) * p.units, exponentials + static_cast<size_t>(q) * p.units, c,
             scores);
      c.dim = static_cast<size_t>(d_.context_dim());
      c.weight = scores;
      c.weight_stride = layout_.score_stride;
      for (size_t i = 0; i < c.queries && c.keys > 0; ++i) p.context->softmax(scores + i * c.weight_stride, c.keys);
      const void* values = d_.value_dim ? t.values : t.keys;
      const int64_t stride = StrideOf(d_.value_dim ? d_.value_stride : d_.key_stride, d_.context_dim());
      c.value = static_cast<const float*>(values) + b * d_.keys * stride;
      c.value_stride = static_cast<size_t>(stride);
      const int64_t row = b * d_.queries + first + q;
      c.context_stride = static_cast<size_t>(StrideOf(d_.context_stride, d_.context_dim()));
      c.context = static_cast<float*>(t.context) + row * static_cast<int64_t>(c.context_stride);
      p.context->context(c);
      if (t.weights != nullptr) StoreWeights(c, t.weights + row * d_.keys);
    }
  }

  // The keys of batch element b that a query may see; returns their number.
  size_t ListLive(const AdditiveAttentionTensors& t, int64_t b, int64_t mask_query, int32_t* live) const {
    const int32_t length = prepared_keys::LengthOf(d_, t.key_lengths, b);
    const bool* mask = d_.mask ? t.mask + (b * d_.mask_queries + mask_query) * d_.keys : nullptr;
    size_t count = 0;
    for (int32_t j = 0; j < length; ++j) {
      if (mask == nullptr || mask[j]) live[count++] = j;
    }
    return count;
  }

  // Scores of c.queries queries with the c.keys live keys of c.rows.
  void Scores(const std::byte* keys, int64_t b, const float* query, const float* exponentials, const ContextArgs& c,
              float* scores) const {
    const AdditivePacked& p = *packed_;
    ScoreArgs s;
    s.queries = c.queries;
    s.keys = c.keys;
    s.units = p.units;
    s.query = query;
    s.key = reinterpret_cast<const float*>(keys + key_layout_.rows) + static_cast<size_t>(b * d_.keys) * p.units;
    s.rows = c.rows;
    s.v = p.v();
    s.score = scores;
    s.score_stride = layout_.score_stride;
    if (p.form == AdditiveForm::kTanh) return p.score->tanh(s);
    ScoreArgs quad = s;
    quad.query = exponentials;
    quad.v = p.c();
    quad.scale = p.scale();
    p.score->reciprocal_quad(quad);
    // Keys out of the reciprocal form's range, which trained models do not have: once more, by tanh.
    const auto* far = reinterpret_cast<const uint8_t*>(keys + key_layout_.far) + b * d_.keys;
    s.keys = 1;
    s.offset = p.offset();
    for (size_t j = 0; j < c.keys; ++j) {
      if (!far[c.rows[j]]) continue;
      s.rows = c.rows + j;
      s.score = scores + j;
      p.score->tanh(s);
    }
  }

  void StoreWeights(const ContextArgs& c, float* out) const {
    for (size_t i = 0; i < c.queries; ++i, out += d_.keys) {
      const float* weight = c.weight + i * c.weight_stride;
      if (c.keys == static_cast<size_t>(d_.keys)) {
        std::copy_n(weight, c.keys, out);
        continue;
      }
      std::fill_n(out, d_.keys, 0.0f);
      for (size_t j = 0; j < c.keys; ++j) out[c.rows[j]] = weight[j];
    }
  }

  Desc d_;
  std::shared_ptr<const AdditivePacked> packed_;
  Context context_;
  ThreadPool& pool_;
  KeyLayout key_layout_;
  Layout layout_;
  bool stays_in_one_thread_;
};

template <AdditiveForm kForm>
Result<std::shared_ptr<const Kernel<Op>>> Prepare(const Desc& d, const AdditiveAttentionWeights& w,
                                                  const Context& context) {
  auto packed = PackAdditive(kForm, context.isa, d, w);
  if (!packed.ok()) return packed.status();
  return std::shared_ptr<const Kernel<Op>>(std::make_shared<AdditiveAttentionKernel>(d, std::move(*packed), context));
}

template <AdditiveForm kForm>
Judgement Judge(const Desc& d, const Context& context) {
  if (d.dtype != DType::kF32) return Refused("dtype must be f32");
  return Accepted(PredictWithPreparedKeys(kForm, d, context) +
                  PredictMatMul(*context.machine, context.isa, static_cast<int>(context.pool->num_threads()),
                                d.batch * d.keys, d.units, d.key_dim));
}

constexpr Candidate<Op> kCandidates[] = {
    {"reciprocal_quad", &Judge<AdditiveForm::kReciprocalQuad>, &Prepare<AdditiveForm::kReciprocalQuad>},
    {"tanh", &Judge<AdditiveForm::kTanh>, &Prepare<AdditiveForm::kTanh>}};

}  // namespace

CandidateList<Op> AdditiveAttentionCandidates() { return kCandidates; }

}  // namespace lamina::cpu
