// The CUDA backend of a library that was built without a CUDA compiler.
#include "kernels/operators/backends.h"

namespace lamina::cuda {

Status Available(void*) {
  return {StatusCode::kNotBuilt, "context: backend cuda is not available: this library was built without CUDA"};
}

bool Built() { return false; }

CandidateList<Conv2d> Conv2dCandidates() { return {}; }
CandidateList<SeparableConv2d> SeparableConv2dCandidates() { return {}; }
CandidateList<FullyConnected> FullyConnectedCandidates() { return {}; }
CandidateList<AdditiveAttention::Base> AdditiveAttentionCandidates() { return {}; }
CandidateList<MultiHeadAttention> MultiHeadAttentionCandidates() { return {}; }

}  // namespace lamina::cuda
