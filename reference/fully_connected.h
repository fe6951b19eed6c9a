// fully_connected as the formula in lamina/fully_connected.h says it: plain loops, accumulation in double.
#ifndef LAMINA_REFERENCE_FULLY_CONNECTED_H_
#define LAMINA_REFERENCE_FULLY_CONNECTED_H_

#include "lamina/fully_connected.h"

namespace lamina::reference {

// value: y [m, oc] in double, dense, whatever y_stride is.
// magnitude, unless null: per element |bias| + sum |x||w| + |residual|, what error bounds are made from.
void FullyConnected(const FullyConnectedDesc& desc, const FullyConnectedWeights& weights,
                    const FullyConnectedTensors& tensors, double* value, double* magnitude);

}  // namespace lamina::reference

#endif  // LAMINA_REFERENCE_FULLY_CONNECTED_H_
