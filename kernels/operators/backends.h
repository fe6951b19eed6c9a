// Who offers candidates for what. A backend's own folder defines its functions.
#ifndef LAMINA_KERNELS_OPERATORS_BACKENDS_H_
#define LAMINA_KERNELS_OPERATORS_BACKENDS_H_

#include "kernels/operators/candidate.h"
#include "lamina/additive_attention.h"
#include "lamina/conv2d.h"
#include "lamina/fully_connected.h"
#include "lamina/multi_head_attention.h"
#include "lamina/separable_conv2d.h"

namespace lamina::cpu {

CandidateList<Conv2d> Conv2dCandidates();
CandidateList<SeparableConv2d> SeparableConv2dCandidates();
CandidateList<FullyConnected> FullyConnectedCandidates();
CandidateList<AdditiveAttention::Base> AdditiveAttentionCandidates();
CandidateList<MultiHeadAttention> MultiHeadAttentionCandidates();

}  // namespace lamina::cpu

// Backend::kReference: reference/<op>.cc behind the same contract.
namespace lamina::oracle {

CandidateList<Conv2d> Conv2dCandidates();
CandidateList<SeparableConv2d> SeparableConv2dCandidates();
CandidateList<FullyConnected> FullyConnectedCandidates();
CandidateList<AdditiveAttention::Base> AdditiveAttentionCandidates();
CandidateList<MultiHeadAttention> MultiHeadAttentionCandidates();

}  // namespace lamina::oracle

// Backend::kCuda: kernels/cuda/, or its not_built.cc, whose lists are empty.
namespace lamina::cuda {

// Ok when kernels can run on `stream` of the current device; else kNotBuilt, kUnsupportedHardware or kDeviceError.
Status Available(void* stream);
bool Built();

CandidateList<Conv2d> Conv2dCandidates();
CandidateList<SeparableConv2d> SeparableConv2dCandidates();
CandidateList<FullyConnected> FullyConnectedCandidates();
CandidateList<AdditiveAttention::Base> AdditiveAttentionCandidates();
CandidateList<MultiHeadAttention> MultiHeadAttentionCandidates();

}  // namespace lamina::cuda

namespace lamina {

// The candidates of one operator that `backend` offers.
template <class List>
List OfferedBy(Backend backend, List (*cpu)(), List (*reference)(), List (*cuda)()) {
  switch (backend) {
    case Backend::kCpu: return cpu();
    case Backend::kReference: return reference();
    case Backend::kCuda: return cuda();
  }
  return {};
}

}  // namespace lamina

#endif  // LAMINA_KERNELS_OPERATORS_BACKENDS_H_
