// 1x1 convolution in nchw without padding: y[oc, pixels] = act(bias + w[oc, ic] * x[ic, pixels]), the planes' pixels
// being the packed side: a panel of up to 64 of them is copied once and passes under all output channels.
//
// k has one step more than channels: a first row of ones in the panel times the bias in front of each row of weights.
// Scratch per worker: one panel, [1 + ic / groups][columns].
#include <algorithm>
#include <memory>
#include <utility>

#include "kernels/cpu/aligned.h"
#include "kernels/cpu/conv2d_candidates.h"
#include "kernels/cpu/conv2d_tiles.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/transpose.h"

namespace lamina::cpu {
namespace {

constexpr float kNoBias[kMaxTileVectors * 16] = {};

class PointwisePlanes final : public Kernel<Conv2d> {
 public:
  PointwisePlanes(const Conv2dDesc& desc, const Context& context, std::shared_ptr<const AlignedBuffer> weights)
      : desc_(desc),
        context_(context),
        kernel_(GetGemmKernel(context.isa)),
        copy_rows_(GetTransposeKernel(context.isa).copy_rows),
        weights_(std::move(weights)),
        panels_(DivUp(desc.oh() * desc.ow(), static_cast<int64_t>(kernel_.lanes)),
                static_cast<int64_t>(kernel_.vectors)),
        epilogue_(MakeEpilogue(context.isa, desc.activation, desc.residual)) {
    // Chunks of channels only where panels alone are too few for the threads: each chunk packs its panel again.
    const int64_t threads = static_cast<int64_t>(context.pool->num_threads()),
                  tasks = desc.n * desc.groups * panels_.tiles;
    const int64_t oc_group = desc.oc / desc.groups;
    chunk_ = threads == 1
                 ? oc_group
                 : DivUp(oc_group, std::clamp<int64_t>(4 * threads / std::max<int64_t>(tasks, 1), 1, oc_group));
  }

  Status Run(const Conv2dTensors& tensors, std::byte* scratch) const override {
    const int64_t chunks = DivUp(desc_.oc / desc_.groups, chunk_);
    ParallelTasks(*context_.pool, static_cast<size_t>(desc_.n * desc_.groups * panels_.tiles * chunks),
                  [&](size_t task, size_t worker) {
                    const int64_t t = static_cast<int64_t>(task), panels = t / chunks, images = panels / panels_.tiles;
                    RunPanel(tensors, images / desc_.groups, images % desc_.groups, panels % panels_.tiles,
                             t % chunks * chunk_, reinterpret_cast<float*>(scratch + worker * worker_bytes()));
                  });
    return {};
  }

  size_t scratch_bytes() const override { return worker_bytes() * context_.pool->num_threads(); }
  size_t packed_bytes() const override { return weights_->bytes(); }
  Result<std::shared_ptr<const Kernel<Conv2d>>> Reshape(const Conv2dDesc& desc) const override {
    return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<PointwisePlanes>(desc, context_, weights_));
  }

 private:
  size_t k() const { return static_cast<size_t>(1 + desc_.ic / desc_.groups); }
  size_t worker_bytes() const { return RoundToLine(k() * kernel_.vectors * kernel_.lanes * sizeof(float)); }

  // The panel [1 + ic / groups][width] of output pixels [first, first + columns); x: the group's first plane.
  void Pack(const float* x, size_t first, size_t columns, size_t width, float* panel) const {
    const Conv2dDesc& d = desc_;
    std::fill_n(panel, width, 1.0f);
    panel += width;
    const int64_t plane = d.ih * d.iw, ow = d.ow();
    if (d.stride_h == 1 && d.stride_w == 1) return copy_rows_(k() - 1, columns, width, x + first, plane, panel);
    for (size_t c = 0; c + 1 < k(); ++c, x += plane, panel += width) {
      int64_t row = static_cast<int64_t>(first) / ow, column = static_cast<int64_t>(first) % ow;
      for (size_t j = 0; j < columns; ++j) {
        panel[j] = x[row * d.stride_h * d.iw + column * d.stride_w];
        if (++column == ow) column = 0, ++row;
      }
      std::fill(panel + columns, panel + width, 0.0f);
    }
  }

