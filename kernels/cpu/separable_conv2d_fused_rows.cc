// separable_conv2d a few rows at a time: what lies between the steps is a strip of rows in scratch that the next step
// reads while it is in L1 or L2.
//
//   for each part of an image (a task: a range of output rows)
//     for each strip of it
//       expand the input rows that the strip needs and that are not there yet, into a ring of rows
//       depthwise: ring (or x) -> strip
//       project: strip -> y
//
// The ring keeps the rows that neighbouring strips share, so that only where a part begins are (kh - 1) * dilation_h
// rows expanded twice.
//
// A small image of which rows do not share out evenly (7 among 2 threads) is one strip whose steps are shared instead,
// by channels and panels: 7x7x1024 on two threads 513 -> 460 us (Zen 4, 2026-11-26).
#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>

#include "kernels/cpu/round.h"
#include "kernels/cpu/separable_conv2d_steps.h"
#include "kernels/cpu/thread_pool.h"
#include "lamina/machine.h"

namespace lamina::cpu {
namespace {

// How an image is cut.
struct Cut {
  int64_t strip_rows, parts;  // output rows of a strip; parts of an image, whole tasks
  bool shared = false;        // one strip is the image, and all threads work on each step of it
};

Cut CutOf(const SeparableConv2dDesc& d, const Context& context) {
  const DepthwiseShape s = DepthwiseShapeOf(d);
  int64_t weight_bytes = 0, row_bytes = 0;
  if (d.has_expand()) {
    weight_bytes += s.ic * d.ic * int64_t{4};
    row_bytes += s.stride_h * s.iw * ScratchChannels(s.ic) * int64_t{4};
  }
  if (d.has_project()) {
    weight_bytes += s.oc * d.oc * int64_t{4};
    row_bytes += s.ow * ScratchChannels(s.oc) * int64_t{4};
  }
  // The fewest rows that the depthwise kernels take at once, and pixels enough for some row tiles of the products, are
  // best (56x56 24-144-24: 4 rows 416 us, 28 rows 440, 56 rows 520), unless each strip's pass over the weights goes
  // beyond L2 (7x7x1024: 4 rows 757 us, 7 rows 680; Emerald Rapids, AVX-512, one thread, 2026-11-23).
  constexpr int64_t kKernelRows = static_cast<int64_t>(kMaxDwConvRows), kLeastPixels = 48;
  int64_t rows = std::max(kKernelRows, DivUp(kLeastPixels, s.ow));
  if (weight_bytes > context.machine->l2.bytes / 2) rows = std::max(rows, context.machine->l2.bytes / 4 / row_bytes);
  rows = std::min(rows, s.oh);
  Cut cut{rows, 1};
  const int64_t threads = static_cast<int64_t>(context.pool->num_threads());
  if (threads == 1) return cut;
  // As few parts as give every thread the same number; where no row is expanded twice, up to four times as many, to
  // even out the threads' ends, but of three strips at least: the last one of a part may be lower than the kernels'
  // rows.
  const int64_t even = threads / std::gcd(d.n, threads);
  cut.parts = d.has_expand() ? even : even * std::clamp<int64_t>(DivUp(s.oh, 3 * rows) / even, 1, 4);
  cut.parts = std::min(cut.parts, s.oh);
  const bool uneven = 10 * cut.parts * DivUp(s.oh, cut.parts) > 11 * s.oh;
  if (uneven && rows == s.oh && d.layout == Layout::kNhwc) return {rows, 1, true};
  cut.strip_rows = std::min(rows, DivUp(s.oh, cut.parts));
  return cut;
}

// Input rows that so many output rows take.
int64_t InputRows(const DepthwiseShape& s, int64_t rows) {
  return (rows - 1) * s.stride_h + (s.kh - 1) * s.dilation_h + 1;
}

class FusedRows final : public Kernel<SeparableConv2d> {
 public:
  FusedRows(const SeparableConv2dDesc& desc, const Context& context, std::shared_ptr<const PackedSeparable> weights)
      : steps_(desc, context, std::move(weights)), cut_(CutOf(desc, context)) {
    const DepthwiseShape& s = steps_.depthwise().shape();
    ring_rows_ = std::min(s.ih, InputRows(s, cut_.strip_rows));
    if (desc.has_expand()) ring_bytes_ = LineBytes(ScratchImageFloats(ring_rows_, s.iw, s.ic));
    if (desc.has_project()) strip_bytes_ = LineBytes(ScratchImageFloats(cut_.strip_rows, s.ow, s.oc));
    pixel_bytes_ = LineBytes(std::max(steps_.ExpandFloats(ring_rows_), steps_.ProjectFloats(cut_.strip_rows)));
  }

