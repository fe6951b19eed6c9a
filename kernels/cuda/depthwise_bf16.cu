#include "kernels/cuda/portable/start_depthwise.cuh"

namespace lamina::cuda {

template Error StartDepthwise<Bf16>(const DepthwiseArgs&, DepthwiseVariant, void*);

}  // namespace lamina::cuda
