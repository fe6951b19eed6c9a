// Convolution in nhwc by implicit GEMM: y[oh, ow, :] = bias + sum over taps of x[that tap's pixel, :] * w[tap], for any
// kernel, stride, dilation, padding and number of groups. The input is read where it lies, nothing is copied.
//
// An image's output rows are cut into blocks whose input stays in the L2 cache while each panel of weights passes over
// it; when all weights stay there themselves, a block is one row. Tasks are blocks of rows times chunks of panels.
#include <algorithm>
#include <memory>
#include <utility>

#include "kernels/cpu/conv2d_candidates.h"
#include "kernels/cpu/conv2d_tiles.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/thread_pool.h"

namespace lamina::cpu {
namespace {

// How a problem is cut into tasks. Threads may change it: every output is computed by one tile whatever the cut.
struct Schedule {
  int64_t block_rows = 1;  // output rows over which one panel passes before the next one does
  int64_t task_rows = 1;   // a multiple of block_rows
  int64_t task_panels = 1;
};

Schedule MakeSchedule(const Conv2dDesc& d, const ConvTiles& tiles, const FilterShape& filter, const Machine& machine,
                      int64_t threads) {
  const int64_t l2 = machine.l2.bytes, oh = d.oh();
  const int64_t weight_bytes = d.kh * d.kw * (d.ic / d.groups) * filter.oc * 4;
  const int64_t row_bytes = d.stride_h * d.iw * filter.ic * 4;
  Schedule s;
  s.block_rows = tiles.run_rows();
  if (weight_bytes > l2 / 2) s.block_rows = std::clamp(l2 / 4 / row_bytes, s.block_rows, oh);
  // Tasks: a few for each thread, so that none waits long for the last one; by rows first, since all panels of a row
  // share its input.
  const int64_t wanted = threads == 1 ? 1 : 4 * threads, images = std::max<int64_t>(d.n, 1) * filter.units;
  s.task_rows = std::max(s.block_rows, DivUp(oh * images, wanted) / s.block_rows * s.block_rows);
  // Few panels, the last one perhaps narrow, may not share out evenly (96 columns: 64 and 32). Then rows do, and each
  // thread reads all weights.
  const int64_t columns = static_cast<int64_t>(filter.kernel->vectors * filter.kernel->lanes);
  const bool uneven = 10 * threads * DivUp(filter.panels, threads) * columns > 11 * filter.oc;
  if (images * DivUp(oh, s.task_rows) < threads && uneven) {
    s.block_rows = s.task_rows = RoundUp(DivUp(oh * images, threads), tiles.run_rows());
  }
  const int64_t row_tasks = images * DivUp(oh, s.task_rows);
  s.task_panels = DivUp(filter.panels, std::min(filter.panels, DivUp(wanted, row_tasks)));
  if (row_tasks * DivUp(filter.panels, s.task_panels) < threads) {  // rows of one run are shared out too
    s.block_rows = s.task_rows = std::min(s.block_rows, DivUp(oh * images * filter.panels, threads));
  }
  return s;
}

class ImplicitGemm final : public Kernel<Conv2d> {
 public:
  ImplicitGemm(const Conv2dDesc& desc, const Context& context, std::shared_ptr<const PackedFilter> filter)
      : desc_(AlongRows(desc)),
        context_(context),
        filter_(std::move(filter)),
        tiles_(desc_, StrideOr(desc.x_stride, desc.ic), filter_->shape()),
        schedule_(MakeSchedule(desc_, tiles_, filter_->shape(), *context.machine,
                               static_cast<int64_t>(context.pool->num_threads()))),
        epilogue_(MakeEpilogue(context.isa, desc.activation, desc.residual)) {}

  Status Run(const Conv2dTensors& tensors, std::byte* scratch) const override {
    const Conv2dDesc& d = desc_;
    const int64_t oh = d.oh(), ow = d.ow();
    const FilterShape& filter = filter_->shape();
    const int64_t x_pixel = StrideOr(d.x_stride, d.ic), y_pixel = StrideOr(d.y_stride, d.oc);
    const int64_t residual_pixel = StrideOr(d.residual_stride, d.oc);
    const int64_t row_tasks = DivUp(oh, schedule_.task_rows), panel_tasks = DivUp(filter.panels, schedule_.task_panels);
    const auto run = [&](size_t task, size_t worker) {
      int64_t t = static_cast<int64_t>(task);
      const int64_t first_panel = t % panel_tasks * schedule_.task_panels;
      t /= panel_tasks;
      const int64_t first_row = t % row_tasks * schedule_.task_rows;
      t /= row_tasks;
      const int64_t unit = t % filter.units, image = t / filter.units;
      const int64_t last_row = std::min(oh, first_row + schedule_.task_rows);
      const int64_t last_panel = std::min(filter.panels, first_panel + schedule_.task_panels);
      ConvRows rows;
      rows.x = static_cast<const float*>(tensors.x) + image * d.ih * d.iw * x_pixel + unit * filter.ic;
      rows.y_pixel = y_pixel;
      rows.residual_pixel = residual_pixel;
      rows.epilogue = &epilogue_;
      for (int64_t row = first_row; row < last_row; row += schedule_.block_rows) {
        rows.first_row = row;
        rows.last_row = std::min(last_row, row + schedule_.block_rows);
        const int64_t pixel = (image * oh + row) * ow;
        for (int64_t p = first_panel; p < last_panel; ++p) {
          rows.panel = filter_->Panel(unit, p);
          const int64_t channel = unit * filter.oc + static_cast<int64_t>(rows.panel.first);
          rows.y = static_cast<float*>(tensors.y) + pixel * y_pixel + channel;
          if (d.residual != Residual::kNone) {
            rows.residual = static_cast<const float*>(tensors.residual) + pixel * residual_pixel + channel;
          }
          tiles_.Run(rows, scratch + worker * worker_bytes());
        }
      }
    };
    ParallelTasks(*context_.pool, static_cast<size_t>(d.n * filter.units * row_tasks * panel_tasks), run);
    return {};
  }

  size_t scratch_bytes() const override { return worker_bytes() * context_.pool->num_threads(); }
  size_t packed_bytes() const override { return filter_->bytes(); }
  Result<std::shared_ptr<const Kernel<Conv2d>>> Reshape(const Conv2dDesc& desc) const override {
    return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<ImplicitGemm>(desc, context_, filter_));
  }

 private:
  size_t worker_bytes() const { return RoundToLine(tiles_.table_bytes()); }

  Conv2dDesc desc_;
  Context context_;
  std::shared_ptr<const PackedFilter> filter_;
  ConvTiles tiles_;
  Schedule schedule_;
  Epilogue epilogue_;
};

Judgement Judge(const Conv2dDesc& d, const Context& context) {
  if (std::string refusal = RefuseType(d); !refusal.empty()) return Refused(refusal);
  if (d.layout != Layout::kNhwc) return Refused("reads pixels in nhwc, got layout=nchw");
  const ConvTiles tiles(AlongRows(d), StrideOr(d.x_stride, d.ic), FilterShape(d, context.isa));
  return Accepted(tiles.PredictNs(*context.machine, context.isa, static_cast<int>(context.pool->num_threads())));
}

}  // namespace

Candidate<Conv2d> ImplicitGemmConv2d() { return {"implicit_gemm", Judge, PrepareOnFilter<ImplicitGemm>}; }

}  // namespace lamina::cpu
