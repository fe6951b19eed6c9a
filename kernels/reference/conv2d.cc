#include "reference/conv2d.h"

#include "kernels/operators/backends.h"
#include "kernels/reference/oracle.h"

namespace lamina::oracle {

template <>
struct Oracle<Conv2d> {
  static void KeepWeights(const Conv2dDesc& d, KeptWeights<Conv2d>& k) {
    Keep(k.weights.w, d.oc * d.kh * d.kw * (d.ic / d.groups), d.dtype, k.kept);
    Keep(k.weights.bias, d.oc, d.dtype, k.kept);
  }
  static size_t ScratchDoubles(const Conv2dDesc& d) { return static_cast<size_t>(d.n * d.oh() * d.ow() * d.oc); }
  static void Run(const Conv2dDesc& d, const Conv2dWeights& w, const Conv2dTensors& t, double* value) {
    reference::Conv2d(d, w, t, value, nullptr);
    const bool nhwc = d.layout == Layout::kNhwc;
    const int64_t row = nhwc ? d.oc : d.oc * d.oh() * d.ow(), rows = nhwc ? d.n * d.oh() * d.ow() : d.n;
    reference::StoreRows(value, rows, row, d.y_stride ? d.y_stride : row, d.dtype, t.y);
  }
};

CandidateList<Conv2d> Conv2dCandidates() { return NaiveCandidate<Conv2d>(); }

}  // namespace lamina::oracle
