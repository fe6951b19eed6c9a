// The weights of a convolution after Winograd's transform, packed for the GEMM micro-kernels. Internal to
// kernels/cpu/conv2d_winograd*.cc.
#ifndef LAMINA_KERNELS_CPU_CONV2D_WINOGRAD_FILTER_H_
#define LAMINA_KERNELS_CPU_CONV2D_WINOGRAD_FILTER_H_

#include <cstddef>
#include <memory>

#include "kernels/cpu/aligned.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/winograd.h"
#include "lamina/conv2d.h"
#include "lamina/status.h"

namespace lamina::cpu {

// G w G^T of every pair of channels, computed in double and rounded once; panel after panel, each
// [n * n][ic][width], width the panel's columns rounded up to whole vectors, zeros beyond oc. Immutable.
class WinogradFilter {
 public:
  // Fails only for want of memory.
  static Result<std::shared_ptr<const WinogradFilter>> Pack(const Conv2dDesc& desc, const Conv2dWeights& weights,
                                                            Isa isa, const WinogradKernel& transform);

  struct Panel {
    size_t first, columns, vectors, width;
    const float* u;      // coefficient q's [ic][width] at u + q * ic * width
    const float* bias;   // [width]
    const float* zeros;  // [width]
  };
  Panel PanelAt(size_t panel) const;
  size_t panels() const { return panels_; }
  const GemmKernel& gemm() const { return *gemm_; }
  size_t bytes() const { return u_.bytes() + bias_.bytes() + zeros_.bytes(); }
  const float* end() const { return u_.as<float>() + u_.bytes() / sizeof(float); }

 private:
  WinogradFilter(const Conv2dDesc& desc, Isa isa, const WinogradKernel& transform);
  void TransformPanel(const Conv2dDesc& desc, Isa isa, const float* w, size_t panel, const AlignedBuffer& taps);

  const GemmKernel* gemm_;
  const WinogradKernel* transform_;
  size_t ic_, oc_, panels_;
  AlignedBuffer u_, bias_, zeros_;
};

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_CONV2D_WINOGRAD_FILTER_H_
