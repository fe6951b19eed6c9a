// conv2d with groups = ic in nchw: plane by plane, each copied with its padding first, then convolved along its width.
//
// The copy is [rows][width], width = iw and the greater side pad in whole vectors: behind each row lie zeros that are
// the next row's padding to the left too. Scratch per worker: the copy of as many rows as 128 KiB hold, and as many
// rows of y when an activation follows that is no clamp.
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "kernels/cpu/aligned.h"
#include "kernels/cpu/conv2d_candidates.h"
#include "kernels/cpu/dwconv_planes.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/transpose.h"
#include "lamina/machine.h"

namespace lamina::cpu {
namespace {

constexpr int64_t kBlockBytes = 128 << 10;

const DwConvPlaneKernel::Size* FindSize(const Conv2dDesc& d, Isa isa) {
  for (const auto& size : GetDwConvPlaneKernel(isa).sizes) {
    if (d.kh == size.k && d.kw == size.k && d.stride_h == size.stride && d.stride_w == size.stride) return &size;
  }
  return nullptr;
}

class DepthwisePlanes final : public Kernel<Conv2d> {
 public:
  // weights: [oc, kh, kw], then bias [oc].
  DepthwisePlanes(const Conv2dDesc& desc, const Context& context, std::shared_ptr<const AlignedBuffer> weights)
      : desc_(desc),
        context_(context),
        size_(FindSize(desc, context.isa)),
        copy_rows_(GetTransposeKernel(context.isa).copy_rows),
        epilogue_(MakeEpilogue(context.isa, desc.activation, desc.residual)),
        weights_(std::move(weights)),
        oh_(desc.oh()),
        ow_(desc.ow()),
        lanes_(static_cast<int64_t>(GetDwConvPlaneKernel(context.isa).lanes)) {
    const Conv2dDesc& d = desc_;
    width_ = RoundUp(d.iw + std::max(d.pad_left, d.pad_right), lanes_);
    const int64_t rows = (kBlockBytes / (width_ * int64_t{4}) - d.kh) / d.stride_h + 1;
    rows_ = std::clamp(rows / kPlaneRows * kPlaneRows, kPlaneRows, RoundUp(oh_, kPlaneRows));
    // In front of the first row its left padding; behind the last one what the last vector of outputs reads of it.
    const int64_t last = d.stride_w * (RoundUp(ow_, lanes_) - 1) + d.kw + lanes_;
    margin_ = RoundUp(d.pad_left, lanes_);
    x_bytes_ = LineBytes(margin_ + InputRows(rows_) * width_ + std::max<int64_t>(0, last - width_));
    y_bytes_ = epilogue_.activate == nullptr ? 0 : LineBytes(rows_ * ow_);
  }

  Status Run(const Conv2dTensors& t, std::byte* scratch) const override {
    const Conv2dDesc& d = desc_;
    // Blocks are many: some of them make a task, so that what stays zero is cleared once for all of them.
    const int64_t threads = static_cast<int64_t>(context_.pool->num_threads());
    const int64_t blocks = d.n * d.oc * ((oh_ + rows_ - 1) / rows_),
                  tasks = threads == 1 ? 1 : std::min(blocks, 8 * threads);
    ParallelTasks(*context_.pool, static_cast<size_t>(tasks), [&](size_t task, size_t worker) {
      const int64_t i = static_cast<int64_t>(task);
      RunBlocks(t, i * blocks / tasks, (i + 1) * blocks / tasks, scratch + worker * worker_bytes());
    });
    return {};
  }

  size_t scratch_bytes() const override { return worker_bytes() * context_.pool->num_threads(); }
  size_t packed_bytes() const override { return weights_->bytes(); }
  Result<std::shared_ptr<const Kernel<Conv2d>>> Reshape(const Conv2dDesc& desc) const override {
    return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<DepthwisePlanes>(desc, context_, weights_));
  }

 private:
  size_t worker_bytes() const { return x_bytes_ + y_bytes_; }
  int64_t InputRows(int64_t rows) const { return (rows - 1) * desc_.stride_h + desc_.kh; }

  // Some rows of one plane.
  struct Block {
    int64_t n, channel, row, rows;
  };
  Block BlockAt(int64_t i) const {
    const int64_t blocks = (oh_ + rows_ - 1) / rows_, plane = i / blocks, row = i % blocks * rows_;
    return {plane / desc_.oc, plane % desc_.oc, row, std::min(rows_, oh_ - row)};
  }

  void RunBlocks(const Conv2dTensors& t, int64_t begin, int64_t end, std::byte* scratch) const {
    std::memset(scratch, 0, x_bytes_);
    float* const copy = reinterpret_cast<float*>(scratch) + margin_;
    for (int64_t i = begin; i < end; ++i) {
      CopyInput(t, BlockAt(i), copy);
      RunBlock(t, BlockAt(i), copy, reinterpret_cast<float*>(scratch + x_bytes_));
    }
  }

