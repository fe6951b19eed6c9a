// Convolution in nchw by implicit GEMM, y[oc, pixels] = act(bias + w[oc, k] * taps[k, pixels]), k = (channel, kernel
// row, kernel column): a vector is pixels side by side in a row, and a tap of theirs is a vector of the plane, moved
// on. Nothing is transposed.
//
// 1x1 of stride 1 without padding reads x where it lies (or panels of it, see CopiesPanels); a plane is one row of
// pixels. Otherwise the rows of the image that a task reads are copied with their padding, stride_w columns apart:
// outputs side by side then read floats side by side. Beside the products that costs little where output channels are
// many or the kernel is large.
//
// Scratch per worker: the copied rows, [ic / groups][rows][stride_w][columns], up to an eighth of L2 where more than
// one row of outputs fits there, and no more than a GiB; in place one panel, [ic / groups][columns], the last one of a
// plane.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/cpu/aligned.h"
#include "kernels/cpu/conv2d_candidates.h"
#include "kernels/cpu/conv2d_tiles.h"
#include "kernels/cpu/gemm_planes.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/transpose.h"
#include "kernels/operators/packing.h"

namespace lamina::cpu {
namespace {

// 1x1 on every pixel as a convolution of images one row high.
Conv2dDesc AsOneRow(const Conv2dDesc& desc) {
  Conv2dDesc d = AlongRows(desc);
  if (d.kh * d.kw * d.stride_h * d.stride_w == 1 && d.oh() == d.ih && d.ow() == d.iw) {
    d.iw *= std::exchange(d.ih, 1);
  }
  return d;
}
bool IsInPlace(const Conv2dDesc& d) { return d.ih * d.kh * d.kw * d.stride_w == 1 && d.oh() * d.ow() == d.iw; }

// Whether 1x1 copies each panel after all. Tiles of a line or less read planes too often for the TLB and L1 (Zen 4,
// AVX2, 2026-11-26, least us in place and copied: 56x56 with 128 to 128 channels 1059 and 967, 14x14 with 512 to 512
// 1164 and 974, but 28x28 with 192 to 32 94 and 102; AVX-512's tiles of three lines are always faster in place: 898 and
// 934, 938 and 946, 84 and 94).
bool CopiesPanels(const Conv2dDesc& d, const GemmKernel& kernel) {
  return IsInPlace(d) && kernel.vectors * kernel.lanes <= 16 && d.oc / d.groups >= 64;
}

// The copied rows of a task.
struct Rows {
  Rows(const Conv2dDesc& d, int64_t lanes)
      : columns(RoundUp(RoundUp(d.ow(), lanes) + (d.kw - 1) * d.dilation_w / d.stride_w + 2, 16)),
        row(d.stride_w * columns) {}
  // Image rows that `outputs` rows of outputs read, with those between them.
  static int64_t Read(const Conv2dDesc& d, int64_t outputs) {
    return (outputs - 1) * d.stride_h + (d.kh - 1) * d.dilation_h + 1;
  }
  double Bytes(const Conv2dDesc& d, int64_t outputs) const {  // any descriptor's: beyond int64
    return 4.0 * static_cast<double>(d.ic / d.groups) * static_cast<double>(Read(d, outputs)) *
           static_cast<double>(row);
  }
  int64_t columns, row;  // floats; of every stride_w'th column, and of all
};

// How a problem is cut into tasks: some rows of outputs, panels of a row and output channels of a group.
struct Schedule {
  int64_t rows = 1, panels = 1, channels = 1;
};

Schedule MakeSchedule(const Conv2dDesc& d, const Cut& panels, const Rows& copied, const Context& context) {
  const int64_t threads = static_cast<int64_t>(context.pool->num_threads()), wanted = threads == 1 ? 1 : 4 * threads;
  const int64_t images = std::max<int64_t>(d.n, 1) * d.groups, oc_group = d.oc / d.groups;
  Schedule s{1, IsInPlace(d) ? 1 : panels.tiles, oc_group};
  if (!IsInPlace(d)) {
    s.rows = d.oh();
    while (s.rows > 1 && copied.Bytes(d, s.rows) > static_cast<double>(context.machine->l2.bytes / 8))
      s.rows = DivUp(s.rows, 2);
    while (s.rows > d.kh && images * DivUp(d.oh(), s.rows) < wanted) s.rows = DivUp(s.rows, 2);
  }
  // Chunks of channels only where there are too few tasks: each copies its rows again.
  const int64_t tasks = images * DivUp(d.oh(), s.rows) * DivUp(panels.tiles, s.panels);
  s.channels = DivUp(oc_group, std::clamp<int64_t>(wanted / tasks, 1, oc_group));
  return s;
}

class PlanesGemm final : public Kernel<Conv2d> {
 public:
  PlanesGemm(const Conv2dDesc& desc, const Context& context, std::shared_ptr<const AlignedBuffer> weights)
      : desc_(AsOneRow(desc)),
        context_(context),
        kernel_(GetPlanesKernel(context.isa)),
        move_(GetTransposeKernel(context.isa)),
        weights_(std::move(weights)),
        panels_(DivUp(desc_.ow(), static_cast<int64_t>(kernel_.lanes)), static_cast<int64_t>(kernel_.vectors)),
        in_place_(IsInPlace(desc_)),
        copies_panels_(CopiesPanels(desc_, kernel_)),
        copied_(desc_, static_cast<int64_t>(kernel_.lanes)),
        schedule_(MakeSchedule(desc_, panels_, copied_, context)),
        epilogue_(MakeEpilogue(context.isa, desc.activation, desc.residual)) {
    const Conv2dDesc& d = desc_;
    const int64_t rows = Rows::Read(d, schedule_.rows), panel = static_cast<int64_t>(kernel_.vectors * kernel_.lanes);
    steps_.reserve(static_cast<size_t>(d.ic / d.groups * d.kh * d.kw));
    for (int64_t c = 0; c < d.ic / d.groups; ++c) {
      if (in_place_) {
        steps_.push_back(c * d.iw);
        panel_steps_.push_back(c * panel);
        continue;
      }
      for (int64_t i = 0; i < d.kh; ++i) {
        for (int64_t j = 0; j < d.kw; ++j) {
          const int64_t column = j * d.dilation_w;
          steps_.push_back((c * rows + i * d.dilation_h) * copied_.row + column % d.stride_w * copied_.columns +
                           column / d.stride_w);
        }
      }
    }
    const double floats =
        in_place_ ? static_cast<double>(d.ic / d.groups * panel) : copied_.Bytes(d, schedule_.rows) / 4;
    worker_bytes_ = LineBytes(static_cast<size_t>(floats));
    if (in_place_) return;
    for (int64_t r = 0; r < rows; ++r) {
      bool read = false;
      for (int64_t i = 0; i < d.kh && !read; ++i) read = (r - i * d.dilation_h) % d.stride_h == 0;
      if (read) rows_read_.push_back(r);
    }
  }

