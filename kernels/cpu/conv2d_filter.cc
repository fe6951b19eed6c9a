#include "kernels/cpu/conv2d_filter.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cpu/gemm_narrow.h"
#include "kernels/operators/packing.h"

namespace lamina::cpu {
namespace {

Status NoMemory(const Conv2dDesc& d) {
  return {StatusCode::kOutOfMemory, ToString(d) + ": no memory for the packed weights"};
}

}  // namespace

FilterShape::FilterShape(const Conv2dDesc& d, Isa isa) : kernel(&GetGemmKernel(isa)) {
  const int64_t lanes = static_cast<int64_t>(kernel->lanes), ic_group = d.ic / d.groups, oc_group = d.oc / d.groups;
  const auto cut_for = [&](const GemmKernel& by, int64_t columns) {
    return PanelCut(by, static_cast<size_t>(columns), static_cast<size_t>(d.kh * d.kw * ic_group),
                    static_cast<size_t>(d.kh * d.kw));
  };
  const GemmKernel& tall = GetTallKernel(isa);
  if (d.kh * d.kw == 1) {
    kernel = &MatMulKernel(isa, d.n * d.oh() * d.ow());
  } else if (cut_for(tall, oc_group).vector_panels() <= 1) {
    kernel = &tall;
  }
  // A unit's inputs must fit a vector as its outputs do.
  const int64_t fit = std::min(lanes / oc_group, lanes / ic_group);
  if (d.groups > 1 && fit > 1) {
    kernel = &GetGatherKernel(isa);
    unit_groups = std::min(fit, d.groups);
  }
  units = DivUp(d.groups, unit_groups);
  ic = unit_groups * ic_group;
  oc = unit_groups * oc_group;
  cut = cut_for(*kernel, oc);
  panels = static_cast<int64_t>(cut.panels());
}

Result<std::shared_ptr<const PackedFilter>> PackedFilter::Pack(const Conv2dDesc& d, const Conv2dWeights& weights,
                                                               Isa isa) {
  std::shared_ptr<PackedFilter> filter(new PackedFilter(d, isa));
  const float* w = static_cast<const float*>(weights.w);
  const float* bias = static_cast<const float*>(weights.bias);
  const Status s =
      filter->shape_.unit_groups > 1 ? filter->PackGathered(d, w, bias) : filter->PackGroups(d, w, bias, isa);
  if (!s.ok()) return s;
  return std::shared_ptr<const PackedFilter>(std::move(filter));
}

Status PackedFilter::PackGroups(const Conv2dDesc& d, const float* w, const float* bias, Isa isa) {
  const int64_t oc_group = d.oc / d.groups, ic_group = d.ic / d.groups, k = d.kh * d.kw * ic_group;
  matrices_.reserve(static_cast<size_t>(d.groups));
  for (int64_t g = 0; g < d.groups; ++g) {
    const float* from = w == nullptr ? nullptr : w + g * oc_group * k;  // null: they are loaded
    auto packed = PackedMatrix::Pack(isa, *shape_.kernel, k, oc_group, from, k, 1,
                                     bias == nullptr ? nullptr : bias + g * oc_group, d.kh * d.kw,
                                     d.weight_layout == WeightLayout::kOihw);
    if (!packed.ok()) return NoMemory(d);
    matrices_.push_back(std::move(*packed));
  }
  return {};
}

Status PackedFilter::PackGathered(const Conv2dDesc& d, const float* w, const float* bias) {
  const size_t lanes = shape_.kernel->lanes, units = static_cast<size_t>(shape_.units);
  const size_t ic_group = static_cast<size_t>(d.ic / d.groups), oc_group = static_cast<size_t>(d.oc / d.groups);
  gathered_ = packing::Part(units * static_cast<size_t>(d.kh * d.kw) * ic_group * lanes * sizeof(float));
  gathered_bias_ = packing::Part(units * lanes * sizeof(float));
  if (gathered_.data() == nullptr || gathered_bias_.data() == nullptr) return NoMemory(d);
  if (!packing::Loading()) FillGathered(d, w, bias);
  index_.resize(ic_group * lanes);  // lanes beyond the unit's read its first float and are not stored
  for (size_t c = 0; c < ic_group; ++c) {
    for (size_t l = 0; l < static_cast<size_t>(shape_.oc); ++l) {
      index_[c * lanes + l] = static_cast<int32_t>(l / oc_group * ic_group + c);
    }
  }
  const int64_t last_groups = d.groups - (shape_.units - 1) * shape_.unit_groups;
  whole_ = {index_.data(), static_cast<size_t>(shape_.ic), static_cast<size_t>(d.kw)};
  last_ = {index_.data(), static_cast<size_t>(last_groups) * ic_group, static_cast<size_t>(d.kw)};
  return {};
}

void PackedFilter::FillGathered(const Conv2dDesc& d, const float* w, const float* bias) {
  const size_t lanes = shape_.kernel->lanes, taps = static_cast<size_t>(d.kh * d.kw);
  const size_t ic_group = static_cast<size_t>(d.ic / d.groups), units = static_cast<size_t>(shape_.units);
  const size_t kh = static_cast<size_t>(d.kh), kw = static_cast<size_t>(d.kw);
  std::memset(gathered_bias_.data(), 0, gathered_bias_.bytes());
  if (bias != nullptr) {
    for (size_t o = 0; o < static_cast<size_t>(d.oc); ++o) {
      const size_t unit_oc = static_cast<size_t>(shape_.oc);
      gathered_bias_.as<float>()[o / unit_oc * lanes + o % unit_oc] = bias[o];
    }
  }
  const bool oihw = d.weight_layout == WeightLayout::kOihw;
  float* to = gathered_.as<float>();
  for (size_t u = 0; u < units; ++u) {
    for (size_t i = 0; i < kh; ++i) {
      for (size_t c = 0; c < ic_group; ++c) {
        for (size_t j = 0; j < kw; ++j, to += lanes) {
          const size_t tap = i * kw + j, within = oihw ? c * taps + tap : tap * ic_group + c;
          for (size_t l = 0; l < lanes; ++l) {
            const size_t o = u * static_cast<size_t>(shape_.oc) + l;
            const bool inside = l < static_cast<size_t>(shape_.oc) && o < static_cast<size_t>(d.oc);
            to[l] = inside ? w[o * taps * ic_group + within] : 0.0f;
          }
        }
      }
    }
  }
}

FilterPanel PackedFilter::Panel(int64_t unit, int64_t panel) const {
  const size_t lanes = shape_.kernel->lanes;
  if (shape_.unit_groups > 1) {
    const bool last = unit + 1 == shape_.units;
    const size_t size = gathered_.bytes() / sizeof(float) / static_cast<size_t>(shape_.units);
    return {0,
            static_cast<size_t>(last ? oc_ - unit * shape_.oc : shape_.oc),
            1,
            lanes,
            gathered_.as<float>() + static_cast<size_t>(unit) * size,
            gathered_bias_.as<float>() + static_cast<size_t>(unit) * lanes,
            last ? &last_ : &whole_};
  }
  const PackedMatrix& matrix = matrices_[static_cast<size_t>(unit)];
  const GemmPanel cut = shape_.cut[static_cast<size_t>(panel)];
  return {cut.first,
          cut.columns,
          cut.vectors,
          cut.width,
          matrix.panels() + cut.first * static_cast<size_t>(matrix.k()),
          matrix.bias() + cut.first,
          nullptr};
}

size_t PackedFilter::bytes() const {
  size_t bytes = gathered_.bytes() + gathered_bias_.bytes() + index_.size() * sizeof(int32_t);
  for (const PackedMatrix& matrix : matrices_) bytes += matrix.bytes();
  return bytes;
}

}  // namespace lamina::cpu
