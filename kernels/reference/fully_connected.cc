#include "reference/fully_connected.h"

#include "kernels/operators/backends.h"
#include "kernels/reference/oracle.h"

namespace lamina::oracle {

template <>
struct Oracle<FullyConnected> {
  static void KeepWeights(const FullyConnectedDesc& d, KeptWeights<FullyConnected>& k) {
    Keep(k.weights.w, d.oc * d.ic, d.dtype, k.kept);
    Keep(k.weights.bias, d.oc, d.dtype, k.kept);
  }
  static size_t ScratchDoubles(const FullyConnectedDesc& d) { return static_cast<size_t>(d.m * d.oc); }
  static void Run(const FullyConnectedDesc& d, const FullyConnectedWeights& w, const FullyConnectedTensors& t,
                  double* value) {
    reference::FullyConnected(d, w, t, value, nullptr);
    reference::StoreRows(value, d.m, d.oc, d.y_stride ? d.y_stride : d.oc, d.dtype, t.y);
  }
};

CandidateList<FullyConnected> FullyConnectedCandidates() { return NaiveCandidate<FullyConnected>(); }

}  // namespace lamina::oracle