  Status Run(const Conv2dTensors& tensors, std::byte* scratch) const override {
    const int64_t channels = DivUp(desc_.oc / desc_.groups, schedule_.channels);
    const int64_t panels = DivUp(panels_.tiles, schedule_.panels), rows = DivUp(desc_.oh(), schedule_.rows);
    ParallelTasks(*context_.pool, static_cast<size_t>(desc_.n * desc_.groups * rows * panels * channels),
                  [&](size_t index, size_t worker) {
                    int64_t t = static_cast<int64_t>(index);
                    Task task;
                    task.channel = t % channels * schedule_.channels, t /= channels;
                    task.panel = t % panels * schedule_.panels, t /= panels;
                    task.row = t % rows * schedule_.rows, t /= rows;
                    task.group = t % desc_.groups, task.image = t / desc_.groups;
                    RunTask(tensors, task, reinterpret_cast<float*>(scratch + worker * worker_bytes_));
                  });
    return {};
  }

  size_t scratch_bytes() const override { return worker_bytes_ * context_.pool->num_threads(); }
  size_t packed_bytes() const override { return weights_->bytes(); }
  Result<std::shared_ptr<const Kernel<Conv2d>>> Reshape(const Conv2dDesc& desc) const override {
    return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<PlanesGemm>(desc, context_, weights_));
  }

