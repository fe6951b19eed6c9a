#include "kernels/operators/backends.h"

namespace lamina::cuda {

CandidateList<SeparableConv2d> SeparableConv2dCandidates() { return {}; }

}  // namespace lamina::cuda
