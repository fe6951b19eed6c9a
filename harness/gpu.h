// The harness's memory as device memory: with a GPU in use, its pages are registered with CUDA, so that kernels read
// and write the very tensors, guard pages and all, that the CPU fills and compares. Slow, and meant for parity alone.
#ifndef LAMINA_HARNESS_GPU_H_
#define LAMINA_HARNESS_GPU_H_

#include <cstddef>

#include "lamina/status.h"

namespace lamina::harness {

// From now on what Guarded allocates is for the GPU too. Refused where there is none, or none that reads such memory by
// the host's addresses.
Status UseGpu();

// Waits for all that was enqueued.
Status WaitForGpu();

// Of pages that Guarded maps; they do nothing where no GPU is in use. Register aborts where CUDA refuses.
void RegisterPages(void* pages, size_t bytes);
void UnregisterPages(void* pages);

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_GPU_H_