 private:
  struct Task {
    int64_t image, group, row, panel, channel;  // the first ones
  };

  // Image row `ih`, which may be padding, its columns stride_w apart.
  void CopyRow(const float* plane, int64_t ih, float* to) const {
    const Conv2dDesc& d = desc_;
    if (ih < 0 || ih >= d.ih) {
      std::fill_n(to, copied_.row, 0.0f);
      return;
    }
    const float* x = plane + ih * d.iw;
    // Of the columns p, p + stride_w, ... those from `first` to `last` are the image's.
    const auto first = [&](int64_t p) { return DivUp(std::max<int64_t>(0, d.pad_left - p), d.stride_w); };
    for (int64_t p = 0; p < d.stride_w; ++p) {
      const int64_t last = std::clamp<int64_t>(DivUp(d.iw + d.pad_left - p, d.stride_w), 0, copied_.columns);
      float* const columns = to + p * copied_.columns;
      std::fill(columns, columns + std::min(first(p), copied_.columns), 0.0f);
      std::fill(columns + last, columns + copied_.columns, 0.0f);
      if (d.stride_w == 2) continue;
      for (int64_t i = first(p); i < last; ++i) columns[i] = x[i * d.stride_w + p - d.pad_left];
    }
    if (d.stride_w == 2) {
      const int64_t p = d.pad_left % 2;
      move_.split_pairs(static_cast<size_t>(d.iw), x, to + p * copied_.columns + first(p),
                        to + (1 - p) * copied_.columns + first(1 - p));
    }
  }

  void CopyRows(const float* x, int64_t first_row, int64_t last_row, float* to) const {
    const Conv2dDesc& d = desc_;
    const int64_t apart = Rows::Read(d, schedule_.rows), rows = Rows::Read(d, last_row - first_row);
    for (int64_t c = 0; c < d.ic / d.groups; ++c, x += d.ih * d.iw, to += apart * copied_.row) {
      for (int64_t r : rows_read_) {
        if (r >= rows) break;
        CopyRow(x, first_row * d.stride_h - d.pad_top + r, to + r * copied_.row);
      }
    }
  }

  // Tiles of one height over all of a task's channels; c and residual are those of pixel 0.
  struct Channels {
    GemmTiles tiles;
    size_t height = 0;
    float* c = nullptr;
    const float* residual = nullptr;
  };

  // A task's channels, the higher tiles first; returns how many heights there are.
  int CutChannels(const Conv2dTensors& tensors, const Task& task, Channels (&out)[2]) const {
    const Conv2dDesc& d = desc_;
    const int64_t y_plane = d.oh() * d.ow(), oc_group = d.oc / d.groups, k = static_cast<int64_t>(steps_.size());
    const Cut cut(std::min(schedule_.channels, oc_group - task.channel), static_cast<int64_t>(kernel_.rows));
    int64_t channel = task.group * oc_group + task.channel;
    int count = 0;
    for (const bool higher : {true, false}) {
      const int64_t height = cut.height + (higher ? 1 : 0), tiles = higher ? cut.higher : cut.tiles - cut.higher;
      if (tiles == 0) continue;
      Channels& run = out[count++];
      GemmTiles& t = run.tiles;
      run.height = static_cast<size_t>(height);
      t.tiles = static_cast<size_t>(tiles);
      t.kc = steps_.size();
      t.a = weights_->as<float>() + channel * k;
      t.a_row = k;
      t.a_tile = height * k;
      t.out.bias = weights_->as<float>() + d.oc * k + channel;
      t.out.row = t.out.residual_row = y_plane;
      t.out.tile = t.out.residual_tile = height * y_plane;
      t.out.epilogue = &epilogue_;
      run.c = static_cast<float*>(tensors.y) + task.image * StrideOr(d.y_stride, d.oc * y_plane) + channel * y_plane;
      if (d.residual != Residual::kNone) {
        run.residual = static_cast<const float*>(tensors.residual) +
                       task.image * StrideOr(d.residual_stride, d.oc * y_plane) + channel * y_plane;
      }
      channel += tiles * height;
    }
    return count;
  }

