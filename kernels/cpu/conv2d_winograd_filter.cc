#include "kernels/cpu/conv2d_winograd_filter.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "kernels/cpu/round.h"
#include "kernels/cpu/transpose.h"
#include "kernels/cpu/winograd_weights.h"
#include "kernels/operators/packing.h"

namespace lamina::cpu {
namespace {

constexpr size_t kChunk = 16;  // input channels whose taps are transposed at once: a cache line in ohwi

}  // namespace

WinogradFilter::WinogradFilter(const Conv2dDesc& d, Isa isa, const WinogradKernel& transform)
    : gemm_(&GetGemmKernel(isa)),
      transform_(&transform),
      ic_(static_cast<size_t>(d.ic)),
      oc_(static_cast<size_t>(d.oc)),
      panels_(DivUp(oc_, gemm_->vectors * gemm_->lanes)) {
  const size_t columns = PackedColumns(*gemm_, oc_);
  u_ = packing::Part(transform.n * transform.n * ic_ * columns * sizeof(float));
  bias_ = packing::Part(columns * sizeof(float));
  zeros_ = AlignedBuffer(gemm_->vectors * gemm_->lanes * sizeof(float));
}

Result<std::shared_ptr<const WinogradFilter>> WinogradFilter::Pack(const Conv2dDesc& d, const Conv2dWeights& weights,
                                                                   Isa isa, const WinogradKernel& transform) {
  std::shared_ptr<WinogradFilter> filter(new WinogradFilter(d, isa, transform));
  const Status no_memory{StatusCode::kOutOfMemory, ToString(d) + ": no memory for the packed weights"};
  if (filter->u_.data() == nullptr || filter->bias_.data() == nullptr || filter->zeros_.data() == nullptr) {
    return no_memory;
  }
  std::memset(filter->zeros_.data(), 0, filter->zeros_.bytes());
  if (packing::Loading()) return std::shared_ptr<const WinogradFilter>(std::move(filter));
  std::memset(filter->bias_.data(), 0, filter->bias_.bytes());
  if (weights.bias != nullptr) std::memcpy(filter->bias_.data(), weights.bias, filter->oc_ * sizeof(float));
  const AlignedBuffer taps(kChunk * transform.r * transform.r * filter->PanelAt(0).width * sizeof(float));
  if (taps.data() == nullptr) return no_memory;
  for (size_t p = 0; p < filter->panels_; ++p) {
    filter->TransformPanel(d, isa, static_cast<const float*>(weights.w), p, taps);
  }
  return std::shared_ptr<const WinogradFilter>(std::move(filter));
}

// A chunk of input channels at a time, all of the panel's columns side by side; `taps`: [channel][r * r][width].
void WinogradFilter::TransformPanel(const Conv2dDesc& d, Isa isa, const float* w, size_t panel,
                                    const AlignedBuffer& taps) {
  const size_t n = transform_->n, r = transform_->r, count = r * r;
  const WinogradWeightMatrix matrix(n, r);
  const auto weights = GetWinogradWeights(isa, n, r);
  const auto transpose = GetTransposeKernel(isa).transpose;
  const Panel to = PanelAt(panel);
  const auto from_column = static_cast<ptrdiff_t>(ic_ * count), width = static_cast<ptrdiff_t>(to.width);
  float *const t = taps.as<float>(), *const u = u_.as<float>() + (to.u - u_.as<float>());
  std::memset(t, 0, taps.bytes());  // columns beyond oc stay so
  w += static_cast<ptrdiff_t>(to.first) * from_column;
  for (size_t c = 0; c < ic_; c += kChunk) {
    const size_t channels = std::min(kChunk, ic_ - c);
    if (d.weight_layout == WeightLayout::kOihw) {
      transpose(to.columns, channels * count, w + c * count, from_column, t, width);
    } else {
      for (size_t q = 0; q < count; ++q) {
        transpose(to.columns, channels, w + q * ic_ + c, from_column, t + q * to.width,
                  static_cast<ptrdiff_t>(count) * width);
      }
    }
    for (size_t i = 0; i < channels; ++i) {
      weights(matrix, to.width, t + i * count * to.width, u + (c + i) * to.width, ic_ * to.width);
    }
  }
}

WinogradFilter::Panel WinogradFilter::PanelAt(size_t panel) const {
  const size_t whole = gemm_->vectors * gemm_->lanes, first = panel * whole, columns = std::min(whole, oc_ - first);
  const size_t vectors = DivUp(columns, gemm_->lanes);
  return {first,
          columns,
          vectors,
          vectors * gemm_->lanes,
          u_.as<float>() + first * ic_ * transform_->n * transform_->n,
          bias_.as<float>() + first,
          zeros_.as<float>()};
}

}  // namespace lamina::cpu
