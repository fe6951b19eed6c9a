#include "kernels/cuda/additive.h"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/portable/additive_exponentials.cuh"
#include "kernels/cuda/portable/additive_score.cuh"

namespace lamina::cuda {
namespace {

dim3 Grid(int64_t blocks) { return {static_cast<unsigned>(blocks), 1, 1}; }
int64_t RowBlocks(int rows) { return DivUp(rows, kExponentialThreads / 32); }

}  // namespace

Error StartAdditiveKeys(const AdditiveKeysArgs& args, void* stream) {
  const int64_t blocks = max(RowBlocks(args.rows), int64_t{1});  // the head is written without any key too
  return Launch(AdditiveKeysKernel, Grid(blocks), kExponentialThreads, 0, stream, args);
}

Error StartAdditiveQueries(const AdditiveQueriesArgs& args, void* stream) {
  return Launch(AdditiveQueriesKernel, Grid(RowBlocks(args.rows)), kExponentialThreads, 0, stream, args);
}

Error StartAdditiveTiles(const AdditiveArgs& args, void* stream) {
  return Launch(AdditiveTilesKernel, Grid(args.slab_bands * DivUp(args.keys, kScoreTile)), kScoreThreads,
                static_cast<int>(sizeof(TilesShared)), stream, args);
}

Error StartAdditiveRows(const AdditiveArgs& args, int queries, void* stream) {
  const int64_t blocks = args.slab_bands * DivUp(args.band, queries) * DivUp(args.keys, kKeysPerBlock);
  if (queries == 1) {
    return Launch(AdditiveRowsKernel<1>, Grid(blocks), kScoreThreads, static_cast<int>(sizeof(RowsShared<1>)), stream,
                  args);
  }
  return Launch(AdditiveRowsKernel<4>, Grid(blocks), kScoreThreads, static_cast<int>(sizeof(RowsShared<4>)), stream,
                args);
}

}  // namespace lamina::cuda
