// conv2d on the CPU: its candidates.
#include "kernels/cpu/conv2d_candidates.h"
#include "kernels/operators/backends.h"

namespace lamina::cpu {

CandidateList<Conv2d> Conv2dCandidates() {
  static const Candidate<Conv2d> kCandidates[] = {DepthwiseConv2d(),    DepthwisePlanesConv2d(), PointwiseConv2d(),
                                                  PlanesGemmConv2d(),   Winograd4x4Conv2d(),     Winograd2x2Conv2d(),
                                                  ImplicitGemmConv2d(), TransposedGemmConv2d()};
  return kCandidates;
}

}  // namespace lamina::cpu
