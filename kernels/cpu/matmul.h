// C[m, n] = act(bias[n] + A[m, k] * W^T [k, n] + residual) with W packed once: what fully_connected, pointwise
// convolution and every projection of the attentions run on. Sits on the micro-kernels of gemm.h.
#ifndef LAMINA_KERNELS_CPU_MATMUL_H_
#define LAMINA_KERNELS_CPU_MATMUL_H_

#include <cstdint>
#include <memory>

#include "kernels/cpu/aligned.h"
#include "kernels/cpu/gemm.h"
#include "lamina/context.h"
#include "lamina/machine.h"
#include "lamina/status.h"
#include "lamina/types.h"

namespace lamina::cpu {

// The kernel that is fastest on this CPU for products of m rows. One row reads weights at the speed of memory only if
// they come in few streams.
const GemmKernel& MatMulKernel(Isa isa, int64_t m);

// Weights in panels of a kernel's column count, immutable; bias included (zeros when there is none).
class PackedMatrix {
 public:
  // w: element (o, i) of n = oc columns and k = ic rows at w[o * o_stride + i * i_stride], so both MatrixLayouts and
  // slices of wider matrices serve; one of the strides is 1. bias [n] or null. Fails only for want of memory.
  // For the panels of `kernel`, one of the ISA's. taps > 1 (i_stride is 1 then): rows of A lie in as many pieces, k =
  // taps * ic; rows of w are [taps, ic], or [ic, taps] when `taps_last`, packed as [taps, ic].
  static Result<PackedMatrix> Pack(Isa isa, const GemmKernel& kernel, int64_t k, int64_t n, const float* w,
                                   int64_t o_stride, int64_t i_stride, const float* bias, int64_t taps = 1,
                                   bool taps_last = false);
  Isa isa() const { return isa_; }
  const GemmKernel& kernel() const { return *kernel_; }
  int64_t k() const { return k_; }
  int64_t n() const { return n_; }
  const PanelCut& cut() const { return cut_; }
  const float* panels() const { return panels_.as<float>(); }
  const float* bias() const { return bias_.as<float>(); }  // [n rounded up to whole vectors]
  size_t bytes() const { return panels_.bytes() + bias_.bytes(); }

 private:
  Isa isa_ = Isa::kBest;
  const GemmKernel* kernel_ = nullptr;
  int64_t k_ = 0, n_ = 0;
  PanelCut cut_;
  AlignedBuffer panels_, bias_;
};

struct MatMulArgs {
  int64_t m = 0;
  const float* a = nullptr;  // [m, k], rows a_stride apart
  int64_t a_stride = 0;
  float* c = nullptr;  // [m, n], rows c_stride apart
  int64_t c_stride = 0;
  const float* residual = nullptr;  // [m, n], rows residual_stride apart; read only when residual_kind says so
  int64_t residual_stride = 0;
  Residual residual_kind = Residual::kNone;
  Activation activation = {};
};

// Allocates nothing. Same bits for every number of threads. Runs serially when called from within a task.
void MatMul(ThreadPool& pool, const PackedMatrix& w, const MatMulArgs& args);

// Nanoseconds that MatMul is predicted to take.
double PredictMatMul(const Machine& machine, Isa isa, int threads, int64_t m, int64_t n, int64_t k);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_MATMUL_H_
