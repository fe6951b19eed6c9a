#include "kernels/cuda/attention.h"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/portable/store_rows.cuh"

namespace lamina::cuda {

Error StoreRows(DType dtype, const StoreRowsArgs& args, void* stream) {
  return Launch(SizeOf(dtype) == 4 ? StoreRowsKernel<uint32_t> : StoreRowsKernel<uint16_t>,
                dim3{static_cast<unsigned>(args.batch * args.rows), 1, 1}, kStoreThreads, 0, stream, args);
}

}  // namespace lamina::cuda
