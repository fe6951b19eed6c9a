// One depthwise step, whatever operator it belongs to: weights packed once, any part of the output on demand.
#ifndef LAMINA_KERNELS_CPU_DEPTHWISE_H_
#define LAMINA_KERNELS_CPU_DEPTHWISE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cpu/aligned.h"
#include "kernels/cpu/dwconv.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/image_view.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/transpose.h"
#include "lamina/context.h"
#include "lamina/machine.h"
#include "lamina/status.h"
#include "lamina/types.h"

namespace lamina::cpu {

// y[oh, ow, h * multiplier + j] = act(bias + sum_{kh,kw} x[tap(oh, ow, kh, kw), h] * w[h * multiplier + j, kh, kw])
struct DepthwiseShape {
  int64_t ih = 0, iw = 0, ic = 0, oh = 0, ow = 0, oc = 0;  // oc = ic * multiplier
  int64_t kh = 1, kw = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, pad_top = 0, pad_left = 0;
  Activation activation = {};
  Residual residual = Residual::kNone;
  int64_t multiplier() const { return oc / ic; }
  int64_t taps() const { return kh * kw; }
};

// The step of a descriptor that moves a kernel over an image, from `ic` channels to `oc`.
template <class Desc>
DepthwiseShape DepthwiseShapeOf(const Desc& d, int64_t ic, int64_t oc, const Activation& activation,
                                Residual residual) {
  return {d.ih,       d.iw,       ic,           d.oh(),       d.ow(),    oc,         d.kh,       d.kw,
          d.stride_h, d.stride_w, d.dilation_h, d.dilation_w, d.pad_top, d.pad_left, activation, residual};
}

// Why the step takes none of its problems, or "": a kernel that reaches so far that no copy of what it sees could be
// kept.
std::string RefuseExtent(const DepthwiseShape& shape);

class PackedDepthwise {
 public:
  // w [oc, taps], bias [oc] or null. Fails only for want of memory.
  static Result<std::shared_ptr<const PackedDepthwise>> Pack(Isa isa, int64_t oc, int64_t taps, const float* w,
                                                             const float* bias);
  // [taps][lanes] and the bias [lanes] of vector v of channels.
  const float* vector(int64_t v) const { return buffer_.as<float>() + v * vector_floats_; }
  size_t bytes() const { return buffer_.bytes(); }

 private:
  AlignedBuffer buffer_;
  int64_t vector_floats_ = 0;
};

// Works tile by tile: some rows and columns of one vector of channels. Images in nhwc are read and written where they
// lie, as far as dwconv.h's kernels can; the rest goes through a block [rows][columns][lanes] in scratch, padding
// included: x in nchw, with a depth multiplier, or for a kernel that wants it; y in nchw or with an activation that is
// no clamp; either one's last channels that fill no vector.
class DepthwiseStep {
 public:
  DepthwiseStep(const DepthwiseShape& shape, Layout x_layout, Layout y_layout, const Context& context,
                std::shared_ptr<const PackedDepthwise> weights);

  struct Images {
    ImageView<const float> x;
    ImageView<float> y;
    ImageView<const float> residual = {};  // unread unless the shape has one
  };
  struct Part {
    int64_t row_begin = 0, row_end = 0, vector_begin = 0, vector_end = 0;
    bool goes_on = true;  // this thread takes the rows below too, and may fetch them ahead
  };
  // Part of one image, on this thread. `scratch`: scratch_bytes(), 64-byte aligned.
  void Run(const Images& images, const Part& part, std::byte* scratch) const;
  // All of n images, on the pool; images(i) names the i-th's. `scratch`: scratch_bytes() for each of its threads.
  template <class ImagesOf>
  void RunAll(ThreadPool& pool, int64_t n, const ImagesOf& images, std::byte* scratch) const;

  size_t scratch_bytes() const { return x_bytes_ + out_bytes_; }
  int64_t row_step() const { return rows_; }  // parts that begin at its multiples waste nothing
  int64_t vectors() const { return vectors_; }
  const DepthwiseShape& shape() const { return shape_; }
  size_t packed_bytes() const { return weights_->bytes(); }
  const std::shared_ptr<const PackedDepthwise>& weights() const { return weights_; }

 private:
  struct Tile {
    int64_t row, rows, column, columns;  // of the output
    int64_t vector, vectors;             // of channels: more than one only where nothing is copied
    int64_t channel, channels;           // the first vector's, and its live lanes
    bool goes_on;                        // as its part
  };
  void RunTile(const Images& images, const Tile& tile, std::byte* scratch) const;
  void RunSlide(const Images& images, const float* x_block, const Tile& tile, size_t lanes, float* ring,
                const DwConvOutput& out) const;
  size_t ChooseLag(const ImageView<const float>& x, const Tile& tile, const DwConvOutput& out) const;
  void RunTaps(const float* x_block, const Tile& tile, const DwConvOutput& out) const;
  void LoadInput(const ImageView<const float>& x, const Tile& tile, float* block) const;
  void LoadResidual(const ImageView<const float>& residual, const Tile& tile, float* block) const;
  void StoreOutput(const float* block, const Tile& tile, const ImageView<float>& y) const;
  // Input rows and columns that so many of the output take.
  int64_t InputRows(int64_t rows) const {
    return (rows - 1) * shape_.stride_h + (shape_.kh - 1) * shape_.dilation_h + 1;
  }
  int64_t InputColumns(int64_t columns) const;

  DepthwiseShape shape_;
  const DwConvKernel* kernel_;
  const DwConvSlide* slide_;  // null: taps
  const TransposeKernel* transpose_;
  Epilogue epilogue_;
  std::shared_ptr<const PackedDepthwise> weights_;
  bool x_direct_, y_direct_;          // whole vectors need no block
  int64_t vectors_, rows_, columns_;  // vectors of channels in all; rows and columns of a tile
  size_t x_bytes_, y_bytes_;          // of a tile's blocks
  size_t out_bytes_;                  // of the blocks of y and of the residual, or of the ring
};

template <class ImagesOf>
void DepthwiseStep::RunAll(ThreadPool& pool, int64_t n, const ImagesOf& images, std::byte* scratch) const {
  const int64_t strips = (shape_.oh + rows_ - 1) / rows_, threads = static_cast<int64_t>(pool.num_threads());
  // Few strips for many threads: share out the channels too, four tasks a thread to even out their ends.
  const int64_t wanted = threads == 1 ? 1 : (4 * threads + n * strips - 1) / (n * strips);
  const int64_t groups = std::clamp<int64_t>(wanted, 1, (vectors_ + 3) / 4);
  // Cut between lines: which kernel takes a vector may depend on whether a pair begins with it.
  const auto cut = [&](int64_t group) { return group == groups ? vectors_ : group * vectors_ / groups / 2 * 2; };
  ParallelTasks(pool, static_cast<size_t>(n * strips * groups), [&](size_t task, size_t worker) {
    const int64_t t = static_cast<int64_t>(task), group = t % groups, strip = t / groups % strips;
    // Lines of y fetched by one thread and written by another would go back and forth (112x112x32: 36 to 58 us).
    const Part part{strip * rows_, std::min(shape_.oh, (strip + 1) * rows_), cut(group), cut(group + 1), threads == 1};
    Run(images(t / groups / strips), part, scratch + worker * scratch_bytes());
  });
}

// Predicted nanoseconds of the step over `n` images that lie in memory as far out as their size says.
double PredictDepthwise(const DepthwiseShape& shape, Layout x_layout, Layout y_layout, int64_t n,
                        const Machine& machine, Isa isa, int threads);

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_DEPTHWISE_H_