  void RunTask(const Conv2dTensors& tensors, const Task& task, float* scratch) const {
    const Conv2dDesc& d = desc_;
    const int64_t x_plane = d.ih * d.iw, lanes = static_cast<int64_t>(kernel_.lanes), ow = d.ow();
    const int64_t last_row = std::min(d.oh(), task.row + schedule_.rows);
    const int64_t last_panel = std::min(panels_.tiles, task.panel + schedule_.panels);
    const float* const x = static_cast<const float*>(tensors.x) + task.image * StrideOr(d.x_stride, d.ic * x_plane) +
                           task.group * (d.ic / d.groups) * x_plane;
    if (!in_place_) CopyRows(x, task.row, last_row, scratch);
    Channels channels[2];
    const int heights = CutChannels(tensors, task, channels);
    for (int64_t row = task.row; row < last_row; ++row) {
      const float* const pixels = in_place_ ? x : scratch + (row - task.row) * d.stride_h * copied_.row;
      for (int64_t p = task.panel; p < last_panel; ++p) {
        const int64_t vectors = panels_.height + (p < panels_.higher ? 1 : 0);
        const int64_t begin = (p * panels_.height + std::min(p, panels_.higher)) * lanes;
        const int64_t columns = std::min(vectors * lanes, ow - begin);
        const float* b = pixels + begin;
        const ptrdiff_t* step = steps_.data();
        if (in_place_ && (copies_panels_ || columns < vectors * lanes)) {
          move_.copy_rows(steps_.size(), static_cast<size_t>(columns), kernel_.vectors * kernel_.lanes, b, d.iw,
                          scratch);
          b = scratch;
          step = panel_steps_.data();
        }
        for (int i = 0; i < heights; ++i) {
          Channels& run = channels[i];
          run.tiles.b = b;
          run.tiles.b_step = step;
          run.tiles.out.columns = static_cast<size_t>(columns);
          run.tiles.out.c = run.c + row * ow + begin;
          if (run.residual != nullptr) run.tiles.out.residual = run.residual + row * ow + begin;
          kernel_.tiles[run.height][vectors](run.tiles);
        }
      }
    }
  }

