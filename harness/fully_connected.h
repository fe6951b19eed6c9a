// The tensors of a fully_connected case and what they should give.
#ifndef LAMINA_HARNESS_FULLY_CONNECTED_H_
#define LAMINA_HARNESS_FULLY_CONNECTED_H_

#include <vector>

#include "harness/parity.h"
#include "lamina/fully_connected.h"

namespace lamina::harness {

template <>
class Case<FullyConnected> {
 public:
  Case(const FullyConnectedDesc& desc, TensorStore& store);
  static bool Exact(const FullyConnectedDesc& desc);
  // Accuracy::kReduced: factors rounded to TF32.
  std::vector<Expected> Reference(Accuracy accuracy = Accuracy::kStrict) const;
  static Status RunOnce(const FullyConnected& op, const FullyConnectedTensors& t, void* scratch) {
    return op.Run(t, scratch);
  }

  FullyConnectedWeights weights;
  FullyConnectedTensors tensors;

 private:
  FullyConnectedDesc desc_;
  Fill fill_;
};

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_FULLY_CONNECTED_H_
