// StartAttention and its companions for one kind of products, for the files that instantiate them.
#ifndef LAMINA_KERNELS_CUDA_PORTABLE_START_ATTENTION_CUH_
#define LAMINA_KERNELS_CUDA_PORTABLE_START_ATTENTION_CUH_

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/portable/attention.cuh"

namespace lamina::cuda {

// f(shape) for the form and the fewest channels that hold `channels`.
template <Math kMath, class F>
auto WithAttentionShape(AttentionForm form, int channels, const F& f) {
  const auto with_form = [&](auto form_of) {
    constexpr bool kSplit = decltype(form_of)::value;
    return channels <= 64    ? f(AttentionShape<kMath, 64, kSplit>())
           : channels <= 128 ? f(AttentionShape<kMath, 128, kSplit>())
                             : f(AttentionShape<kMath, 256, kSplit>());
  };
  return form == AttentionForm::kSplitKv ? with_form(std::true_type()) : with_form(std::false_type());
}

template <Math kMath>
AttentionTiles AttentionTilesOf(AttentionForm form, int channels) {
  return WithAttentionShape<kMath>(form, channels, [](auto shape) {
    using Shape = decltype(shape);
    return AttentionTiles{Shape::kD, Shape::kRows, Shape::kKeys, Shape::kKeyWarps, Shape::kSharedBytes};
  });
}

template <Math kMath>
Error StartAttention(const AttentionArgs& args, AttentionForm form, void* stream) {
  using T = ElementOf<kMath>;
  const auto flat_rows = static_cast<unsigned>(args.FlatRow(args.batch, 0, 0));
  Error error = WithAttentionShape<kMath>(form, std::max(args.head_dim, args.value_dim), [&](auto shape) {
    using Shape = decltype(shape);
    const int64_t blocks = DivUp(args.rows(), Shape::kRows) * args.splits * args.units() * args.batch;
    return Launch(AttentionKernel<Shape>, dim3{static_cast<unsigned>(blocks), 1, 1}, Shape::kThreads,
                  Shape::kSharedBytes, stream, args);
  });
  if (error.ok() && form == AttentionForm::kSplitKv) {
    error = Launch(AttentionMergeKernel<T>, dim3{flat_rows, 1, 1}, 32 * kMergeWarps,
                   static_cast<int>(sizeof(MergeShared)), stream, args);
  }
  if (error.ok() && args.weights != nullptr) {
    error = Launch(AttentionWeightsKernel<T>, dim3{(flat_rows + kWeightsWarps - 1) / kWeightsWarps, 1, 1},
                   32 * kWeightsWarps, 0, stream, args);
  }
  return error;
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_PORTABLE_START_ATTENTION_CUH_
