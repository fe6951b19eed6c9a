// conv2d with groups = ic in nchw: plane by plane, vectors along the width.
//
// Scratch per worker: a row of zeros, and as many rows of y as 128 KiB hold when an activation follows that is no
// clamp.
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
#include "kernels/operators/packing.h"
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
        epilogue_(MakeEpilogue(context.isa, desc.activation, desc.residual)),
        weights_(std::move(weights)),
        oh_(desc.oh()),
        ow_(desc.ow()) {
    // With an activation a block of rows stays in L2 until it is applied; otherwise blocks only share the work out.
    rows_ = oh_;
    if (epilogue_.activate != nullptr) rows_ = std::min(rows_, WholeGroups(kBlockBytes / (ow_ * int64_t{4})));
    const int64_t threads = static_cast<int64_t>(context.pool->num_threads()), planes = desc.n * desc.oc;
    if (threads > 1 && planes < 4 * threads) rows_ = std::min(rows_, WholeGroups(oh_ * planes / (4 * threads)));
    y_bytes_ = epilogue_.activate == nullptr ? 0 : LineBytes(rows_ * ow_);
    zero_bytes_ = LineBytes(desc.iw + 2 * kZeroMargin);
  }

  Status Run(const Conv2dTensors& t, std::byte* scratch) const override {
    const Conv2dDesc& d = desc_;
    const int64_t threads = static_cast<int64_t>(context_.pool->num_threads());
    const int64_t work = d.n * DivUp(oh_, rows_) * d.oc, tasks = threads == 1 ? 1 : std::min(work, 8 * threads);
    ParallelTasks(*context_.pool, static_cast<size_t>(tasks), [&](size_t task, size_t worker) {
      const int64_t i = static_cast<int64_t>(task);
      std::byte* const own = scratch + worker * worker_bytes();
      std::memset(own, 0, zero_bytes_);
      RunRange(t, i * work / tasks, (i + 1) * work / tasks, reinterpret_cast<const float*>(own) + kZeroMargin,
               reinterpret_cast<float*>(own + zero_bytes_));
    });
    return {};
  }

  size_t scratch_bytes() const override { return worker_bytes() * context_.pool->num_threads(); }
  size_t packed_bytes() const override { return weights_->bytes(); }
  Result<std::shared_ptr<const Kernel<Conv2d>>> Reshape(const Conv2dDesc& desc) const override {
    return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<DepthwisePlanes>(desc, context_, weights_));
  }

 private:
  size_t worker_bytes() const { return zero_bytes_ + y_bytes_; }
  static int64_t WholeGroups(int64_t rows) { return std::max(kPlaneRows, rows / kPlaneRows * kPlaneRows); }

  // Of images, each in blocks of rows, each of all channels, what lies in [begin, end).
  void RunRange(const Conv2dTensors& t, int64_t begin, int64_t end, const float* zeros, float* y_block) const {
    const int64_t blocks = DivUp(oh_, rows_), oc = desc_.oc;
    while (begin < end) {
      const int64_t block = begin / oc, first = begin % oc, last = std::min(oc, first + end - begin);
      if (epilogue_.activate == nullptr) {
        RunPlanes(t, block / blocks, block % blocks * rows_, first, last, zeros, nullptr);
      } else {
        for (int64_t c = first; c < last; ++c) {
          RunPlanes(t, block / blocks, block % blocks * rows_, c, c + 1, zeros, y_block);
        }
      }
      begin += last - first;
    }
  }

  // Channels [first, last) of a block of rows. y_block: null, or where they wait for the activation.
  void RunPlanes(const Conv2dTensors& t, int64_t n, int64_t row, int64_t first, int64_t last, const float* zeros,
                 float* y_block) const {
    const Conv2dDesc& d = desc_;
    const int64_t at = row * ow_, dense = d.oc * oh_ * ow_;
    float* const y = static_cast<float*>(t.y) + n * StrideOr(d.y_stride, dense) + at;
    const float* residual = nullptr;
    if (d.residual != Residual::kNone) {
      residual = static_cast<const float*>(t.residual) + n * StrideOr(d.residual_stride, dense) + at;
    }
    DwConvPlanes a;
    a.first = first;
    a.last = last;
    a.multiplier = d.oc / d.ic;
    a.x = static_cast<const float*>(t.x) + n * StrideOr(d.x_stride, d.ic * d.ih * d.iw);
    a.ih = d.ih;
    a.iw = d.iw;
    a.pad_top = d.pad_top;
    a.pad_left = d.pad_left;
    a.zeros = zeros;
    a.w = weights_->as<float>();
    a.bias = a.w + d.oc * d.kh * d.kw;
    a.lo = epilogue_.lo;
    a.hi = epilogue_.hi;
    a.residual_after = d.residual == Residual::kAfterActivation;
    a.first_row = row;
    a.rows = std::min(rows_, oh_ - row);
    a.columns = ow_;
    a.residual_plane = oh_ * ow_;
    if (y_block == nullptr) {
      a.y = y;
      a.y_plane = oh_ * ow_;
      a.residual = residual;
      return size_->run(a);
    }
    // The residual may be y itself: what the activation still needs of it must outlive the sums.
    a.y = y_block;
    a.y_plane = 0;
    a.residual = a.residual_after ? nullptr : residual;
    size_->run(a);
    const size_t count = static_cast<size_t>(a.rows * a.columns);
    const int64_t plane = first * oh_ * ow_;
    epilogue_.activate(epilogue_.activation, y_block, a.residual_after ? residual + plane : nullptr, count);
    std::memcpy(y + plane, y_block, count * sizeof(float));
  }

  Conv2dDesc desc_;
  Context context_;
  const DwConvPlaneKernel::Size* size_;
  Epilogue epilogue_;
  std::shared_ptr<const AlignedBuffer> weights_;
  int64_t oh_, ow_, rows_;  // rows_: of a block
  size_t y_bytes_, zero_bytes_;
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
  // In multiply-adds of a vector, measured on Zen 4. AVX-512: 1.1 a tap, half again where columns are parted, 30 a
  // plane, a vector of which at most half is used costs 0.6. Below it more, since parting takes two steps.
  const bool wide = context.isa == Isa::kAvx3;
  const int64_t rest = ow - (ow - 1) / lanes * lanes;
  const double parting = d.stride_w == 1 ? 1 : wide ? 1.5 : 2;
  const double vector = ((wide ? 1.1 : 1.3) * static_cast<double>(d.kh * d.kw) + 2) * parting;
  const double vectors = static_cast<double>(DivUp(ow, lanes)) - (wide && 2 * rest <= lanes ? 0.4 : 0);
  const double rows = static_cast<double>(oh + (oh % kPlaneRows == 0 ? 0 : 2));  // groups of fewer rows cost more
  const double plane = rows * vectors * vector + (wide ? 30 : 60);
  const double compute = 2 * static_cast<double>(d.n * d.oc * lanes) * plane / machine.Gflops(context.isa, threads);
  const int64_t bytes = 4 * d.n * (d.ih * d.iw * d.ic + oh * ow * d.oc);
  return Accepted(std::max(compute, static_cast<double>(bytes) / machine.Gbps(bytes, threads)));
}

Result<std::shared_ptr<const Kernel<Conv2d>>> Prepare(const Conv2dDesc& d, const Conv2dWeights& w,
                                                      const Context& context) {
  const size_t taps = static_cast<size_t>(d.oc * d.kh * d.kw), channels = static_cast<size_t>(d.oc);
  auto packed = std::make_shared<AlignedBuffer>(packing::Part((taps + channels) * sizeof(float)));
  if (packed->data() == nullptr) return Status{StatusCode::kOutOfMemory, ToString(d) + ": no memory for the weights"};
  if (!packing::Loading()) {
    std::memcpy(packed->data(), w.w, taps * sizeof(float));
    float* const bias = packed->as<float>() + taps;
    std::fill_n(bias, channels, 0.0f);
    if (d.bias) std::memcpy(bias, w.bias, channels * sizeof(float));
  }
  return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<DepthwisePlanes>(d, context, std::move(packed)));
}

}  // namespace

Candidate<Conv2d> DepthwisePlanesConv2d() { return {"depthwise_planes", &Judge, &Prepare}; }

}  // namespace lamina::cpu
