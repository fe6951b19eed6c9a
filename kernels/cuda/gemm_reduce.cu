#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/portable/gemm_reduce.cuh"

namespace lamina::cuda {

Error StartReduce(Math math, const GemmArgs& args, const float* partials, void* stream) {
  const Divider quads = Divider::Of(static_cast<uint32_t>(PartialPitch(args) / 4));
  const auto start = [&](auto* kernel) {
    const int64_t blocks = DivUp(args.rows * int64_t{quads.divisor}, kReduceThreads);
    return Launch(kernel, dim3{static_cast<unsigned>(blocks), 1, 1}, kReduceThreads, 0, stream, args, partials, quads);
  };
  switch (math) {
    case Math::kBf16: return start(GemmReduceKernel<Bf16>);
    case Math::kF16: return start(GemmReduceKernel<F16>);
    default: return start(GemmReduceKernel<float>);
  }
}

}  // namespace lamina::cuda
