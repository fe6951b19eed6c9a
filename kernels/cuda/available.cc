#include "kernels/cuda/runtime.h"
#include "kernels/operators/backends.h"

namespace lamina::cuda {

Status Available(void* stream) {
  const Result<const Device*> device = DeviceFor(stream);
  return device.ok() ? Status() : device.status();
}

bool Built() { return true; }

}  // namespace lamina::cuda
