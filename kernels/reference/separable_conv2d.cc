#include "reference/separable_conv2d.h"

#include "kernels/operators/backends.h"
#include "kernels/reference/oracle.h"

namespace lamina::oracle {

template <>
struct Oracle<SeparableConv2d> {
  static void KeepWeights(const SeparableConv2dDesc& d, KeptWeights<SeparableConv2d>& k) {
    SeparableConv2dWeights& w = k.weights;
    if (d.has_expand()) {
      Keep(w.expand_w, d.depthwise_in() * d.ic, d.dtype, k.kept);
      if (d.expand_bias) Keep(w.expand_bias, d.depthwise_in(), d.dtype, k.kept);
    }
    Keep(w.depthwise_w, d.depthwise_out() * d.kh * d.kw, d.dtype, k.kept);
    if (d.depthwise_bias) Keep(w.depthwise_bias, d.depthwise_out(), d.dtype, k.kept);
    if (d.has_project()) {
      Keep(w.project_w, d.oc * d.depthwise_out(), d.dtype, k.kept);
      if (d.project_bias) Keep(w.project_bias, d.oc, d.dtype, k.kept);
    }
  }
  static size_t ScratchDoubles(const SeparableConv2dDesc& d) {
    return static_cast<size_t>(d.n * d.oh() * d.ow() * d.oc) + reference::SeparableConv2dScratch(d, false);
  }
  static void Run(const SeparableConv2dDesc& d, const SeparableConv2dWeights& w, const SeparableConv2dTensors& t,
                  double* value) {
    double* const scratch = value + d.n * d.oh() * d.ow() * d.oc;
    reference::SeparableConv2d(d, w, t, scratch, value, nullptr, nullptr);
    const bool nhwc = d.layout == Layout::kNhwc;
    const int64_t row = nhwc ? d.oc : d.oc * d.oh() * d.ow(), rows = nhwc ? d.n * d.oh() * d.ow() : d.n;
    reference::StoreRows(value, rows, row, d.y_stride ? d.y_stride : row, d.dtype, t.y);
  }
};

CandidateList<SeparableConv2d> SeparableConv2dCandidates() {
  static const Candidate<SeparableConv2d> kNaive = NaiveCandidate<SeparableConv2d>()[0];
  static const Candidate<SeparableConv2d> kCandidates[] = {{kNaive.name,
                                                            [](const SeparableConv2dDesc& d, const Context& context) {
                                                              if (d.fusion == Fusion::kAlways)
                                                                return Refused(
                                                                    "fusion=always: the reference goes step by step");
                                                              return kNaive.judge(d, context);
                                                            },
                                                            kNaive.prepare}};
  return kCandidates;
}

}  // namespace lamina::oracle
