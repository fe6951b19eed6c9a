#include "kernels/cuda/sm90/start_depthwise.cuh"

namespace lamina::cuda {

template Error StartTmaDepthwise<F16>(const TmaDepthwiseArgs&, int, void*);

}  // namespace lamina::cuda
