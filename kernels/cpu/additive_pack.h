// The weights of additive attention as its CPU kernels want them, packed once.
#ifndef LAMINA_KERNELS_CPU_ADDITIVE_PACK_H_
#define LAMINA_KERNELS_CPU_ADDITIVE_PACK_H_

#include <memory>

#include "kernels/cpu/additive_context.h"
#include "kernels/cpu/additive_score.h"
#include "kernels/cpu/aligned.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/round.h"
#include "lamina/additive_attention.h"

namespace lamina::cpu {

enum class AdditiveForm { kReciprocalQuad, kTanh };

// Immutable; shared by all operators that Reshape makes.
struct AdditivePacked {
  const AdditiveScoreKernel* score = nullptr;
  const AdditiveContextKernel* context = nullptr;
  AdditiveForm form = AdditiveForm::kTanh;
  size_t units = 0;             // padded to whole blocks
  PackedMatrix query_w, key_w;  // in the reciprocal form, units change their signs together with v'
  AlignedBuffer vectors;        // v, c, factor: [units] each; scale, offset
  uint64_t writer = 0;          // what prepared keys are known by

  float* v() const { return vectors.as<float>(); }   // v', of the reciprocal form with alternating signs
  float* c() const { return v() + units; }           // reciprocal form: max|v'| / |v'|
  float* factor() const { return v() + 2 * units; }  // reciprocal form: of a query's exponentials
  // Reciprocal form: score = scale * sum; the tanh of a far key adds offset.
  float scale() const { return v()[3 * units]; }
  float offset() const { return v()[3 * units + 1]; }
};

// Fails only for want of memory. f32.
Result<std::shared_ptr<const AdditivePacked>> PackAdditive(AdditiveForm form, Isa isa,
                                                           const AdditiveAttentionDesc& desc,
                                                           const AdditiveAttentionWeights& weights);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_ADDITIVE_PACK_H_
