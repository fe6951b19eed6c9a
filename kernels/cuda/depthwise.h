// Depthwise convolution as other files use it: weights packed once, then one launch a call.
#ifndef LAMINA_KERNELS_CUDA_DEPTHWISE_H_
#define LAMINA_KERNELS_CUDA_DEPTHWISE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/core/depthwise.h"
#include "kernels/cuda/image.h"
#include "kernels/cuda/runtime.h"

namespace lamina::cuda {

// On the device, in f32 whatever the operator's dtype is: exact, and read once a thread.
class DepthwiseWeights {
 public:
  // w [channels, kh, kw], bias [channels] or null, on the host. `desc` begins the sentence of a refusal.
  static Result<std::shared_ptr<const DepthwiseWeights>> Pack(const std::string& desc, DType dtype, const void* w,
                                                              const void* bias, int64_t channels, int64_t taps);
  void Describe(DepthwiseArgs& args) const;
  size_t bytes() const { return w_->bytes() + bias_->bytes(); }

 private:
  DepthwiseWeights() = default;
  int channels_padded_ = 0;
  std::shared_ptr<const DeviceMemory> w_, bias_;
};

// The step's window and sizes, of a conv2d or a separable_conv2d: `in` channels and `out` of them.
template <class Desc>
DepthwiseArgs DepthwiseArgsOf(const Desc& d, int64_t in, int64_t out) {
  const auto narrow = [](int64_t size) { return static_cast<int>(size); };
  DepthwiseArgs a;
  a.images = narrow(d.n);
  a.ih = narrow(d.ih);
  a.iw = narrow(d.iw);
  a.oh = narrow(d.oh());
  a.kh = narrow(d.kh);
  a.kw = narrow(d.kw);
  a.stride_h = narrow(d.stride_h);
  a.stride_w = narrow(d.stride_w);
  a.dilation_h = narrow(d.dilation_h);
  a.dilation_w = narrow(d.dilation_w);
  a.pad_top = narrow(d.pad_top);
  a.pad_left = narrow(d.pad_left);
  a.pixels = Divider::Of(static_cast<uint32_t>(d.oh() * d.ow()));
  a.ow = Divider::Of(static_cast<uint32_t>(d.ow()));
  a.channels = narrow(out);
  a.multiplier = Divider::Of(static_cast<uint32_t>(out / in));
  return a;
}

// "" or why no kernel takes these sizes.
template <class Desc>
std::string RefusesDepthwise(const Desc& d, int64_t out) {
  constexpr int64_t kMost = int64_t{1} << 30;  // so that every position in the padded image is an int
  if (std::max(d.ih + d.pad_top + d.pad_bottom, d.iw + d.pad_left + d.pad_right) >= kMost) {
    return "takes padded images of fewer than 2^30 rows and columns";
  }
  if (out >= int64_t{1} << 23) return "takes fewer than 2^23 channels";
  if (d.n * d.oh() * d.ow() * DivUp(out, 4) > INT32_MAX) return "takes fewer than 2^31 quads of outputs";
  return "";
}

// Bytes that the step has to read and write: x, y and the residual once.
double DepthwiseBytes(DType dtype, const DepthwiseArgs& args);

// The portable kernels as operators use them; TmaDepthwise (sm90_depthwise.h) is Hopper's. Both are made from sizes and
// strides, pointers may be null.
class PortableDepthwise {
 public:
  static std::string Refuses(const Device&, DType, const DepthwiseArgs&) { return ""; }
  static double Predict(const Device& device, DType dtype, const DepthwiseArgs& args);

  PortableDepthwise(const Device* device, DType dtype, const DepthwiseArgs&) : device_(device), dtype_(dtype) {}
  // Enqueues the step. `args` is complete but for `walks`, `x_quads` and the epilogue's `quads`, which follow.
  Error Launch(DepthwiseArgs args, void* stream) const;

 private:
  const Device* device_;
  DType dtype_;
};

// Of depthwise_*.cu.
enum class DepthwiseVariant {
  kQuads,
  kWalk3x3Stride1,
  kWalk3x3Stride2,
  kWalk5x5Stride1,
  kWalk5x5Stride2,
  kRow7x7Stride1
};
template <class T>
Error StartDepthwise(const DepthwiseArgs& args, DepthwiseVariant variant, void* stream);

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_DEPTHWISE_H_
