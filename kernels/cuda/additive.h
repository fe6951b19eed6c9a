// The kernels of additive attention as its host code starts them. What they compute: core/additive.h.
#ifndef LAMINA_KERNELS_CUDA_ADDITIVE_H_
#define LAMINA_KERNELS_CUDA_ADDITIVE_H_

#include "kernels/cuda/core/additive.h"
#include "kernels/cuda/core/gemm.h"
#include "kernels/cuda/runtime.h"

namespace lamina::cuda {

Error StartAdditiveKeys(const AdditiveKeysArgs& args, void* stream);
Error StartAdditiveQueries(const AdditiveQueriesArgs& args, void* stream);
// Tiles of 64 x 64, or 1 or 4 queries at a time.
Error StartAdditiveTiles(const AdditiveArgs& args, void* stream);
Error StartAdditiveRows(const AdditiveArgs& args, int queries, void* stream);
// 1, 4 or 16 queries at a time. T: the elements of values and context.
template <class T>
Error StartAdditiveContext(const AdditiveArgs& args, int queries, void* stream);

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_ADDITIVE_H_