  Conv2dDesc desc_;
  Context context_;
  const GemmKernel& kernel_;
  const TransposeKernel& move_;
  std::shared_ptr<const AlignedBuffer> weights_;  // [oc][k], then the bias
  Cut panels_;                                    // of a row's pixels, in vectors
  bool in_place_, copies_panels_;
  Rows copied_;
  Schedule schedule_;
  std::vector<ptrdiff_t> steps_, panel_steps_;  // [k]; the second of a copied panel
  std::vector<int64_t> rows_read_;              // of a task's rows of the image: those that a tap reads
  size_t worker_bytes_;
  Epilogue epilogue_;
};

Judgement Judge(const Conv2dDesc& desc, const Context& context) {
  if (std::string refusal = RefuseType(desc); !refusal.empty()) return Refused(refusal);
  if (desc.layout != Layout::kNchw) return Refused("reads planes in nchw, got layout=nhwc");
  const Conv2dDesc d = AsOneRow(desc);
  const GemmKernel& kernel = GetPlanesKernel(context.isa);
  const int64_t lanes = static_cast<int64_t>(kernel.lanes), k = d.ic / d.groups * d.kh * d.kw;
  if (!IsInPlace(d) && Rows(d, lanes).Bytes(d, 1) > 0x1p30) {
    return Refused("would copy more than a GiB for a row of outputs");
  }
  const Machine& machine = *context.machine;
  const int threads = static_cast<int>(context.pool->num_threads());
  const double columns = static_cast<double>(d.n * d.groups * d.oh()) * static_cast<double>(RoundUp(d.ow(), lanes));
  const TileTimes times(kernel, k, d.ow());
  const double efficiency = IsInPlace(d) ? kLoopEfficiency : 0.92;  // copied rows are mostly read from L2
  const double compute = 2 * columns * static_cast<double>(k) *
                         times.Of(Cut(d.oc / d.groups, static_cast<int64_t>(kernel.rows))) /
                         (efficiency * machine.Gflops(context.isa, threads));
  // What calls cost beside it: some 30 ns a panel, 20 ns a copied row. Beyond a stride of 2 floats are copied one by
  // one.
  const Cut panels(DivUp(d.ow(), lanes), static_cast<int64_t>(kernel.vectors));
  double calls = 30 * static_cast<double>(d.n * d.groups * d.oh() * panels.tiles), copied = 0;
  if (!IsInPlace(d) || CopiesPanels(d, kernel)) {
    copied = 8 * static_cast<double>(d.n * d.ic * d.ih * d.iw * (d.stride_w > 2 ? 4 : 1));
    if (!IsInPlace(d)) calls += 20 * static_cast<double>(d.n * d.ic * d.ih);
  }
  const int64_t bytes = CostOf(d).bytes();
  return Accepted(std::max(compute + calls / threads + copied / machine.Gbps(machine.l2.bytes, threads),
                           static_cast<double>(bytes) / machine.Gbps(bytes, threads)));
}

// [oc][k], then the bias.
void Pack(const Conv2dDesc& d, const Conv2dWeights& weights, Isa isa, float* packed) {
  const size_t taps = static_cast<size_t>(d.kh * d.kw), ic_group = static_cast<size_t>(d.ic / d.groups);
  const size_t oc = static_cast<size_t>(d.oc), k = taps * ic_group;
  const float* w = static_cast<const float*>(weights.w);
  float* const bias = packed + oc * k;
  if (d.weight_layout == WeightLayout::kOihw || taps == 1) {
    std::copy_n(w, oc * k, packed);
  } else {
    const auto transpose = GetTransposeKernel(isa).transpose;
    for (size_t o = 0; o < oc; ++o, w += k) {
      transpose(taps, ic_group, w, static_cast<ptrdiff_t>(ic_group), packed + o * k, static_cast<ptrdiff_t>(taps));
    }
  }
  if (weights.bias != nullptr) {
    std::copy_n(static_cast<const float*>(weights.bias), oc, bias);
  } else {
    std::fill_n(bias, oc, 0.0f);
  }
}

Result<std::shared_ptr<const Kernel<Conv2d>>> Prepare(const Conv2dDesc& d, const Conv2dWeights& weights,
                                                      const Context& context) {
  const size_t oc = static_cast<size_t>(d.oc), k = static_cast<size_t>(d.kh * d.kw * (d.ic / d.groups));
  auto packed = std::make_shared<AlignedBuffer>(packing::Part(oc * (k + 1) * sizeof(float)));
  if (packed->data() == nullptr) return Status{StatusCode::kOutOfMemory, ToString(d) + ": no memory for the weights"};
  if (!packing::Loading()) Pack(d, weights, context.isa, packed->as<float>());
  return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<PlanesGemm>(d, context, std::move(packed)));
}

}  // namespace

Candidate<Conv2d> PlanesGemmConv2d() { return {"planes_gemm", Judge, Prepare}; }

}  // namespace lamina::cpu
