// Fully connected layer: y[m, oc] = act(bias[oc] + sum_ic x[m, ic] * w[oc, ic]).
#ifndef LAMINA_FULLY_CONNECTED_H_
#define LAMINA_FULLY_CONNECTED_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "lamina/cost.h"
#include "lamina/export.h"
#include "lamina/operator.h"
#include "lamina/types.h"

namespace lamina {

struct FullyConnectedDesc {
  int64_t m = 1, ic = 0, oc = 0;  // x [m, ic], y [m, oc]
  bool bias = true;               // [oc]
  Activation activation = {};
  Residual residual = Residual::kNone;  // [m, oc]
  MatrixLayout weight_layout = MatrixLayout::kOi;
  DType dtype = DType::kF32;
  int64_t x_stride = 0, y_stride = 0, residual_stride = 0;  // elements from row to row; 0 = dense

  LAMINA_API Status Validate() const;
  bool operator==(const FullyConnectedDesc&) const = default;
};

LAMINA_API std::string ToString(const FullyConnectedDesc& desc);
LAMINA_API Result<FullyConnectedDesc> ParseFullyConnected(std::string_view text);
LAMINA_API Cost CostOf(const FullyConnectedDesc& desc);

struct FullyConnectedWeights {
  const void* w = nullptr;     // [oc, ic] or [ic, oc]
  const void* bias = nullptr;  // [oc]; null when desc.bias is false
};

struct FullyConnectedTensors {
  const void* x = nullptr;         // [m, ic]
  void* y = nullptr;               // [m, oc]
  const void* residual = nullptr;  // [m, oc]; null when desc.residual is kNone
};

using FullyConnected = Operator<FullyConnectedDesc, FullyConnectedWeights, FullyConnectedTensors>;
extern template class LAMINA_API Operator<FullyConnectedDesc, FullyConnectedWeights, FullyConnectedTensors>;

}  // namespace lamina

#endif  // LAMINA_FULLY_CONNECTED_H_
