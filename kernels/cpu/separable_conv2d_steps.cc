// Each pointwise step is a matrix product over the pixels of some rows; what lies between steps is nhwc in scratch. In
// nchw the first step's rows are transposed into pixels first, the last step's out of them.
#include "kernels/cpu/separable_conv2d_steps.h"

#include <algorithm>
#include <utility>

namespace lamina::cpu {
namespace {

Layout DepthwiseInLayout(const SeparableConv2dDesc& d) { return d.has_expand() ? Layout::kNhwc : d.layout; }
Layout DepthwiseOutLayout(const SeparableConv2dDesc& d) { return d.has_project() ? Layout::kNhwc : d.layout; }

}  // namespace

Result<std::shared_ptr<const PackedSeparable>> PackSeparable(const SeparableConv2dDesc& d,
                                                             const SeparableConv2dWeights& w, Isa isa) {
  const auto floats = [](const void* p, bool has = true) { return has ? static_cast<const float*>(p) : nullptr; };
  const int64_t in = d.depthwise_in(), out = d.depthwise_out();
  auto packed = std::make_shared<PackedSeparable>();
  if (d.has_expand()) {
    auto expand = PackedMatrix::Pack(isa, MatMulKernel(isa, d.n * d.ih * d.iw), d.ic, in, floats(w.expand_w), d.ic, 1,
                                     floats(w.expand_bias, d.expand_bias));
    if (!expand.ok()) return expand.status();
    packed->expand = std::move(*expand);
  }
  auto depthwise =
      PackedDepthwise::Pack(isa, out, d.kh * d.kw, floats(w.depthwise_w), floats(w.depthwise_bias, d.depthwise_bias));
  if (!depthwise.ok()) return depthwise.status();
  packed->depthwise = std::move(*depthwise);
  if (d.has_project()) {
    auto project = PackedMatrix::Pack(isa, MatMulKernel(isa, d.n * d.oh() * d.ow()), out, d.oc, floats(w.project_w),
                                      out, 1, floats(w.project_bias, d.project_bias));
    if (!project.ok()) return project.status();
    packed->project = std::move(*project);
  }
  return std::shared_ptr<const PackedSeparable>(std::move(packed));
}

DepthwiseShape DepthwiseShapeOf(const SeparableConv2dDesc& d) {
  return DepthwiseShapeOf(d, d.depthwise_in(), d.depthwise_out(), d.depthwise_activation,
                          d.has_project() ? Residual::kNone : d.residual);
}

int64_t ScratchChannels(int64_t channels) {
  constexpr int64_t kLine = 16, kConflict = 128;
  const int64_t whole = (channels + kLine - 1) / kLine * kLine;
  return whole % kConflict == 0 ? whole + kLine : whole;
}

ImageView<float> ScratchImage(float* data, int64_t rows, int64_t w, int64_t channels, int64_t first_row) {
  const int64_t pixel = ScratchChannels(channels);
  return {data, w * pixel, pixel, 1, rows, pixel, true, first_row};
}

size_t ScratchImageFloats(int64_t rows, int64_t w, int64_t channels) {
  return static_cast<size_t>(rows * w * ScratchChannels(channels));
}

SeparableSteps::SeparableSteps(const SeparableConv2dDesc& desc, const Context& context,
                               std::shared_ptr<const PackedSeparable> weights)
    : desc_(desc),
      context_(context),
      weights_(std::move(weights)),
      depthwise_(DepthwiseShapeOf(desc), DepthwiseInLayout(desc), DepthwiseOutLayout(desc), context,
                 weights_->depthwise),
      transpose_(&GetTransposeKernel(context.isa)) {}

ImageView<const float> SeparableSteps::X(const SeparableConv2dTensors& t, int64_t n) const {
  const SeparableConv2dDesc& d = desc_;
  return ImageOf(static_cast<const float*>(t.x), d.layout, n, d.ih, d.iw, d.ic, d.x_stride);
}
ImageView<const float> SeparableSteps::ResidualOf(const SeparableConv2dTensors& t, int64_t n) const {
  const DepthwiseShape& s = depthwise_.shape();
  return ImageOf(static_cast<const float*>(t.residual), desc_.layout, n, s.oh, s.ow, desc_.oc, desc_.residual_stride);
}
ImageView<float> SeparableSteps::Y(const SeparableConv2dTensors& t, int64_t n) const {
  const DepthwiseShape& s = depthwise_.shape();
  return ImageOf(static_cast<float*>(t.y), desc_.layout, n, s.oh, s.ow, desc_.oc, desc_.y_stride);
}

size_t SeparableSteps::ExpandFloats(int64_t rows) const {
  return nhwc() || !desc_.has_expand() ? 0 : ScratchImageFloats(rows, desc_.iw, desc_.ic);
}
size_t SeparableSteps::ProjectFloats(int64_t rows) const {
  return nhwc() || !desc_.has_project() ? 0 : ScratchImageFloats(rows, depthwise_.shape().ow, desc_.oc);
}

void SeparableSteps::Expand(const ImageView<const float>& x, int64_t begin, int64_t end, const ImageView<float>& e,
                            float* pixels) const {
  ImageView<const float> rows = x;
  if (!x.nhwc) {
    const ImageView<float> copy = ScratchImage(pixels, end - begin, desc_.iw, desc_.ic, begin);
    transpose_->transpose(static_cast<size_t>(desc_.ic), static_cast<size_t>((end - begin) * desc_.iw),
                          x.at(begin, 0, 0), x.channel, pixels, copy.pixel);
    rows = copy.read();
  }
  MatMulArgs args;
  args.a_stride = rows.pixel;
  args.c_stride = e.pixel;
  args.activation = desc_.expand_activation;
  for (int64_t row = begin, next; row < end; row = next) {
    next = std::min(end, row + e.slots - (row - e.first_row) % e.slots);  // as far as e's ring goes on
    args.m = (next - row) * desc_.iw;
    args.a = rows.at(row, 0, 0);
    args.c = e.at(row, 0, 0);
    MatMul(*context_.pool, weights_->expand, args);
  }
}

void SeparableSteps::Project(const ImageView<const float>& d, int64_t begin, int64_t end, const ImageView<float>& y,
                             const ImageView<const float>& residual, float* pixels) const {
  const int64_t ow = depthwise_.shape().ow;
  const size_t oc = static_cast<size_t>(desc_.oc), count = static_cast<size_t>((end - begin) * ow);
  MatMulArgs args;
  args.m = (end - begin) * ow;
  args.a = d.at(begin, 0, 0);
  args.a_stride = d.pixel;
  args.residual_kind = desc_.residual;
  args.activation = desc_.project_activation;
  if (y.nhwc) {
    args.c = y.at(begin, 0, 0);
    args.c_stride = y.pixel;
    if (desc_.residual != Residual::kNone) {
      args.residual = residual.at(begin, 0, 0);
      args.residual_stride = residual.pixel;
    }
    MatMul(*context_.pool, weights_->project, args);
    return;
  }
  args.c = pixels;
  args.c_stride = ScratchChannels(desc_.oc);
  if (desc_.residual != Residual::kNone) {  // it waits where its sum will go
    transpose_->transpose(oc, count, residual.at(begin, 0, 0), residual.channel, pixels, args.c_stride);
    args.residual = pixels;
    args.residual_stride = args.c_stride;
  }
  MatMul(*context_.pool, weights_->project, args);
  transpose_->transpose(count, oc, pixels, args.c_stride, y.at(begin, 0, 0), y.channel);
}

double PredictDepthwiseStep(const SeparableConv2dDesc& d, const DepthwiseShape& part, int64_t n, const Context& context,
                            int threads) {
  return PredictDepthwise(part, DepthwiseInLayout(d), DepthwiseOutLayout(d), n, *context.machine, context.isa, threads);
}

double PredictTransposes(const SeparableConv2dDesc& d, const Context& context) {
  if (d.layout == Layout::kNhwc) return 0;
  double floats = 0;
  if (d.has_expand()) floats += static_cast<double>(d.n * d.ih * d.iw * d.ic);
  if (d.has_project()) floats += static_cast<double>(d.n * d.oh() * d.ow() * d.oc);
  // As in PredictDepthwise: a vector's transpose takes as long as multiply-adds of as many vectors as it has lanes.
  const double lanes = static_cast<double>(GetDwConvKernel(context.isa).lanes);
  return 2 * floats * (lanes + 2) / context.machine->Gflops(context.isa, static_cast<int>(context.pool->num_threads()));
}

}  // namespace lamina::cpu
