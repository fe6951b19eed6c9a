// What models need done to their tensors before Prepare: a batch norm folded away, layouts converted. Pure functions.
#ifndef LAMINA_WEIGHTS_H_
#define LAMINA_WEIGHTS_H_

#include <cstdint>

#include "lamina/export.h"
#include "lamina/status.h"
#include "lamina/types.h"

namespace lamina {

// A batch norm at inference, [oc] each:  bn(z) = gamma * (z - mean) / sqrt(variance + epsilon) + beta
// (Ioffe and Szegedy 2015).
struct BatchNorm {
  const float* gamma = nullptr;  // null: ones
  const float* beta = nullptr;   // null: zeros
  const float* mean = nullptr;
  const float* variance = nullptr;
  double epsilon = 1e-5;  // PyTorch's default; TensorFlow's is 1e-3
};

// Weights and bias of one layer that computes bn(sum w x + bias): with s = gamma / sqrt(variance + epsilon),
//   folded_w[o, :] = s[o] * w[o, :],  folded_bias[o] = s[o] * (bias[o] - mean[o]) + beta[o],  each rounded once.
// w: [oc, count], the filters of a convolution in either weight layout (count = kh * kw * ic / groups) or of a fully
// connected layer (count = ic); with MatrixLayout::kIo [count, oc]. bias may be null: zeros. The results may be w and
// bias themselves. Refuses null pointers, sizes below 1, an epsilon that is no number >= 0, and variance[o] + epsilon
// <= 0.
LAMINA_API Status FoldBatchNorm(int64_t oc, int64_t count, const float* w, const float* bias, const BatchNorm& norm,
                                float* folded_w, float* folded_bias, MatrixLayout layout = MatrixLayout::kOi);

// dst gets src in the other layout: an image [n, h, w, c] as [n, c, h, w] or back. The two must not overlap.
// Refuses null pointers, negative sizes (0 is legal and does nothing), sizes whose bytes overflow, and values that are
// no members of their enums.
LAMINA_API Status ConvertImage(int64_t n, int64_t c, int64_t h, int64_t w, DType dtype, Layout from, const void* src,
                               void* dst);

// Likewise weights [oc, kh, kw, ic] as [oc, ic, kh, kw] or back; ic is that of one group.
LAMINA_API Status ConvertWeights(int64_t oc, int64_t ic, int64_t kh, int64_t kw, DType dtype, WeightLayout from,
                                 const void* src, void* dst);

}  // namespace lamina

#endif  // LAMINA_WEIGHTS_H_
