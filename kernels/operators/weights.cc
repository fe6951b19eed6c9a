#include "lamina/weights.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cpu/transpose.h"
#include "kernels/operators/rules.h"
#include "kernels/operators/text.h"

namespace lamina {
namespace {

// dst [batch, columns, rows] = src [batch, rows, columns] transposed, elements of 2 bytes.
void TransposeHalves(int64_t rows, int64_t columns, const uint16_t* src, uint16_t* dst) {
  constexpr int64_t kBlock = 32;  // 32 rows and columns: both sides' lines stay in the L1 cache
  for (int64_t r0 = 0; r0 < rows; r0 += kBlock) {
    for (int64_t c0 = 0; c0 < columns; c0 += kBlock) {
      for (int64_t c = c0; c < std::min(columns, c0 + kBlock); ++c) {
        for (int64_t r = r0; r < std::min(rows, r0 + kBlock); ++r) dst[c * rows + r] = src[r * columns + c];
      }
    }
  }
}

Status TransposeAll(const char* what, int64_t batch, int64_t rows, int64_t columns, DType dtype, const void* src,
                    void* dst) {
  if (batch == 0 || rows == 0 || columns == 0) return {};
  if (src == nullptr || dst == nullptr) {
    return InvalidArgument(std::string(what) + ": " + (src == nullptr ? "src" : "dst") + " must not be null");
  }
  const int64_t matrix = rows * columns;
  if (SizeOf(dtype) == 2) {
    for (int64_t b = 0; b < batch; ++b) {
      TransposeHalves(rows, columns, static_cast<const uint16_t*>(src) + b * matrix,
                      static_cast<uint16_t*>(dst) + b * matrix);
    }
    return {};
  }
  const auto transpose = cpu::GetTransposeKernel(SupportedIsas().front()).transpose;
  for (int64_t b = 0; b < batch; ++b) {
    transpose(static_cast<size_t>(rows), static_cast<size_t>(columns), static_cast<const float*>(src) + b * matrix,
              columns, static_cast<float*>(dst) + b * matrix, rows);
  }
  return {};
}

}  // namespace

Status FoldBatchNorm(int64_t oc, int64_t count, const float* w, const float* bias, const BatchNorm& norm,
                     float* folded_w, float* folded_bias, MatrixLayout layout) {
  const auto refuse = [](const std::string& sentence) { return InvalidArgument("fold_batch_norm: " + sentence); };
  if (oc < 1 || count < 1 || CheckedProduct({oc, count}) < 0) {
    return refuse("oc and count must be at least 1 and their product a size, " +
                  text::Got({{"oc", oc}, {"count", count}}));
  }
  if (w == nullptr || folded_w == nullptr || folded_bias == nullptr) {
    return refuse("w, folded_w and folded_bias must not be null");
  }
  if (norm.mean == nullptr || norm.variance == nullptr) return refuse("mean and variance must not be null");
  if (!(norm.epsilon >= 0) || !std::isfinite(norm.epsilon)) {
    return refuse("epsilon must be a number not below 0, got epsilon=" + std::to_string(norm.epsilon));
  }
  if (layout != MatrixLayout::kOi && layout != MatrixLayout::kIo) {
    return refuse("layout must be a member of MatrixLayout, " + text::Got({{"layout", static_cast<int64_t>(layout)}}));
  }
  for (int64_t o = 0; o < oc; ++o) {
    if (norm.variance[o] + norm.epsilon <= 0) {
      return refuse("variance + epsilon must be above 0, got variance[" + std::to_string(o) +
                    "]=" + text::Format(norm.variance[o]) + " epsilon=" + std::to_string(norm.epsilon));
    }
  }
  const int64_t o_stride = layout == MatrixLayout::kOi ? count : 1, i_stride = layout == MatrixLayout::kOi ? 1 : oc;
  for (int64_t o = 0; o < oc; ++o) {
    const double gamma = norm.gamma == nullptr ? 1.0 : norm.gamma[o], beta = norm.beta == nullptr ? 0.0 : norm.beta[o];
    const double scale = gamma / std::sqrt(norm.variance[o] + norm.epsilon);
    const double old_bias = bias == nullptr ? 0.0 : bias[o];
    folded_bias[o] = static_cast<float>(scale * (old_bias - norm.mean[o]) + beta);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = o * o_stride + i * i_stride;
      folded_w[at] = static_cast<float>(scale * w[at]);
    }
  }
  return {};
}

Status ConvertImage(int64_t n, int64_t c, int64_t h, int64_t w, DType dtype, Layout from, const void* src, void* dst) {
  if (CheckedProduct({n, c, h, w}) < 0) {
    return InvalidArgument("convert_image: sizes must not be negative and their product be a size, " +
                           text::Got({{"n", n}, {"c", c}, {"h", h}, {"w", w}}));
  }
  if (!IsMember(dtype) || !IsMember(from)) {
    return InvalidArgument("convert_image: dtype and from must hold members of their enums, " +
                           text::Got({{"dtype", static_cast<int64_t>(dtype)}, {"from", static_cast<int64_t>(from)}}));
  }
  const bool nhwc = from == Layout::kNhwc;
  return TransposeAll("convert_image", n, nhwc ? h * w : c, nhwc ? c : h * w, dtype, src, dst);
}

Status ConvertWeights(int64_t oc, int64_t ic, int64_t kh, int64_t kw, DType dtype, WeightLayout from, const void* src,
                      void* dst) {
  if (CheckedProduct({oc, ic, kh, kw}) < 0) {
    return InvalidArgument("convert_weights: sizes must not be negative and their product be a size, " +
                           text::Got({{"oc", oc}, {"ic", ic}, {"kh", kh}, {"kw", kw}}));
  }
  if (!IsMember(dtype) || !IsMember(from)) {
    return InvalidArgument("convert_weights: dtype and from must hold members of their enums, " +
                           text::Got({{"dtype", static_cast<int64_t>(dtype)}, {"from", static_cast<int64_t>(from)}}));
  }
  const bool ohwi = from == WeightLayout::kOhwi;
  return TransposeAll("convert_weights", oc, ohwi ? kh * kw : ic, ohwi ? ic : kh * kw, dtype, src, dst);
}

}  // namespace lamina