  Status Run(const SeparableConv2dTensors& t, std::byte* scratch) const override {
    const int64_t n = steps_.desc().n, oh = steps_.depthwise().shape().oh;
    if (cut_.shared) {
      for (int64_t image = 0; image < n; ++image) RunShared(t, image, scratch);
      return {};
    }
    ParallelTasks(*steps_.context().pool, static_cast<size_t>(n * cut_.parts), [&](size_t task, size_t worker) {
      const int64_t image = static_cast<int64_t>(task) / cut_.parts, part = static_cast<int64_t>(task) % cut_.parts;
      RunPart(t, image, part * oh / cut_.parts, (part + 1) * oh / cut_.parts, scratch + worker * worker_bytes());
    });
    return {};
  }

  size_t scratch_bytes() const override { return worker_bytes() * steps_.context().pool->num_threads(); }
  size_t packed_bytes() const override { return steps_.weights()->bytes(); }
  Result<std::shared_ptr<const Kernel<SeparableConv2d>>> Reshape(const SeparableConv2dDesc& desc) const override {
    return std::shared_ptr<const Kernel<SeparableConv2d>>(
        std::make_shared<FusedRows>(desc, steps_.context(), steps_.weights()));
  }

 private:
  size_t worker_bytes() const { return ring_bytes_ + strip_bytes_ + pixel_bytes_ + steps_.depthwise().scratch_bytes(); }

  // Image n, each step on all threads. nhwc has no use for `pixels`.
  void RunShared(const SeparableConv2dTensors& t, int64_t n, std::byte* scratch) const {
    const SeparableConv2dDesc& d = steps_.desc();
    const DepthwiseShape& s = steps_.depthwise().shape();
    const ImageView<const float> x = steps_.X(t, n), residual = steps_.ResidualOf(t, n);
    const ImageView<float> y = steps_.Y(t, n);
    const ImageView<float> ring = ScratchImage(reinterpret_cast<float*>(scratch), ring_rows_, s.iw, s.ic);
    const ImageView<float> strip =
        ScratchImage(reinterpret_cast<float*>(scratch + ring_bytes_), cut_.strip_rows, s.ow, s.oc);
    const int64_t bottom = std::min(s.ih, InputRows(s, s.oh) - s.pad_top);
    if (d.has_expand() && bottom > 0) steps_.Expand(x, 0, bottom, ring, nullptr);
    const DepthwiseStep::Images images{d.has_expand() ? ring.read() : x, d.has_project() ? strip : y, residual};
    steps_.depthwise().RunAll(
        *steps_.context().pool, 1, [&](int64_t) { return images; }, scratch + ring_bytes_ + strip_bytes_);
    if (d.has_project()) steps_.Project(strip.read(), 0, s.oh, y, residual, nullptr);
  }

