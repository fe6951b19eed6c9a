// Starts a kernel on a stream: on a GPU, or on the emulated one at once.
#ifndef LAMINA_KERNELS_CUDA_DEVICE_LAUNCH_CUH_
#define LAMINA_KERNELS_CUDA_DEVICE_LAUNCH_CUH_

#include "kernels/cuda/device/ptx.cuh"
#include "kernels/cuda/runtime.h"

#ifndef __CUDACC__
#include "kernels/cuda/emulator/runtime.h"
#endif

namespace lamina::cuda {

#ifdef __CUDACC__
// Whether the current device runs the machine code in which kernels wait for those before them (AwaitEarlierKernels).
inline bool KernelsMayOverlap() {
  int device = 0, major = 0, minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess && major == 9 &&
         minor == 0;
}
#endif

// Enqueues kernel(args...); no wait. The error is this launch's own, or one that earlier work has left behind.
template <class... Params, class... Args>
Error Launch(void (*kernel)(Params...), dim3 grid, int threads, int shared_bytes, void* stream, const Args&... args) {
#ifdef __CUDACC__
  cudaError_t error = cudaSuccess;
  if (shared_bytes > 48 * 1024) {  // more has to be asked for
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  }
  if (error == cudaSuccess) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
    config.stream = static_cast<cudaStream_t>(stream);
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &overlap;
    config.numAttrs = KernelsMayOverlap() ? 1 : 0;
    error = cudaLaunchKernelEx(&config, kernel, args...);
  }
  if (error != cudaSuccess) cudaGetLastError();  // said here; later calls start clean where the device still can
  return {static_cast<int>(error)};
#else
  (void)stream;
  if (const int error = emulator::TheFaults().launch; error != 0) return {error};
  emulator::Block::RunGrid(grid, threads, static_cast<size_t>(shared_bytes), [&] {
    kernel(args...);
    if (!emulator::Block::Current().awaited()) emulator::Die("a thread ended without AwaitEarlierKernels");
  });
  return {};
#endif
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_DEVICE_LAUNCH_CUH_
