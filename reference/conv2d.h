// conv2d as the formula in lamina/conv2d.h says it: plain loops, accumulation in double.
#ifndef LAMINA_REFERENCE_CONV2D_H_
#define LAMINA_REFERENCE_CONV2D_H_

#include "lamina/conv2d.h"

namespace lamina::reference {

// value: y in double, dense in desc.layout ([n, oh, ow, oc] or [n, oc, oh, ow]), whatever y_stride is.
// magnitude, unless null: per element |bias| + sum |x||w| + |residual|, what error bounds are made from.
void Conv2d(const Conv2dDesc& desc, const Conv2dWeights& weights, const Conv2dTensors& tensors, double* value,
            double* magnitude);

// Per element |bias| + sum over c of max |x_c| sum over taps |w_c| + |residual|, the maximum over the element's window
// grown by `reach` pixels on every side: what bounds an algorithm that mixes the inputs of neighbouring windows. One
// group only.
void Conv2dMagnitudeWithin(const Conv2dDesc& desc, const Conv2dWeights& weights, const Conv2dTensors& tensors,
                           int64_t reach, double* magnitude);

}  // namespace lamina::reference

#endif  // LAMINA_REFERENCE_CONV2D_H_
