// conv2d as the formula in lamina/conv2d.h says it: plain loops, accumulation in double.
#ifndef LAMINA_REFERENCE_CONV2D_H_
#define LAMINA_REFERENCE_CONV2D_H_

#include "lamina/conv2d.h"

namespace lamina::reference {

// value: y in double, dense in desc.layout ([n, oh, ow, oc] or [n, oc, oh, ow]), whatever y_stride is.
// magnitude, unless null: per element |bias| + sum |x||w| + |residual|, what error bounds are made from.
void Conv2d(const Conv2dDesc& desc, const Conv2dWeights& weights, const Conv2dTensors& tensors, double* value,
            double* magnitude);

}  // namespace lamina::reference

#endif  // LAMINA_REFERENCE_CONV2D_H_
