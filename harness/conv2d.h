// The tensors of a conv2d case and what they should give.
#ifndef LAMINA_HARNESS_CONV2D_H_
#define LAMINA_HARNESS_CONV2D_H_

#include <vector>

#include "harness/parity.h"
#include "lamina/conv2d.h"

namespace lamina::harness {

template <>
class Case<Conv2d> {
 public:
  Case(const Conv2dDesc& desc, TensorStore& store);
  static bool Exact(const Conv2dDesc& desc);
  // Accuracy::kStrict: the direct algorithm's bound, exact on the exact fill; kDefault: that of algorithms which mix
  // the inputs of neighbouring windows (docs/numerics.md); kReduced: factors rounded to TF32.
  std::vector<Expected> Reference(Accuracy accuracy = Accuracy::kStrict) const;
  static Status RunOnce(const Conv2d& op, const Conv2dTensors& t, void* scratch) { return op.Run(t, scratch); }

  Conv2dWeights weights;
  Conv2dTensors tensors;

 private:
  Conv2dDesc desc_;
  Fill fill_;
};

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_CONV2D_H_
