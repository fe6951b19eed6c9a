// The tensors of a separable_conv2d case and what they should give.
#ifndef LAMINA_HARNESS_SEPARABLE_CONV2D_H_
#define LAMINA_HARNESS_SEPARABLE_CONV2D_H_

#include <vector>

#include "harness/parity.h"
#include "lamina/separable_conv2d.h"

namespace lamina::harness {

// Tolerance, from step to step: with t0 = 0 for x, a step of K products and S = |bias| + sum |w||d| + |residual|
//   t = ActivatedTolerance(4 u sqrt(K + 2) S + sum |w| t0)
// where t0 is the tolerance of each of the step's inputs. The sum over |w| is a worst case, so the bound of the whole
// is looser than each step's own. Between the steps results may be rounded to the dtype, which adds its unit roundoff.
template <>
class Case<SeparableConv2d> {
 public:
  Case(const SeparableConv2dDesc& desc, TensorStore& store);
  // Whether integers up to 4 stay below 2^24 through all steps, and, between them, are numbers of the dtype.
  static bool Exact(const SeparableConv2dDesc& desc);
  // Accuracy::kReduced: factors of the pointwise steps rounded to TF32.
  std::vector<Expected> Reference(Accuracy accuracy = Accuracy::kStrict) const;
  static Status RunOnce(const SeparableConv2d& op, const SeparableConv2dTensors& t, void* scratch) {
    return op.Run(t, scratch);
  }

  SeparableConv2dWeights weights;
  SeparableConv2dTensors tensors;

 private:
  SeparableConv2dDesc desc_;
  Fill fill_;
};

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_SEPARABLE_CONV2D_H_
