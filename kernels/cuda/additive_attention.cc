#include "kernels/operators/backends.h"

namespace lamina::cuda {

CandidateList<AdditiveAttention::Base> AdditiveAttentionCandidates() { return {}; }

}  // namespace lamina::cuda
