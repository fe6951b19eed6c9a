// Convolution in nchw: blocks of image rows are transposed to nhwc, computed by the tiles of implicit_gemm, and
// transposed back. Two moves of every float cost 2 to 5 % of a 3x3 convolution; packing the planes' pixels for a
// product with the weights on the left costs more, and would multiply padding instead of skipping it.
//
// A task transposes the input rows of its own block, so tasks share nothing; rows that two blocks read are moved twice.
// Scratch per worker: the block's input [rows, iw, ic / groups] and output [rows, ow, channels of the task's panels],
// which together stay in half of the L2 cache where a few rows fit there.
#include <algorithm>
#include <memory>
#include <utility>

#include "kernels/cpu/conv2d_candidates.h"
#include "kernels/cpu/conv2d_tiles.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/transpose.h"

namespace lamina::cpu {
namespace {

// Input rows that `rows` output rows read, at most.
int64_t InputRows(const Conv2dDesc& d, int64_t rows) {
  return std::min(d.ih, (rows - 1) * d.stride_h + (d.kh - 1) * d.dilation_h + 1);
}

// How a problem is cut into tasks: blocks of rows times chunks of panels.
struct Schedule {
  int64_t rows = 1, panels = 1;
};

Schedule MakeSchedule(const Conv2dDesc& d, const ConvTiles& tiles, const FilterShape& filter, const Machine& machine,
                      int64_t threads) {
  const int64_t oh = d.oh(), panels = filter.panels;
  const auto bytes = [&](int64_t rows) {
    return 4 * (InputRows(d, rows) * d.iw * filter.ic + rows * d.ow() * filter.oc);
  };
  const int64_t images = std::max<int64_t>(d.n, 1) * filter.units, wanted = threads == 1 ? 1 : 4 * threads;
  Schedule s{oh, panels};
  while (s.rows > tiles.run_rows() && bytes(s.rows) > machine.l2.bytes / 2) s.rows = DivUp(s.rows, 2);
  while (s.rows > std::max(tiles.run_rows(), d.kh) && images * DivUp(oh, s.rows) < wanted) s.rows = DivUp(s.rows, 2);
  s.rows = std::max(s.rows, tiles.run_rows());
  s.panels = DivUp(panels, std::min(panels, DivUp(wanted, images * DivUp(oh, s.rows))));
  if (images * DivUp(oh, s.rows) * DivUp(panels, s.panels) < threads) {
    s.rows = std::max<int64_t>(1, std::min(s.rows, oh * images * panels / threads));
  }
  return s;
}

class TransposedGemm final : public Kernel<Conv2d> {
 public:
  TransposedGemm(const Conv2dDesc& desc, const Context& context, std::shared_ptr<const PackedFilter> filter)
      : desc_(AlongRows(desc)),
        context_(context),
        transpose_(GetTransposeKernel(context.isa).transpose),
        filter_(std::move(filter)),
        tiles_(desc_, filter_->shape().ic, filter_->shape()),
        schedule_(MakeSchedule(desc_, tiles_, filter_->shape(), *context.machine,
                               static_cast<int64_t>(context.pool->num_threads()))),
        epilogue_(MakeEpilogue(context.isa, desc.activation, desc.residual)) {}

  Status Run(const Conv2dTensors& tensors, std::byte* scratch) const override {
    const FilterShape& filter = filter_->shape();
    const int64_t row_tasks = DivUp(desc_.oh(), schedule_.rows), panel_tasks = DivUp(filter.panels, schedule_.panels);
    ParallelTasks(*context_.pool, static_cast<size_t>(desc_.n * filter.units * row_tasks * panel_tasks),
                  [&](size_t task, size_t worker) {
                    const int64_t t = static_cast<int64_t>(task), rows = t / panel_tasks, images = rows / row_tasks;
                    RunBlock(tensors, images / filter.units, images % filter.units, rows % row_tasks * schedule_.rows,
                             t % panel_tasks * schedule_.panels, scratch + worker * worker_bytes());
                  });
    return {};
  }

  size_t scratch_bytes() const override { return worker_bytes() * context_.pool->num_threads(); }
  size_t packed_bytes() const override { return filter_->bytes(); }
  Result<std::shared_ptr<const Kernel<Conv2d>>> Reshape(const Conv2dDesc& desc) const override {
    return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<TransposedGemm>(desc, context_, filter_));
  }

