// separable_conv2d on the CPU: its candidates.
#include "kernels/cpu/separable_conv2d_steps.h"
#include "kernels/operators/backends.h"

namespace lamina::cpu {

CandidateList<SeparableConv2d> SeparableConv2dCandidates() {
  static const Candidate<SeparableConv2d> kCandidates[] = {FusedRowsSeparableConv2d(), UnfusedSeparableConv2d(),
                                                           PlanesSeparableConv2d()};
  return kCandidates;
}

}  // namespace lamina::cpu
