// fully_connected on CUDA: the matrix product with one image of 1 x m pixels.
#include "kernels/cuda/gemm_operator.h"
#include "kernels/operators/backends.h"

namespace lamina::cuda {

template <>
struct GemmTraits<FullyConnected> {
  static GemmSizes Sizes(const FullyConnectedDesc& d) { return {d.m, d.oc, d.ic, 1}; }

  static GemmArgs Shape(const FullyConnectedDesc& d) {
    GemmArgs a;
    a.rows = a.iw = static_cast<int>(d.m);
    a.pixels = a.ow = Divider::Of(static_cast<uint32_t>(d.m > 0 ? d.m : 1));
    a.x_pixel = d.x_stride ? d.x_stride : d.ic;
    a.x_channel = 1;
    a.k = a.channels = static_cast<int>(d.ic);
    a.n = static_cast<int>(d.oc);
    a.epilogue.activation = d.activation;
    a.epilogue.residual_kind = d.residual;
    a.epilogue.y_strides = {0, d.y_stride ? d.y_stride : d.oc, 1};
    a.epilogue.residual_strides = {0, d.residual_stride ? d.residual_stride : d.oc, 1};
    return a;
  }

  static HostWeights Host(const FullyConnectedDesc& d, const FullyConnectedWeights& w) {
    const bool oi = d.weight_layout == MatrixLayout::kOi;
    return {.w = w.w,
            .bias = d.bias ? w.bias : nullptr,
            .n = static_cast<int>(d.oc),
            .channels = static_cast<int>(d.ic),
            .n_stride = oi ? d.ic : 1,
            .channel_stride = oi ? 1 : d.oc};
  }
};

CandidateList<FullyConnected> FullyConnectedCandidates() { return kGemmCandidates<FullyConnected>; }

}  // namespace lamina::cuda
