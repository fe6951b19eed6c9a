#include "kernels/cuda/sm90/start_depthwise.cuh"

namespace lamina::cuda {

template Error StartTmaDepthwise<float>(const TmaDepthwiseArgs&, int, void*);

}  // namespace lamina::cuda
