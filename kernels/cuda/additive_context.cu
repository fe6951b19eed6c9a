#include "kernels/cuda/additive.h"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/portable/additive_context.cuh"

namespace lamina::cuda {

template <class T>
Error StartAdditiveContext(const AdditiveArgs& args, int queries, void* stream) {
  const auto start = [&]<int kQueries>() {
    const int64_t blocks = args.slab_bands * DivUp(args.band, kQueries) * DivUp(args.dim, kContextColumns);
    return Launch(AdditiveContextKernel<T, kQueries>, dim3{static_cast<unsigned>(blocks), 1, 1}, kContextThreads,
                  static_cast<int>(sizeof(ContextShared<kQueries>)), stream, args);
  };
  switch (queries) {
    case 1: return start.template operator()<1>();
    case 4: return start.template operator()<4>();
    default: return start.template operator()<16>();
  }
}

template Error StartAdditiveContext<float>(const AdditiveArgs&, int, void*);
template Error StartAdditiveContext<Bf16>(const AdditiveArgs&, int, void*);
template Error StartAdditiveContext<F16>(const AdditiveArgs&, int, void*);

}  // namespace lamina::cuda
