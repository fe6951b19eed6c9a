#include "kernels/cpu/attention_form.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/round.h"
#include "kernels/cpu/thread_pool.h"

namespace lamina::cpu {
namespace {

constexpr size_t kSplitKeys = 512;  // of a decode task: fixed, so that results do not depend on the number of threads

// Stacking the heads of a group lets them share each key; with many queries there is nothing to gain.
bool Stacks(AttentionForm form, const MultiHeadAttentionDesc& d, size_t flash_rows) {
  return form == AttentionForm::kDecode || static_cast<size_t>(d.seqlen_q) < flash_rows;
}

}  // namespace

double PredictAttention(AttentionForm form, const MultiHeadAttentionDesc& d, const Machine& machine, Isa isa) {
  MultiHeadAttentionDesc plain = d;
  plain.projections = false;
  const double peak = machine.Gflops(isa, 1);  // flops per ns
  const double pairs = static_cast<double>(CostOf(plain).macs) / static_cast<double>(d.head_dim + d.v_dim());
  const double flops_per_pair = 2.0 * static_cast<double>(d.head_dim + d.v_dim());
  const double kv_bytes = 4.0 * static_cast<double>(d.batch * d.seqlen_kv * d.kv_heads() * (d.head_dim + d.v_dim()));
  const double memory_ns = kv_bytes / machine.Gbps(static_cast<int64_t>(kv_bytes), 1);
  const double queries = static_cast<double>(d.batch * d.num_heads * d.seqlen_q);
  if (form == AttentionForm::kDecode) {
    // Fractions of the peak with 1, 2 and 4 rows a key: 16, 30 and 37% on AVX-512, 25 and 36% on AVX2, which has
    // registers for two (Emerald Rapids, 2026-11-23).
    const DecodeKernel& kernel = GetDecodeKernel(isa);
    const auto rows = static_cast<double>(std::min(StackedRows(d), kernel.rows));
    const double efficiency = std::min(0.36, 2.6 * rows / static_cast<double>(kernel.lanes));
    const double tasks =
        static_cast<double>(d.batch * d.kv_heads()) * std::ceil(static_cast<double>(d.seqlen_kv) / kSplitKeys);
    return std::max(pairs * flops_per_pair / (efficiency * peak), memory_ns) + 300 * tasks;
  }
  const FlashKernel& kernel = GetFlashKernel(isa);
  const size_t block = kernel.vectors * kernel.lanes, most = static_cast<size_t>(d.seqlen_q);
  const size_t rows = most < block ? StackedRows(d) : most;  // of a unit
  // Lanes without a query are computed too, and so are a vector's keys beyond the diagonal.
  const double fill = static_cast<double>(rows) / static_cast<double>(RoundUp(rows, kernel.lanes));
  const bool cut = d.causal != Causal::kNone || d.window_left >= 0 || d.window_right >= 0;
  const double wasted = cut ? queries * 0.5 * static_cast<double>(std::min(kernel.lanes, most)) : 0;
  // Fractions of the peak with tiles of 1, 2 and more vectors of queries (the same machine and day).
  const size_t used = std::min(kernel.vectors, DivUp(rows, kernel.lanes));
  const double efficiency = used <= 1 ? 0.52 : used == 2 ? 0.74 : 0.78;
  return std::max((pairs + wasted) / fill * flops_per_pair / (efficiency * peak), memory_ns) +
         100 * queries / fill / static_cast<double>(kernel.lanes);
}

Attention::Attention(AttentionForm form, const MultiHeadAttentionDesc& desc, const Context& context)
    : form_(form),
      problem_(desc, false),
      pool_(context.pool),
      flash_(&GetFlashKernel(context.isa)),
      decode_(&GetDecodeKernel(context.isa)) {
  problem_ = AttentionProblem(desc, Stacks(form, desc, flash_->lanes * flash_->vectors));
  const double keys = static_cast<double>(desc.batch * desc.kv_heads()) * static_cast<double>(desc.seqlen_kv);
  const double cached = static_cast<double>(std::max(context.machine->l2.bytes, context.machine->l3.bytes / 2));
  streamed_ = 4 * keys * static_cast<double>(desc.head_dim + desc.v_dim()) > cached;
}

size_t Attention::WorkerFloats() const {
  const AttentionBlock options = problem_.Options();
  return RoundUp(form_ == AttentionForm::kDecode ? decode_->scratch_floats(options) : flash_->scratch_floats(options),
                 16);
}

size_t Attention::splits() const {
  return std::max<size_t>(1, (static_cast<size_t>(problem_.desc().seqlen_kv) + kSplitKeys - 1) / kSplitKeys);
}

size_t Attention::scratch_bytes() const {
  size_t floats = WorkerFloats() * pool_->num_threads();
  if (form_ == AttentionForm::kDecode) {
    const size_t queries = batch() * problem_.units() * problem_.rows();
    floats += queries * (splits() * PartialFloats(static_cast<size_t>(problem_.desc().v_dim())) + 2);
  }
  return floats * sizeof(float);
}

void Attention::Run(const AttentionOperands& operands, std::byte* scratch) const {
  if (form_ == AttentionForm::kDecode) {
    RunDecode(operands, reinterpret_cast<float*>(scratch));
  } else {
    RunFlash(operands, reinterpret_cast<float*>(scratch));
  }
}

void Attention::RunFlash(const AttentionOperands& operands, float* scratch) const {
  // Blocks of whole vectors that differ by one at most: a small rest would read all keys for few queries.
  const size_t lanes = flash_->lanes, rows = problem_.rows(), vectors = DivUp(rows, lanes);
  const size_t blocks = DivUp(vectors, flash_->vectors), worker_floats = WorkerFloats();
  ParallelTasks(*pool_, batch() * problem_.units() * blocks, [&](size_t task, size_t worker) {
    const size_t unit = task / blocks % problem_.units(), b = task / blocks / problem_.units();
    const size_t block = blocks - 1 - task % blocks;  // under a causal mask the longest come first
    const size_t begin = block * vectors / blocks * lanes;
    const size_t count = std::min(rows, (block + 1) * vectors / blocks * lanes) - begin;
    flash_->run(problem_.Block(operands, b, unit, begin, count, RoundUp(count, lanes)),
                scratch + worker * worker_floats);
  });
}

void Attention::RunDecode(const AttentionOperands& operands, float* scratch) const {
  const size_t rows = problem_.rows(), units = problem_.units(),
               partial_floats = PartialFloats(problem_.Options().value_dim);
  const size_t unit_floats = splits() * rows * partial_floats, worker_floats = WorkerFloats();
  float* const partials = scratch + pool_->num_threads() * worker_floats;  // [batch, unit, split, row][PartialFloats]
  float* const softmax = partials + batch() * units * unit_floats;         // [batch, unit][2][row]: maximum, 1 / sum
  // f(block, row, split) for the blocks of one task, their keys cut to the split's.
  const auto for_each_block = [&](size_t task, const auto& f) {
    const size_t split = task % splits(), unit = task / splits() % units, b = task / splits() / units;
    for (size_t row = 0; row < rows; row += decode_->rows) {
      const size_t count = std::min(decode_->rows, rows - row);
      AttentionBlock block = problem_.Block(operands, b, unit, row, count, RoundUp(count, decode_->lanes));
      block.streamed = streamed_;
      block.begin = std::max(block.begin, split * kSplitKeys);
      block.end = std::min(block.end, (split + 1) * kSplitKeys);
      f(block, row, b * units + unit, split);
    }
  };
  ParallelTasks(*pool_, batch() * units * splits(), [&](size_t task, size_t worker) {
    for_each_block(task, [&](const AttentionBlock& block, size_t row, size_t at, size_t split) {
      float* const partial = partials + at * unit_floats + (split * rows + row) * partial_floats;
      if (block.begin < block.end) return decode_->run(block, partial, scratch + worker * worker_floats);
      for (size_t r = 0; r < block.rows; ++r) {
        partial[r * partial_floats + MaximumAt(block.value_dim)] = kLowest;
        partial[r * partial_floats + SumAt(block.value_dim)] = 0.0f;
      }
    });
  });
  ParallelTasks(*pool_, batch() * units, [&](size_t task, size_t) {
    Merge(operands, task / units, task % units, partials + task * unit_floats, softmax + task * 2 * rows);
  });
  if (operands.tensors->weights == nullptr) return;
  ParallelTasks(*pool_, batch() * units * splits(), [&](size_t task, size_t worker) {
    for_each_block(task, [&](const AttentionBlock& block, size_t row, size_t at, size_t split) {
      const size_t end = std::min(block.seqlen_kv, (split + 1) * kSplitKeys);
      for (size_t r = 0; r < block.rows; ++r) {
        float* const weights = block.weights + r * block.seqlen_kv;
        std::fill(weights + split * kSplitKeys, weights + end, 0.0f);
      }
      if (block.begin >= block.end) return;
      const float* const of_rows = softmax + at * 2 * rows + row;
      decode_->weights(block, of_rows, of_rows + rows, scratch + worker * worker_floats);
    });
  });
}

// Partial softmaxes of one unit, in the order of the keys.
void Attention::Merge(const AttentionOperands& operands, size_t b, size_t unit, const float* partials,
                      float* softmax) const {
  const size_t rows = problem_.rows(), value_dim = problem_.Options().value_dim, floats = PartialFloats(value_dim);
  for (size_t row = 0; row < rows; ++row) {
    const AttentionBlock block = problem_.Block(operands, b, unit, row, 1, 1);
    const auto partial = [&](size_t split) { return partials + (split * rows + row) * floats; };
    float maximum = kLowest, sum = 0;
    for (size_t s = 0; s < splits(); ++s) {
      const float m = partial(s)[MaximumAt(value_dim)];
      if (m > maximum) maximum = m;
    }
    float* const o = block.o[0];
    std::fill_n(o, value_dim, 0.0f);
    for (size_t s = 0; s < splits(); ++s) {
      const float* const p = partial(s);
      if (p[SumAt(value_dim)] == 0) continue;  // nothing kept; its values were never written
      const float weight = std::exp2(p[MaximumAt(value_dim)] - maximum);
      sum += weight * p[SumAt(value_dim)];
      for (size_t c = 0; c < value_dim; ++c) o[c] += weight * p[c];
    }
    const float factor = sum == 0 ? 0.0f : 1 / sum;
    for (size_t c = 0; c < value_dim; ++c) o[c] *= factor;
    if (block.lse != nullptr) *block.lse = LogSumExp(maximum, sum);
    softmax[row] = maximum;
    softmax[rows + row] = factor;
  }
}

}  // namespace lamina::cpu
