// fully_connected on CUDA: the matrix product with one image of 1 x m pixels.
#include "kernels/cuda/gemm_operator.h"
#include "kernels/cuda/image.h"
#include "kernels/operators/backends.h"

namespace lamina::cuda {

template <>
struct GemmTraits<FullyConnected> {
  static GemmSizes Sizes(const FullyConnectedDesc& d) { return {d.m, d.oc, d.ic, 1}; }

  static GemmArgs Shape(const FullyConnectedDesc& d) {
    GemmArgs a =
        RowsProduct(1, d.m, d.ic, d.oc, {0, d.x_stride ? d.x_stride : d.ic, 1}, {0, d.y_stride ? d.y_stride : d.oc, 1});
    a.epilogue.activation = d.activation;
    a.epilogue.residual_kind = d.residual;
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
