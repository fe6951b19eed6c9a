// One way of computing attention on the CPU, prepared for one descriptor: blocks over threads, partial softmaxes
// merged.
#ifndef LAMINA_KERNELS_CPU_ATTENTION_FORM_H_
#define LAMINA_KERNELS_CPU_ATTENTION_FORM_H_

#include <cstddef>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_problem.h"
#include "lamina/context.h"
#include "lamina/machine.h"
#include "lamina/multi_head_attention.h"

namespace lamina::cpu {

enum class AttentionForm {
  kFlash,   // flash attention, as many queries a block as the register tile has lanes: 64 on AVX-512
  kDecode,  // dot products along head_dim, the keys split by 512 and merged: few queries
};

// Nanoseconds on one thread. Threads divide every form's time alike, so they have no say in which is chosen, and
// results do not depend on them.
double PredictAttention(AttentionForm form, const MultiHeadAttentionDesc& desc, const Machine& machine, Isa isa);

class Attention {
 public:
  Attention(AttentionForm form, const MultiHeadAttentionDesc& desc, const Context& context);
  size_t scratch_bytes() const;
  void Run(const AttentionOperands& operands, std::byte* scratch) const;

 private:
  void RunFlash(const AttentionOperands& operands, float* scratch) const;
  void RunDecode(const AttentionOperands& operands, float* scratch) const;
  void Merge(const AttentionOperands& operands, size_t b, size_t unit, const float* partials, float* softmax) const;
  size_t WorkerFloats() const;  // scratch of one worker
  size_t splits() const;        // of the keys
  size_t batch() const { return static_cast<size_t>(problem_.desc().batch); }

  AttentionForm form_;
  AttentionProblem problem_;
  ThreadPool* pool_;
  const FlashKernel* flash_;
  const DecodeKernel* decode_;
  bool streamed_;  // K and V are larger than half the last cache
};

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_ATTENTION_FORM_H_
