// The knobs of the emulated runtime: which faults a test wants to see.
#ifndef LAMINA_KERNELS_CUDA_EMULATOR_RUNTIME_H_
#define LAMINA_KERNELS_CUDA_EMULATOR_RUNTIME_H_

#include <cstdint>
#include <vector>

namespace lamina::cuda::emulator {

struct Faults {
  bool no_device = false;
  int capability = 90;
  int multiprocessors = 132;
  int launch = 0;                     // the error that launches report
  int64_t allocations_left = -1;      // then cudaErrorMemoryAllocation; -1: no end
  const void* host_memory = nullptr;  // the one pointer that is no device memory
};
Faults& TheFaults();

int64_t LiveAllocations();

}  // namespace lamina::cuda::emulator

#endif  // LAMINA_KERNELS_CUDA_EMULATOR_RUNTIME_H_
