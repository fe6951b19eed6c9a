// multi_head_attention on the CPU: its candidates.
#include "kernels/operators/backends.h"

namespace lamina::cpu {

CandidateList<MultiHeadAttention> MultiHeadAttentionCandidates() { return {}; }

}  // namespace lamina::cpu
