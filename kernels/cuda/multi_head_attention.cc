#include "kernels/operators/backends.h"

namespace lamina::cuda {

CandidateList<MultiHeadAttention> MultiHeadAttentionCandidates() { return {}; }

}  // namespace lamina::cuda
