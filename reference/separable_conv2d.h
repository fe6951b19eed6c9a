// separable_conv2d as the formulas in lamina/separable_conv2d.h say it: step by step, plain loops, accumulation in
// double, nothing rounded between the steps.
#ifndef LAMINA_REFERENCE_SEPARABLE_CONV2D_H_
#define LAMINA_REFERENCE_SEPARABLE_CONV2D_H_

#include <cstddef>

#include "lamina/separable_conv2d.h"

namespace lamina::reference {

// One step, as a tolerance sees it.
struct Step {
  bool pointwise = false;
  int64_t terms = 0;  // of a sum: products, bias and residual
  Activation activation = {};
  DType kept = DType::kF32;  // as which its results may be kept for the next step; kF32 for the last step's
};

// How far off a computed act(sum + residual) may be: terms whose absolute values sum to `magnitude`, of inputs whose
// own errors add up to `carried` in the sum; `value` is the exact result.
using StepTolerance = double (*)(const Step& step, double value, double magnitude, double carried);

// Doubles of scratch that SeparableConv2d takes: the results between the steps, with their tolerances if wanted.
size_t SeparableConv2dScratch(const SeparableConv2dDesc& desc, bool tolerances);

// value: y in double, dense in desc.layout ([n, oh, ow, oc] or [n, oc, oh, ow]), whatever y_stride is.
// tolerance, unless null: per element of y, from step to step. A step's inputs may be off by t each; its sums then
// carry sum |w| t of them, to which `step` adds its own rounding and takes both through the activation.
void SeparableConv2d(const SeparableConv2dDesc& desc, const SeparableConv2dWeights& weights,
                     const SeparableConv2dTensors& tensors, double* scratch, double* value, double* tolerance,
                     StepTolerance step);

}  // namespace lamina::reference

#endif  // LAMINA_REFERENCE_SEPARABLE_CONV2D_H_
