#include "kernels/cpu/conv2d_winograd_filter.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "kernels/cpu/round.h"

namespace lamina::cpu {
namespace {

constexpr size_t kMostColumns = kMaxTileVectors * 16;  // of a panel
constexpr size_t kMostTaps = 5;

// G, n x r: row of a finite point a is a^k / product over the other points b of (a - b), that of infinity picks the
// last tap.
struct FilterMatrix {
  FilterMatrix(size_t n, size_t r) {
    double points[kMostWinogradSize] = {0};
    for (size_t k = 0; k < n / 2 - 1; ++k) {
      points[1 + 2 * k] = WinogradPoint(n, k);
      points[2 + 2 * k] = -WinogradPoint(n, k);
    }
    for (size_t i = 0; i + 1 < n; ++i) {
      double value = 1;
      for (size_t j = 0; j + 1 < n; ++j) {
        if (j != i) value /= points[i] - points[j];
      }
      for (size_t k = 0; k < r; ++k, value *= points[i]) g[i][k] = value;
    }
    g[n - 1][r - 1] = 1;
  }
  double g[kMostWinogradSize][kMostTaps] = {};
};

}  // namespace

WinogradFilter::WinogradFilter(const Conv2dDesc& d, Isa isa, const WinogradKernel& transform)
    : gemm_(&GetGemmKernel(isa)),
      transform_(&transform),
      ic_(static_cast<size_t>(d.ic)),
      oc_(static_cast<size_t>(d.oc)),
      panels_(DivUp(oc_, gemm_->vectors * gemm_->lanes)) {
  const size_t columns = PackedColumns(*gemm_, oc_);
  u_ = AlignedBuffer(transform.n * transform.n * ic_ * columns * sizeof(float));
  bias_ = AlignedBuffer(columns * sizeof(float));
  zeros_ = AlignedBuffer(gemm_->vectors * gemm_->lanes * sizeof(float));
}

Result<std::shared_ptr<const WinogradFilter>> WinogradFilter::Pack(const Conv2dDesc& d, const Conv2dWeights& weights,
                                                                   Isa isa, const WinogradKernel& transform) {
  std::shared_ptr<WinogradFilter> filter(new WinogradFilter(d, isa, transform));
  if (filter->u_.data() == nullptr || filter->bias_.data() == nullptr || filter->zeros_.data() == nullptr) {
    return Status{StatusCode::kOutOfMemory, ToString(d) + ": no memory for the packed weights"};
  }
  std::memset(filter->bias_.data(), 0, filter->bias_.bytes());
  std::memset(filter->zeros_.data(), 0, filter->zeros_.bytes());
  if (weights.bias != nullptr) std::memcpy(filter->bias_.data(), weights.bias, filter->oc_ * sizeof(float));
  for (size_t p = 0; p < filter->panels_; ++p) filter->TransformPanel(d, static_cast<const float*>(weights.w), p);
  return std::shared_ptr<const WinogradFilter>(std::move(filter));
}

// One input channel at a time, all of the panel's columns side by side.
void WinogradFilter::TransformPanel(const Conv2dDesc& d, const float* w, size_t panel) {
  const size_t n = transform_->n, r = transform_->r;
  const FilterMatrix matrix(n, r);
  const Panel to = PanelAt(panel);
  const bool ohwi = d.weight_layout == WeightLayout::kOhwi;
  const size_t tap_step = ohwi ? ic_ : 1, channel_step = ohwi ? 1 : r * r;
  float* u = u_.as<float>() + (to.u - u_.as<float>());
  double taps[kMostTaps * kMostTaps][kMostColumns] = {}, half[kMostWinogradSize * kMostTaps][kMostColumns];
  for (size_t c = 0; c < ic_; ++c) {
    for (size_t o = 0; o < to.columns; ++o) {
      const float* from = w + (to.first + o) * ic_ * r * r + c * channel_step;
      for (size_t q = 0; q < r * r; ++q) taps[q][o] = from[q * tap_step];
    }
    for (size_t i = 0; i < n; ++i) {
      for (size_t l = 0; l < r; ++l) {
        for (size_t o = 0; o < to.width; ++o) {
          double sum = 0;
          for (size_t k = 0; k < r; ++k) sum += matrix.g[i][k] * taps[k * r + l][o];
          half[i * r + l][o] = sum;
        }
      }
    }
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        float* row = u + ((i * n + j) * ic_ + c) * to.width;
        for (size_t o = 0; o < to.width; ++o) {
          double sum = 0;
          for (size_t l = 0; l < r; ++l) sum += matrix.g[j][l] * half[i * r + l][o];
          row[o] = static_cast<float>(sum);
        }
      }
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
