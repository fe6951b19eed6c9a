// The weights of a convolution as its micro-kernels want them, shared by all candidates that are implicit GEMMs and by
// all that are reshaped from one. Internal to kernels/cpu/conv2d*.cc.
#ifndef LAMINA_KERNELS_CPU_CONV2D_FILTER_H_
#define LAMINA_KERNELS_CPU_CONV2D_FILTER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/round.h"
#include "kernels/operators/candidate.h"
#include "lamina/conv2d.h"

namespace lamina::cpu {

// How weights are cut into panels. A unit is a part of the problem with inputs of its own: one group, or, where a
// group's output channels are few, as many groups as fill a vector; a kernel of gemm_narrow.h computes those together.
struct FilterShape {
  FilterShape(const Conv2dDesc& desc, Isa isa);
  const GemmKernel* kernel;
  int64_t unit_groups = 1;  // groups of a unit
  int64_t units;            // the last one may have fewer groups
  int64_t ic, oc;           // channels from one unit to the next
  PanelCut cut;             // of a unit's output channels
  int64_t panels;
};

// One panel of packed weights.
struct FilterPanel {
  size_t first = 0, columns = 0;       // output channels within the unit
  size_t vectors = 0, width = 0;       // as in GemmPanel
  const float* b = nullptr;            // [k][width]
  const float* bias = nullptr;         // [columns], padded to whole vectors
  const LaneGather* gather = nullptr;  // units of several groups only
};

class PackedFilter {
 public:
  static Result<std::shared_ptr<const PackedFilter>> Pack(const Conv2dDesc& desc, const Conv2dWeights& weights,
                                                          Isa isa);
  const FilterShape& shape() const { return shape_; }
  FilterPanel Panel(int64_t unit, int64_t panel) const;
  // The whole of a group's weights, where units are groups.
  const PackedMatrix& matrix(int64_t group) const { return matrices_[static_cast<size_t>(group)]; }
  size_t bytes() const;

 private:
  PackedFilter(const Conv2dDesc& desc, Isa isa) : shape_(desc, isa), oc_(desc.oc) {}
  Status PackGroups(const Conv2dDesc& desc, const float* w, const float* bias, Isa isa);
  Status PackGathered(const Conv2dDesc& desc, const float* w, const float* bias);
  void FillGathered(const Conv2dDesc& desc, const float* w, const float* bias);

  FilterShape shape_;
  int64_t oc_;
  std::vector<PackedMatrix> matrices_;  // a group each, k in the order kh, kw, ic
  // Units of several groups: [units][kh][ic / groups][kw][lanes] and [units][lanes].
  AlignedBuffer gathered_, gathered_bias_;
  std::vector<int32_t> index_;
  LaneGather whole_, last_;
};

// Candidate::prepare of a kernel that is made of a descriptor, a context and a packed filter.
template <class FilterKernel>
Result<std::shared_ptr<const Kernel<Conv2d>>> PrepareOnFilter(const Conv2dDesc& desc, const Conv2dWeights& weights,
                                                              const Context& context) {
  auto filter = PackedFilter::Pack(desc, weights, context.isa);
  if (!filter.ok()) return filter.status();
  return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<FilterKernel>(desc, context, *std::move(filter)));
}

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_CONV2D_FILTER_H_
