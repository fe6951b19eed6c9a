// separable_conv2d step by step: each step over all images on all threads, full-size nhwc images between them in
// scratch.
//
// Scratch: the images between the steps, then per thread what the depthwise step and the transposes of nchw take.
#include <algorithm>
#include <memory>
#include <utility>

#include "kernels/cpu/round.h"
#include "kernels/cpu/separable_conv2d_steps.h"
#include "kernels/cpu/thread_pool.h"
#include "lamina/machine.h"

namespace lamina::cpu {
namespace {

constexpr int64_t kTransposedPixels = 128;  // of a task in nchw: some rows of tiles for the matrix product

class Unfused final : public Kernel<SeparableConv2d> {
 public:
  Unfused(const SeparableConv2dDesc& desc, const Context& context, std::shared_ptr<const PackedSeparable> weights)
      : steps_(desc, context, std::move(weights)) {
    const DepthwiseShape& s = steps_.depthwise().shape();
    x_rows_ = std::clamp<int64_t>(kTransposedPixels / s.iw, 1, s.ih);
    y_rows_ = std::clamp<int64_t>(kTransposedPixels / s.ow, 1, s.oh);
    if (desc.has_expand()) expanded_bytes_ = LineBytes(ScratchImageFloats(desc.n * s.ih, s.iw, s.ic));
    if (desc.has_project()) depthwise_bytes_ = LineBytes(ScratchImageFloats(desc.n * s.oh, s.ow, s.oc));
    worker_bytes_ = std::max({steps_.depthwise().scratch_bytes(), LineBytes(steps_.ExpandFloats(x_rows_)),
                              LineBytes(steps_.ProjectFloats(y_rows_))});
  }

  Status Run(const SeparableConv2dTensors& t, std::byte* scratch) const override {
    const SeparableConv2dDesc& d = steps_.desc();
    const DepthwiseShape& s = steps_.depthwise().shape();
    const auto expanded = ScratchImage(reinterpret_cast<float*>(scratch), d.n * s.ih, s.iw, s.ic);
    const auto between = ScratchImage(reinterpret_cast<float*>(scratch + expanded_bytes_), d.n * s.oh, s.ow, s.oc);
    std::byte* const workers = scratch + expanded_bytes_ + depthwise_bytes_;
    ThreadPool& pool = *steps_.context().pool;
    if (d.has_expand()) {
      ForRows(s.ih, x_rows_, [&](int64_t n, int64_t begin, int64_t end, size_t worker) {
        const auto pixels = reinterpret_cast<float*>(workers + worker * worker_bytes_);
        steps_.Expand(steps_.X(t, n), begin, end, ImageAt(expanded, n, s.ih), pixels);
      });
    }
    steps_.depthwise().RunAll(
        pool, d.n,
        [&](int64_t n) {
          DepthwiseStep::Images images;
          images.x = d.has_expand() ? ImageAt(expanded, n, s.ih).read() : steps_.X(t, n);
          images.y = d.has_project() ? ImageAt(between, n, s.oh) : steps_.Y(t, n);
          if (!d.has_project()) images.residual = steps_.ResidualOf(t, n);
          return images;
        },
        workers);
    if (d.has_project()) {
      ForRows(s.oh, y_rows_, [&](int64_t n, int64_t begin, int64_t end, size_t worker) {
        const auto pixels = reinterpret_cast<float*>(workers + worker * worker_bytes_);
        steps_.Project(ImageAt(between, n, s.oh).read(), begin, end, steps_.Y(t, n), steps_.ResidualOf(t, n), pixels);
      });
    }
    return {};
  }

  size_t scratch_bytes() const override {
    return expanded_bytes_ + depthwise_bytes_ + worker_bytes_ * steps_.context().pool->num_threads();
  }
  size_t packed_bytes() const override { return steps_.weights()->bytes(); }
  Result<std::shared_ptr<const Kernel<SeparableConv2d>>> Reshape(const SeparableConv2dDesc& desc) const override {
    return std::shared_ptr<const Kernel<SeparableConv2d>>(
        std::make_shared<Unfused>(desc, steps_.context(), steps_.weights()));
  }

 private:
  static ImageView<float> ImageAt(ImageView<float> batch, int64_t n, int64_t h) {
    batch.data += n * h * batch.row;
    return batch;
  }
  // f(n, begin, end, worker) over the rows of all images. In nhwc they are one tall image, and the matrix product
  // itself is shared among the threads; in nchw a few rows are a task.
  template <class F>
  void ForRows(int64_t h, int64_t rows, const F& f) const {
    const int64_t n = steps_.desc().n, blocks = (h + rows - 1) / rows;
    if (steps_.nhwc()) {
      f(0, 0, n * h, 0);
      return;
    }
    ParallelTasks(*steps_.context().pool, static_cast<size_t>(n * blocks), [&](size_t task, size_t worker) {
      const int64_t image = static_cast<int64_t>(task) / blocks, begin = static_cast<int64_t>(task) % blocks * rows;
      f(image, begin, std::min(h, begin + rows), worker);
    });
  }

  SeparableSteps steps_;
  int64_t x_rows_, y_rows_;  // of a task in nchw
  size_t expanded_bytes_ = 0, depthwise_bytes_ = 0, worker_bytes_;
};

Judgement Judge(const SeparableConv2dDesc& d, const Context& context) {
  if (d.dtype != DType::kF32) return Refused("only dtype=f32 is computed on the CPU");
  if (std::string extent = RefuseExtent(DepthwiseShapeOf(d)); !extent.empty()) return Refused(std::move(extent));
  if (d.fusion == Fusion::kAlways) return Refused("fusion=always: this goes step by step");
  const Machine& machine = *context.machine;
  const int threads = static_cast<int>(context.pool->num_threads());
  const DepthwiseShape s = DepthwiseShapeOf(d);
  double ns = PredictTransposes(d, context) + PredictDepthwiseStep(d, s, d.n, context, threads);
  // What lies between two steps is written and read once more; prefetching hides some four fifths of that.
  const auto between = [&](int64_t floats) {
    return 0.2 * 2 * 4 * static_cast<double>(floats) / machine.Gbps(4 * floats, threads);
  };
  if (d.has_expand()) {
    ns +=
        PredictMatMul(machine, context.isa, threads, d.n * s.ih * s.iw, s.ic, d.ic) + between(d.n * s.ih * s.iw * s.ic);
  }
  if (d.has_project()) {
    ns +=
        PredictMatMul(machine, context.isa, threads, d.n * s.oh * s.ow, d.oc, s.oc) + between(d.n * s.oh * s.ow * s.oc);
  }
  return Accepted(ns);
}

Result<std::shared_ptr<const Kernel<SeparableConv2d>>> Prepare(const SeparableConv2dDesc& d,
                                                               const SeparableConv2dWeights& w,
                                                               const Context& context) {
  auto weights = PackSeparable(d, w, context.isa);
  if (!weights.ok()) return weights.status();
  return std::shared_ptr<const Kernel<SeparableConv2d>>(std::make_shared<Unfused>(d, context, std::move(*weights)));
}

}  // namespace

Candidate<SeparableConv2d> UnfusedSeparableConv2d() { return {"unfused", &Judge, &Prepare}; }

}  // namespace lamina::cpu