 private:
  size_t x_bytes() const {
    return RoundToLine(static_cast<size_t>(InputRows(desc_, schedule_.rows) * desc_.iw * filter_->shape().ic) * 4);
  }
  size_t y_bytes() const {
    const FilterShape& filter = filter_->shape();
    const int64_t widest = schedule_.panels * static_cast<int64_t>(filter.kernel->vectors * filter.kernel->lanes);
    return RoundToLine(static_cast<size_t>(schedule_.rows * desc_.ow() * std::min(widest, filter.oc)) * 4);
  }
  size_t worker_bytes() const { return x_bytes() + y_bytes() + RoundToLine(tiles_.table_bytes()); }

  void RunBlock(const Conv2dTensors& tensors, int64_t image, int64_t unit, int64_t first_row, int64_t first_panel,
                std::byte* scratch) const {
    const Conv2dDesc& d = desc_;
    const FilterShape& filter = filter_->shape();
    const int64_t ow = d.ow(), x_plane = d.ih * d.iw, y_plane = d.oh() * ow;
    const int64_t last_row = std::min(d.oh(), first_row + schedule_.rows), pixels = (last_row - first_row) * ow;
    const int64_t last_panel = std::min(filter.panels, first_panel + schedule_.panels);
    const FilterPanel end = filter_->Panel(unit, last_panel - 1);
    const int64_t first = static_cast<int64_t>(filter_->Panel(unit, first_panel).first);
    const int64_t channels = static_cast<int64_t>(end.first + end.columns) - first;
    float* const x_block = reinterpret_cast<float*>(scratch);              // [input rows, iw, filter.ic]
    float* const y_block = reinterpret_cast<float*>(scratch + x_bytes());  // [rows, ow, channels]

    const ConvTiles::Range in = tiles_.InputRows(first_row, last_row);
    transpose_(static_cast<size_t>(std::min(filter.ic, d.ic - unit * filter.ic)),
               static_cast<size_t>((in.last - in.first) * d.iw),
               static_cast<const float*>(tensors.x) + image * StrideOr(d.x_stride, d.ic * x_plane) +
                   unit * filter.ic * x_plane + in.first * d.iw,
               x_plane, x_block, filter.ic);
    // Where this block's pixels lie in an output tensor of so many floats from image to image.
    const auto place = [&](int64_t stride) {
      return image * StrideOr(stride, d.oc * y_plane) + (unit * filter.oc + first) * y_plane + first_row * ow;
    };
    ConvRows rows;
    rows.x = x_block;
    rows.x_row = in.first;
    rows.first_row = first_row;
    rows.last_row = last_row;
    rows.y_pixel = rows.residual_pixel = channels;
    rows.epilogue = &epilogue_;
    if (d.residual != Residual::kNone) {  // into the sums' own place: a tile reads it before it writes
      transpose_(static_cast<size_t>(channels), static_cast<size_t>(pixels),
                 static_cast<const float*>(tensors.residual) + place(d.residual_stride), y_plane, y_block, channels);
    }
    for (int64_t p = first_panel; p < last_panel; ++p) {
      rows.panel = filter_->Panel(unit, p);
      rows.y = y_block + static_cast<int64_t>(rows.panel.first) - first;
      if (d.residual != Residual::kNone) rows.residual = rows.y;
      tiles_.Run(rows, scratch + x_bytes() + y_bytes());
    }
    transpose_(static_cast<size_t>(pixels), static_cast<size_t>(channels), y_block, channels,
               static_cast<float*>(tensors.y) + place(d.y_stride), y_plane);
  }

  Conv2dDesc desc_;
  Context context_;
  decltype(TransposeKernel::transpose) transpose_;
  std::shared_ptr<const PackedFilter> filter_;
  ConvTiles tiles_;
  Schedule schedule_;
  Epilogue epilogue_;
};

Judgement Judge(const Conv2dDesc& d, const Context& context) {
  if (std::string refusal = RefuseType(d); !refusal.empty()) return Refused(refusal);
  if (d.layout != Layout::kNchw) return Refused("reads planes in nchw, got layout=nhwc");
  const int threads = static_cast<int>(context.pool->num_threads());
  const FilterShape filter(d, context.isa);
  const ConvTiles tiles(AlongRows(d), filter.ic, filter);
  // Both moves run at about half of the L2 cache's bandwidth, counted once to read and once to write.
  const double moved =
      8 * static_cast<double>(d.n) *
      static_cast<double>(d.ic * d.ih * d.iw + (d.residual == Residual::kNone ? 1 : 2) * d.oc * d.oh() * d.ow());
  return Accepted(tiles.PredictNs(*context.machine, context.isa, threads) +
                  2 * moved / context.machine->Gbps(context.machine->l2.bytes, threads));
}

}  // namespace

Candidate<Conv2d> TransposedGemmConv2d() { return {"transposed_gemm", Judge, PrepareOnFilter<TransposedGemm>}; }

}  // namespace lamina::cpu
