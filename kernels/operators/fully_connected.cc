// What is true of fully_connected on any backend: its rules, its text, its cost.
#include "lamina/fully_connected.h"

#include <algorithm>

#include "kernels/operators/backends.h"
#include "kernels/operators/prepare.h"
#include "kernels/operators/rules.h"

namespace lamina {

template <>
struct Fields<FullyConnectedDesc> {
  static constexpr const char* kName = "fully_connected";
  template <class V>
  static void Visit(V&& v) {
    using D = FullyConnectedDesc;
    using enum FieldKind;
    v("m", &D::m, kRunTime);
    v("ic", &D::ic, kFixed);
    v("oc", &D::oc, kFixed);
    v("bias", &D::bias, kFixed);
    v("activation", &D::activation, kFixed);
    v("residual", &D::residual, kFixed);
    v("weight_layout", &D::weight_layout, kFixed);
    v("dtype", &D::dtype, kFixed);
    v("x_stride", &D::x_stride, kRunTime);
    v("y_stride", &D::y_stride, kRunTime);
    v("residual_stride", &D::residual_stride, kRunTime);
  }
};

Status FullyConnectedDesc::Validate() const {
  const FullyConnectedDesc& d = *this;
  if (m < 0) return Refuse(d, "m must not be negative", {{"m", m}});
  if (ic < 1 || oc < 1) return Refuse(d, "ic and oc must be at least 1", {{"ic", ic}, {"oc", oc}});
  if (Status s = ValidateActivation(d, "activation", activation); !s.ok()) return s;
  if (Status s = ValidateEnums(d, residual, weight_layout, dtype); !s.ok()) return s;
  if ((x_stride != 0 && x_stride < ic) || (y_stride != 0 && y_stride < oc) ||
      (residual_stride != 0 && residual_stride < oc)) {
    return Refuse(d, "a row stride must be 0 or at least the row's elements",
                  {{"x_stride", x_stride}, {"y_stride", y_stride}, {"residual_stride", residual_stride}});
  }
  if (CheckedProduct({oc, ic}) < 0) return Refuse(d, "the weights' size overflows");
  if (CheckedProduct({m, std::max(x_stride, ic)}) < 0 ||
      CheckedProduct({m, std::max({y_stride, residual_stride, oc})}) < 0) {
    return Refuse(d, "the size of x or y overflows");
  }
  // Counts of multiply-accumulates must fit too, or no cost could be given.
  if (CheckedProduct({m, oc, ic}) < 0) return Refuse(d, "the count of multiply-accumulates overflows");
  return {};
}

std::string ToString(const FullyConnectedDesc& d) { return text::Print(d); }
Result<FullyConnectedDesc> ParseFullyConnected(std::string_view t) { return text::Read<FullyConnectedDesc>(t); }

Cost CostOf(const FullyConnectedDesc& d) {
  const int64_t outputs = d.m * d.oc;
  Cost c;
  c.macs = outputs * d.ic;
  c.transcendentals = outputs * TranscendentalsOf(d.activation);
  c.params = d.oc * d.ic + (d.bias ? d.oc : 0);
  c.weight_bytes = c.params * static_cast<int64_t>(SizeOf(d.dtype));
  c.activation_bytes =
      (d.m * d.ic + outputs * (d.residual == Residual::kNone ? 1 : 2)) * static_cast<int64_t>(SizeOf(d.dtype));
  return c;
}

template <>
struct Traits<FullyConnected> {
  static CandidateList<FullyConnected> Offered(Backend backend) {
    return OfferedBy(backend, cpu::FullyConnectedCandidates, oracle::FullyConnectedCandidates,
                     cuda::FullyConnectedCandidates);
  }
  static Status CheckWeights(const FullyConnectedDesc& d, const FullyConnectedWeights& w) {
    if (w.w == nullptr) return Refuse(d, "weights.w must not be null");
    if (d.bias && w.bias == nullptr) return Refuse(d, "weights.bias must not be null when bias=1");
    return {};
  }
  static Status CheckTensors(const FullyConnectedDesc& d, const FullyConnectedTensors& t) {
    if (t.x == nullptr) return Refuse(d, "x must not be null");
    if (t.y == nullptr) return Refuse(d, "y must not be null");
    if (d.residual != Residual::kNone && t.residual == nullptr) {
      return Refuse(d, "residual must not be null when the descriptor has one");
    }
    return {};
  }
  static bool IsEmpty(const FullyConnectedDesc& d) { return d.m == 0; }
};

template class Operator<FullyConnectedDesc, FullyConnectedWeights, FullyConnectedTensors>;

}  // namespace lamina
