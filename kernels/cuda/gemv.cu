#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/portable/gemv.cuh"

namespace lamina::cuda {

template <Math kMath>
Error StartGemv(const GemmArgs& args, bool chunks, void* stream) {
  const auto start = [&]<int kRows>() {
    const int64_t blocks = DivUp(args.n, kGemvColumns) * DivUp(args.rows, kRows);
    return Launch(chunks ? GemvKernel<kMath, kRows, true> : GemvKernel<kMath, kRows, false>,
                  dim3{static_cast<unsigned>(blocks), 1, 1}, kGemvThreads, 0, stream, args);
  };
  return args.rows == 1 ? start.template operator()<1>() : start.template operator()<4>();
}

template Error StartGemv<Math::kF32>(const GemmArgs&, bool, void*);
template Error StartGemv<Math::kBf16>(const GemmArgs&, bool, void*);
template Error StartGemv<Math::kF16>(const GemmArgs&, bool, void*);

}  // namespace lamina::cuda
