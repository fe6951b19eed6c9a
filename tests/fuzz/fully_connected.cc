#include "harness/fully_connected.h"

#include "tests/fuzz/fuzz.h"

namespace lamina::fuzz {

template <>
struct Draw<FullyConnected> {
  static Result<FullyConnectedDesc> Parse(std::string_view text) { return ParseFullyConnected(text); }

  static void RunTimeSizes(FullyConnectedDesc& d, Rng& r) {
    d.m = r.Chance(5) ? 0 : r.Size(70);
    d.x_stride = r.Stride(d.ic);
    d.y_stride = r.Stride(d.oc);
    d.residual_stride = d.residual == Residual::kNone ? 0 : r.Stride(d.oc);
  }

  static FullyConnectedDesc Any(Rng& r) {
    FullyConnectedDesc d;
    d.ic = r.Size(1100);
    d.oc = r.Size(600);
    d.bias = r.Chance(70);
    d.activation = r.AnyActivation();
    d.residual = r.AnyResidual();
    d.weight_layout = r.Pick({MatrixLayout::kOi, MatrixLayout::kIo});
    RunTimeSizes(d, r);
    return d;
  }
};

LAMINA_FUZZ(FullyConnected)

}  // namespace lamina::fuzz
