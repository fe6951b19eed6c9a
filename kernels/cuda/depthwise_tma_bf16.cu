#include "kernels/cuda/sm90/start_depthwise.cuh"

namespace lamina::cuda {

template Error StartTmaDepthwise<Bf16>(const TmaDepthwiseArgs&, int, void*);

}  // namespace lamina::cuda
