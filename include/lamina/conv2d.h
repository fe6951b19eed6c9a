// Standard 2-D convolution (cross-correlation).
//   y[n,oh,ow,oc] = act(bias[oc] + sum_{kh,kw,c} x[n, oh*stride_h - pad_top  + kh*dilation_h,
//                                                     ow*stride_w - pad_left + kw*dilation_w, g*ic/groups + c]
//                                               * w[oc, kh, kw, c])        with g = oc / (oc_total / groups)
// Taps outside the image read zero. dilation 1 is dense (PyTorch's convention; oneDNN writes 0).
// groups = ic is the depthwise convolution (oc = ic * depth multiplier), ih = kh = 1 the 1-D one.
#ifndef LAMINA_CONV2D_H_
#define LAMINA_CONV2D_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "lamina/cost.h"
#include "lamina/export.h"
#include "lamina/operator.h"
#include "lamina/types.h"

namespace lamina {

struct Conv2dDesc {
  int64_t n = 1, ih = 0, iw = 0, ic = 0;  // x [n, ih, iw, ic], or [n, ic, ih, iw] in nchw
  int64_t oc = 0, kh = 1, kw = 1;         // w [oc, kh, kw, ic / groups], or [oc, ic / groups, kh, kw]
  int64_t stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int64_t groups = 1;
  bool bias = true;  // [oc]
  Activation activation = {};
  Residual residual = Residual::kNone;  // a tensor of y's shape
  Layout layout = Layout::kNhwc;
  WeightLayout weight_layout = WeightLayout::kOhwi;
  DType dtype = DType::kF32;
  // For slices of the channels of a wider tensor, in elements. nhwc: from pixel to pixel, 0 = the tensor's own
  // channels; nchw: from image to image, 0 = channels * height * width.
  int64_t x_stride = 0, y_stride = 0, residual_stride = 0;

  LAMINA_API int64_t oh() const;  // 0 where the kernel does not fit
  LAMINA_API int64_t ow() const;
  LAMINA_API Status Validate() const;
  bool operator==(const Conv2dDesc&) const = default;
};

// Sets the four pads by ONNX's rule: oh = ceil(ih / stride_h), the odd pixel at the end (upper) or the beginning
// (lower).
enum class Padding : int32_t { kValid = 0, kSameUpper = 1, kSameLower = 2 };
LAMINA_API void SetPadding(Conv2dDesc& desc, Padding padding);

LAMINA_API std::string ToString(const Conv2dDesc& desc);           // "conv2d n=1 ih=56 iw=56 ic=64 oc=64 kh=3 ..."
LAMINA_API Result<Conv2dDesc> ParseConv2d(std::string_view text);  // its inverse; absent fields take the default
LAMINA_API Cost CostOf(const Conv2dDesc& desc);                    // zero of what Validate refuses

struct Conv2dWeights {
  const void* w = nullptr;     // [oc, kh, kw, ic / groups] or [oc, ic / groups, kh, kw]
  const void* bias = nullptr;  // [oc]; null when desc.bias is false
};

struct Conv2dTensors {
  const void* x = nullptr;         // [n, ih, iw, ic] or [n, ic, ih, iw]
  void* y = nullptr;               // [n, oh, ow, oc] or [n, oc, oh, ow]
  const void* residual = nullptr;  // y's shape; null when desc.residual is kNone
};

using Conv2d = Operator<Conv2dDesc, Conv2dWeights, Conv2dTensors>;
extern template class LAMINA_API Operator<Conv2dDesc, Conv2dWeights, Conv2dTensors>;

}  // namespace lamina

#endif  // LAMINA_CONV2D_H_
