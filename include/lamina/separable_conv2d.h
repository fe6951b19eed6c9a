// Depthwise-separable convolution as one operator, in three orders of its steps:
//   dw_pw     x -> depthwise -> project                 MobileNetV1 (Howard et al. 2017), Xception (Chollet 2017)
//   pw_dw     x -> expand -> depthwise                  pointwise first, parameters 1*1*Cin*Cout + kh*kw*Cout
//                                                       (Menghani's survey of efficient deep learning, 2021)
//   pw_dw_pw  x -> expand -> depthwise -> project       MobileNetV2's inverted residual (Sandler et al. 2018)
// expand and project are 1x1 convolutions, depthwise is kh x kw per channel with stride, dilation and pads:
//   expand:    e[p, h]  = act_e(expand_bias[h] + sum_c x[p, c] * expand_w[h, c])
//   depthwise: d[o, q]  = act_d(depthwise_bias[q] + sum_{kh,kw} e[tap(o,kh,kw), h] * depthwise_w[q, kh, kw])
//   project:   y[o, oc] = act_p(project_bias[oc] + sum_c d[o, c] * project_w[oc, c])
// with q = h * dm + j, j below the depth multiplier dm.
// Padding is zero of the depthwise step's input, after the expansion's activation.
#ifndef LAMINA_SEPARABLE_CONV2D_H_
#define LAMINA_SEPARABLE_CONV2D_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "lamina/cost.h"
#include "lamina/export.h"
#include "lamina/operator.h"
#include "lamina/types.h"

namespace lamina {

enum class SeparableOrder : int32_t { kDwPw = 0, kPwDw = 1, kPwDwPw = 2 };

// Whether the steps run as one, without a full-size intermediate.
enum class Fusion : int32_t {
  kAuto = 0,    // where the cost model says that it pays
  kAlways = 1,  // refused with the reason where it cannot be had
  kNever = 2,   // step by step through a full-size intermediate
};

struct SeparableConv2dDesc {
  int64_t n = 1, ih = 0, iw = 0, ic = 0;  // x [n, ih, iw, ic], or [n, ic, ih, iw] in nchw
  int64_t hidden = 0;                     // pw_dw_pw only: channels that expand makes; 0 otherwise
  int64_t oc = 0;                         // y's channels; pw_dw: a multiple of depth_multiplier
  int64_t kh = 3, kw = 3;
  int64_t stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int64_t depth_multiplier = 1;
  SeparableOrder order = SeparableOrder::kDwPw;
  Fusion fusion = Fusion::kAuto;
  // Of the steps that the order has; the others' are ignored.
  bool expand_bias = true, depthwise_bias = true, project_bias = true;
  Activation expand_activation = {}, depthwise_activation = {}, project_activation = {};
  Residual residual = Residual::kNone;  // a tensor of y's shape, added at the last step
  Layout layout = Layout::kNhwc;
  DType dtype = DType::kF32;
  int64_t x_stride = 0, y_stride = 0, residual_stride = 0;  // as in conv2d.h

  LAMINA_API int64_t oh() const;
  LAMINA_API int64_t ow() const;
  bool has_expand() const { return order != SeparableOrder::kDwPw; }
  bool has_project() const { return order != SeparableOrder::kPwDw; }
  // Channels that enter and leave the depthwise step.
  LAMINA_API int64_t depthwise_in() const;
  LAMINA_API int64_t depthwise_out() const;
  LAMINA_API Status Validate() const;
  bool operator==(const SeparableConv2dDesc&) const = default;
};

LAMINA_API std::string ToString(const SeparableConv2dDesc& desc);
LAMINA_API Result<SeparableConv2dDesc> ParseSeparableConv2d(std::string_view text);
LAMINA_API Cost CostOf(const SeparableConv2dDesc& desc);

// Weights of the steps that the order has; the others' stay null, as do biases that the descriptor lacks.
struct SeparableConv2dWeights {
  const void* expand_w = nullptr;        // [depthwise_in, ic]
  const void* expand_bias = nullptr;     // [depthwise_in]
  const void* depthwise_w = nullptr;     // [depthwise_out, kh, kw]
  const void* depthwise_bias = nullptr;  // [depthwise_out]
  const void* project_w = nullptr;       // [oc, depthwise_out]
  const void* project_bias = nullptr;    // [oc]
};

struct SeparableConv2dTensors {
  const void* x = nullptr;         // [n, ih, iw, ic] or [n, ic, ih, iw]
  void* y = nullptr;               // [n, oh, ow, oc] or [n, oc, oh, ow]
  const void* residual = nullptr;  // y's shape; null when desc.residual is kNone
};

using SeparableConv2d = Operator<SeparableConv2dDesc, SeparableConv2dWeights, SeparableConv2dTensors>;
extern template class LAMINA_API Operator<SeparableConv2dDesc, SeparableConv2dWeights, SeparableConv2dTensors>;

}  // namespace lamina

#endif  // LAMINA_SEPARABLE_CONV2D_H_
