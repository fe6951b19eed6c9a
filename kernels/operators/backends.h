// Who offers candidates for what. A backend's own folder defines its functions; kCuda's are empty when it is not built.
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

#endif  // LAMINA_KERNELS_OPERATORS_BACKENDS_H_
