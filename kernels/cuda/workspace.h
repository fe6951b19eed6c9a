// Device memory of an operator's own, for callers who give no scratch.
#ifndef LAMINA_KERNELS_CUDA_WORKSPACE_H_
#define LAMINA_KERNELS_CUDA_WORKSPACE_H_

#include <memory>
#include <string>

#include "kernels/cuda/runtime.h"

namespace lamina::cuda {

using DeviceWorkspace = std::shared_ptr<const DeviceMemory>;

// `known`, of the operator that is being reshaped, where it is large enough: allocating takes a device longer than
// Reshape may. Operators that share it run one after the other, on the stream that they share.
inline Result<DeviceWorkspace> WorkspaceOf(const std::string& desc, size_t bytes, const DeviceWorkspace& known) {
  if (bytes == 0 || (known != nullptr && known->bytes() >= bytes)) return known;
  return DeviceMemory::Allocate(desc, bytes);
}

// What a Run works in: the caller's scratch or, where that is null, the operator's own.
inline std::byte* MemoryOf(std::byte* scratch, const DeviceWorkspace& own) {
  return scratch != nullptr || own == nullptr ? scratch : own->as<std::byte>();
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_WORKSPACE_H_