  void RunPanel(const Conv2dTensors& tensors, int64_t image, int64_t group, int64_t index, int64_t first_channel,
                float* panel) const {
    const Conv2dDesc& d = desc_;
    const int64_t x_plane = d.ih * d.iw, y_plane = d.oh() * d.ow(), lanes = static_cast<int64_t>(kernel_.lanes);
    const int64_t vectors = panels_.height + (index < panels_.higher ? 1 : 0);
    const int64_t first = (index * panels_.height + std::min(index, panels_.higher)) * lanes;
    const int64_t columns = std::min(vectors * lanes, y_plane - first);
    Pack(static_cast<const float*>(tensors.x) + image * StrideOr(d.x_stride, d.ic * x_plane) +
             group * (d.ic / d.groups) * x_plane,
         static_cast<size_t>(first), static_cast<size_t>(columns), static_cast<size_t>(vectors * lanes), panel);

    const int64_t oc_group = d.oc / d.groups, channels = std::min(chunk_, oc_group - first_channel);
    const Cut cut(channels, static_cast<int64_t>(kernel_.rows));
    int64_t channel = group * oc_group + first_channel;
    const ptrdiff_t tap = 0;
    for (const bool higher : {true, false}) {
      const int64_t height = cut.height + (higher ? 1 : 0), tiles = higher ? cut.higher : cut.tiles - cut.higher;
      if (tiles == 0) continue;
      GemmTiles t;
      t.tiles = static_cast<size_t>(tiles);
      t.a = weights_->as<float>() + channel * static_cast<int64_t>(k());
      t.a_row = static_cast<ptrdiff_t>(k());
      t.a_tile = height * t.a_row;
      t.tap = &tap;
      t.kc = k();
      t.b = panel;
      t.out.c =
          static_cast<float*>(tensors.y) + image * StrideOr(d.y_stride, d.oc * y_plane) + channel * y_plane + first;
      t.out.row = t.out.residual_row = y_plane;
      t.out.tile = t.out.residual_tile = height * y_plane;
      t.out.columns = static_cast<size_t>(columns);
      t.out.bias = kNoBias;
      if (d.residual != Residual::kNone) {
        t.out.residual = static_cast<const float*>(tensors.residual) +
                         image * StrideOr(d.residual_stride, d.oc * y_plane) + channel * y_plane + first;
      }
      t.out.epilogue = &epilogue_;
      kernel_.tiles[height][vectors](t);
      channel += tiles * height;
    }
  }

  Conv2dDesc desc_;
  Context context_;
  const GemmKernel& kernel_;
  decltype(TransposeKernel::copy_rows) copy_rows_;
  std::shared_ptr<const AlignedBuffer> weights_;  // [oc][1 + ic / groups]
  Cut panels_;                                    // of an image's pixels, in vectors
  int64_t chunk_;                                 // output channels of a task
  Epilogue epilogue_;
};

Judgement Judge(const Conv2dDesc& d, const Context& context) {
  if (std::string refusal = RefuseType(d); !refusal.empty()) return Refused(refusal);
  if (d.layout != Layout::kNchw) return Refused("reads planes in nchw, got layout=nhwc");
  if (d.kh != 1 || d.kw != 1) return Refused("the kernel must be 1x1, " + text::Got({{"kh", d.kh}, {"kw", d.kw}}));
  if (d.pad_top + d.pad_left + d.pad_bottom + d.pad_right != 0) return Refused("the pads must be 0");
  const GemmKernel& kernel = GetGemmKernel(context.isa);
  const Machine& machine = *context.machine;
  const int threads = static_cast<int>(context.pool->num_threads());
  const int64_t lanes = static_cast<int64_t>(kernel.lanes), vectors = DivUp(d.oh() * d.ow(), lanes);
  const double columns = static_cast<double>(d.n * d.groups) * static_cast<double>(vectors * lanes);
  const double steps = static_cast<double>(1 + d.ic / d.groups);
  const TileTimes times(kernel, 1 + d.ic / d.groups, d.oh() * d.ow());
  const double compute = 2 * columns * steps * times.Of(Cut(d.oc / d.groups, static_cast<int64_t>(kernel.rows))) /
                         (kLoopEfficiency * machine.Gflops(context.isa, threads));
  const double packing = 8 * columns * steps / machine.Gbps(machine.l2.bytes, threads);
  const int64_t bytes = CostOf(d).bytes();
  return Accepted(std::max(compute + packing, static_cast<double>(bytes) / machine.Gbps(bytes, threads)));
}

Result<std::shared_ptr<const Kernel<Conv2d>>> Prepare(const Conv2dDesc& d, const Conv2dWeights& weights,
                                                      const Context& context) {
  const size_t ic_group = static_cast<size_t>(d.ic / d.groups), oc = static_cast<size_t>(d.oc);
  auto packed = std::make_shared<AlignedBuffer>(oc * (1 + ic_group) * sizeof(float));
  if (packed->data() == nullptr) return Status{StatusCode::kOutOfMemory, ToString(d) + ": no memory for the weights"};
  const float* w = static_cast<const float*>(weights.w);  // [oc, ic / groups] in either weight layout
  float* row = packed->as<float>();
  for (size_t o = 0; o < oc; ++o, w += ic_group, row += 1 + ic_group) {
    row[0] = weights.bias == nullptr ? 0.0f : static_cast<const float*>(weights.bias)[o];
    std::copy_n(w, ic_group, row + 1);
  }
  return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<PointwisePlanes>(d, context, std::move(packed)));
}

}  // namespace

Candidate<Conv2d> PointwisePlanesConv2d() { return {"pointwise_planes", Judge, Prepare}; }

}  // namespace lamina::cpu