  void RunBlock(const Conv2dTensors& t, const Block& block, const float* copy, float* y_block) const {
    const Conv2dDesc& d = desc_;
    const int64_t at = (block.channel * oh_ + block.row) * ow_, dense = d.oc * oh_ * ow_;
    float* const y = static_cast<float*>(t.y) + block.n * StrideOr(d.y_stride, dense) + at;
    const float* residual = nullptr;
    if (d.residual != Residual::kNone) {
      residual = static_cast<const float*>(t.residual) + block.n * StrideOr(d.residual_stride, dense) + at;
    }
    DwConvPlane a;
    a.x = copy - d.pad_left;
    a.x_row = width_;
    a.w = weights_->as<float>() + block.channel * d.kh * d.kw;
    a.bias = weights_->as<float>()[d.oc * d.kh * d.kw + block.channel];
    a.lo = epilogue_.lo;
    a.hi = epilogue_.hi;
    a.residual_after = d.residual == Residual::kAfterActivation;
    a.rows = static_cast<size_t>(block.rows);
    a.columns = static_cast<size_t>(ow_);
    if (epilogue_.activate == nullptr) {
      a.y = y;
      a.residual = residual;
      size_->run(a);
      return;
    }
    // The residual may be y itself: what the activation still needs of it must outlive the sums.
    a.y = y_block;
    a.residual = a.residual_after ? nullptr : residual;
    size_->run(a);
    const size_t count = a.rows * a.columns;
    epilogue_.activate(epilogue_.activation, y_block, a.residual_after ? residual : nullptr, count);
    std::memcpy(y, y_block, count * sizeof(float));
  }

  // The rows of x that the block takes. Where one block holds a plane, its rows of padding are zero from the start.
  void CopyInput(const Conv2dTensors& t, const Block& block, float* copy) const {
    const Conv2dDesc& d = desc_;
    const float* x = static_cast<const float*>(t.x) + block.n * StrideOr(d.x_stride, d.ic * d.ih * d.iw) +
                     block.channel / (d.oc / d.ic) * d.ih * d.iw;
    const int64_t top = block.row * d.stride_h - d.pad_top, rows = InputRows(block.rows);
    const int64_t begin = std::clamp<int64_t>(-top, 0, rows), end = std::clamp(d.ih - top, begin, rows);
    if (rows_ < oh_) {
      const auto bytes = [&](int64_t count) { return static_cast<size_t>(count * width_) * sizeof(float); };
      std::memset(copy, 0, bytes(begin));
      std::memset(copy + end * width_, 0, bytes(rows - end));
    }
    copy_rows_(static_cast<size_t>(end - begin), static_cast<size_t>(d.iw), static_cast<size_t>(width_),
               x + (top + begin) * d.iw, d.iw, copy + begin * width_);
  }

  Conv2dDesc desc_;
  Context context_;
  const DwConvPlaneKernel::Size* size_;
  decltype(TransposeKernel::copy_rows) copy_rows_;
  Epilogue epilogue_;
  std::shared_ptr<const AlignedBuffer> weights_;
  int64_t oh_, ow_, lanes_;
  int64_t width_, rows_, margin_;  // of a row of the copy; output rows of a block; floats before the copy
  size_t x_bytes_, y_bytes_;
};

Judgement Judge(const Conv2dDesc& d, const Context& context) {
  if (std::string type = RefuseType(d); !type.empty()) return Refused(std::move(type));
  if (d.groups != d.ic) return Refused("only groups = ic is depthwise");
  if (d.layout != Layout::kNchw) return Refused("reads planes in nchw, got layout=nhwc");
  if (d.dilation_h != 1 || d.dilation_w != 1) return Refused("the dilations must be 1");
  if (FindSize(d, context.isa) == nullptr)
    return Refused("the kernel must be 3x3 or 5x5, the strides both 1 or both 2");
  const Machine& machine = *context.machine;
  const int threads = static_cast<int>(context.pool->num_threads());
  const int64_t lanes = static_cast<int64_t>(GetDwConvPlaneKernel(context.isa).lanes), oh = d.oh(), ow = d.ow();
  // In multiply-adds of a vector, measured: 1.6 a tap and 12 besides, twice that where columns are parted, 64 a plane.
  const double vector = (1.6 * static_cast<double>(d.kh * d.kw) + 12) * static_cast<double>(d.stride_w);
  const double plane = static_cast<double>(RoundUp(oh, kPlaneRows) * RoundUp(ow, lanes) / lanes) * vector + 64;
  const double compute = 2 * static_cast<double>(d.n * d.oc * lanes) * plane / machine.Gflops(context.isa, threads);
  const int64_t bytes = 4 * d.n * (d.ih * d.iw * d.ic + oh * ow * d.oc);
  return Accepted(std::max(compute, static_cast<double>(bytes) / machine.Gbps(bytes, threads)));
}

Result<std::shared_ptr<const Kernel<Conv2d>>> Prepare(const Conv2dDesc& d, const Conv2dWeights& w,
                                                      const Context& context) {
  const size_t taps = static_cast<size_t>(d.oc * d.kh * d.kw), channels = static_cast<size_t>(d.oc);
  auto packed = std::make_shared<AlignedBuffer>((taps + channels) * sizeof(float));
  if (packed->data() == nullptr) return Status{StatusCode::kOutOfMemory, ToString(d) + ": no memory for the weights"};
  std::memcpy(packed->data(), w.w, taps * sizeof(float));
  float* const bias = packed->as<float>() + taps;
  std::fill_n(bias, channels, 0.0f);
  if (d.bias) std::memcpy(bias, w.bias, channels * sizeof(float));
  return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<DepthwisePlanes>(d, context, std::move(packed)));
}

}  // namespace

Candidate<Conv2d> DepthwisePlanesConv2d() { return {"depthwise_planes", &Judge, &Prepare}; }

}  // namespace lamina::cpu
