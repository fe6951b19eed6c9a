// Depthwise convolution on compute capability 9.0 (sm90/depthwise.cuh) as operators use it.
#ifndef LAMINA_KERNELS_CUDA_SM90_DEPTHWISE_H_
#define LAMINA_KERNELS_CUDA_SM90_DEPTHWISE_H_

#include <optional>
#include <string>

#include "kernels/cuda/core/depthwise_strips.h"
#include "kernels/cuda/core/tensor_map.h"
#include "kernels/cuda/depthwise.h"
#include "kernels/cuda/kept_map.h"
#include "kernels/cuda/runtime.h"

namespace lamina::cuda {

struct TmaDepthwiseArgs {
  TensorMap x;
  DepthwiseArgs depthwise;
  StripWalks walks;
};

class TmaDepthwise {
 public:
  // `args` has the sizes and strides, pointers may be null: "" or why this kernel does not take them.
  static std::string Refuses(const Device& device, DType dtype, const DepthwiseArgs& args);
  static double Predict(const Device& device, DType dtype, const DepthwiseArgs& args);

  TmaDepthwise(const Device* device, DType dtype, const DepthwiseArgs& args);
  // Enqueues the step; `args` has the pointers too. Tensors off their alignment take the portable kernel.
  Error Launch(const DepthwiseArgs& args, void* stream) const;

 private:
  const Device* device_;
  DType dtype_;
  StripWalks walks_;
  mutable KeptMap x_;
};

// The kernel that is predicted to be the fastest.
class FastestDepthwise {
 public:
  static double Predict(const Device& device, DType dtype, const DepthwiseArgs& args);
  FastestDepthwise(const Device* device, DType dtype, const DepthwiseArgs& args);
  Error Launch(const DepthwiseArgs& args, void* stream) const;

 private:
  PortableDepthwise portable_;
  std::optional<TmaDepthwise> tma_;  // where it is the one
};

// Of depthwise_tma_*.cu.
template <class T>
Error StartTmaDepthwise(const TmaDepthwiseArgs& args, int blocks, void* stream);

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_SM90_DEPTHWISE_H_
