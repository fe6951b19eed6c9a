#include "kernels/cuda/attention.h"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/portable/store_rows.cuh"

namespace lamina::cuda {

Error StoreRows(DType dtype, const StoreRowsArgs& args, void* stream) {
  const int64_t blocks = DivUp(args.batch * args.rows * args.heads * args.dim, kStoreThreads);
  return Launch(SizeOf(dtype) == 4 ? StoreRowsKernel<uint32_t> : StoreRowsKernel<uint16_t>,
                dim3{static_cast<unsigned>(blocks), 1, 1}, kStoreThreads, 0, stream, args);
}

}  // namespace lamina::cuda
