#include "kernels/cuda/portable/start_depthwise.cuh"

namespace lamina::cuda {

template Error StartDepthwise<F16>(const DepthwiseArgs&, DepthwiseVariant, void*);

}  // namespace lamina::cuda