  // Output rows [begin, end) of image n.
  void RunPart(const SeparableConv2dTensors& t, int64_t n, int64_t begin, int64_t end, std::byte* scratch) const {
    const SeparableConv2dDesc& d = steps_.desc();
    const DepthwiseShape& s = steps_.depthwise().shape();
    const auto floats = [&](size_t offset) { return reinterpret_cast<float*>(scratch + offset); };
    const ImageView<float> ring = ScratchImage(floats(0), ring_rows_, s.iw, s.ic);
    float* const pixels = floats(ring_bytes_ + strip_bytes_);
    const ImageView<const float> x = steps_.X(t, n), residual = steps_.ResidualOf(t, n);
    const ImageView<float> y = steps_.Y(t, n);
    int64_t expanded = 0;  // rows before this one are in the ring, or no longer needed
    for (int64_t row = begin; row < end; row += cut_.strip_rows) {
      const int64_t row_end = std::min(end, row + cut_.strip_rows);
      if (d.has_expand()) {
        const int64_t top = row * s.stride_h - s.pad_top;
        const int64_t bottom = std::min(s.ih, top + InputRows(s, row_end - row));
        expanded = std::max(expanded, top);
        if (expanded < bottom) {
          steps_.Expand(x, expanded, bottom, ring, pixels);
          expanded = bottom;
        }
      }
      const ImageView<float> strip = ScratchImage(floats(ring_bytes_), cut_.strip_rows, s.ow, s.oc, row);
      steps_.depthwise().Run({d.has_expand() ? ring.read() : x, d.has_project() ? strip : y, residual},
                             {row, row_end, 0, steps_.depthwise().vectors()},
                             scratch + ring_bytes_ + strip_bytes_ + pixel_bytes_);
      if (d.has_project()) steps_.Project(strip.read(), row, row_end, y, residual, pixels);
    }
  }

  SeparableSteps steps_;
  Cut cut_;
  int64_t ring_rows_;
  size_t ring_bytes_ = 0, strip_bytes_ = 0, pixel_bytes_;
};

// The strips of one part after each other, the parts shared among the threads; at least what the tensors take to move.
Judgement Judge(const SeparableConv2dDesc& d, const Context& context) {
  if (d.dtype != DType::kF32) return Refused("only dtype=f32 is computed on the CPU");
  if (std::string extent = RefuseExtent(DepthwiseShapeOf(d)); !extent.empty()) return Refused(std::move(extent));
  if (d.fusion == Fusion::kNever) return Refused("fusion=never: this keeps no full-size intermediate");
  const Machine& machine = *context.machine;
  const int threads = static_cast<int>(context.pool->num_threads());
  const Cut cut = CutOf(d, context);
  DepthwiseShape s = DepthwiseShapeOf(d);
  const int64_t rounds = DivUp(d.n * cut.parts, threads);
  // Rows of the busiest thread: one part's are rounded up, several parts' even out.
  const double rows = rounds == 1 ? static_cast<double>(DivUp(s.oh, cut.parts))
                                  : static_cast<double>(rounds * s.oh) / static_cast<double>(cut.parts);
  const double strips = rows / static_cast<double>(cut.strip_rows);
  const int64_t overlap = std::max<int64_t>(0, InputRows(s, 1) - s.stride_h);
  s.oh = cut.strip_rows;
  s.ih = std::min(d.ih, cut.strip_rows * s.stride_h);
  double strip = PredictDepthwiseStep(d, s, 1, context, 1), seam = 0;
  if (d.has_expand()) {
    const auto expand = [&](int64_t h) { return PredictMatMul(machine, context.isa, 1, h * s.iw, s.ic, d.ic); };
    strip += expand(s.ih);
    if (cut.parts > 1) seam = expand(std::min(overlap, d.ih));
  }
  if (d.has_project()) strip += PredictMatMul(machine, context.isa, 1, s.oh * s.ow, d.oc, s.oc);
  const int64_t bytes = CostOf(d).bytes();
  const double moved = static_cast<double>(bytes) / machine.Gbps(bytes, threads);
  const double peak = machine.Gflops(context.isa, 1) * threads / machine.Gflops(context.isa, threads);
  const double computed = (strips * strip + static_cast<double>(rounds) * seam) * peak;
  return Accepted(std::max(computed + PredictTransposes(d, context), moved));
}

Result<std::shared_ptr<const Kernel<SeparableConv2d>>> Prepare(const SeparableConv2dDesc& d,
                                                               const SeparableConv2dWeights& w,
                                                               const Context& context) {
  auto weights = PackSeparable(d, w, context.isa);
  if (!weights.ok()) return weights.status();
  return std::shared_ptr<const Kernel<SeparableConv2d>>(std::make_shared<FusedRows>(d, context, std::move(*weights)));
}

}  // namespace

Candidate<SeparableConv2d> FusedRowsSeparableConv2d() { return {"fused_rows", &Judge, &Prepare}; }

}  // namespace lamina::cpu
