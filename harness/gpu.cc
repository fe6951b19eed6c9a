#include "harness/gpu.h"

#ifdef LAMINA_HARNESS_CUDA
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#endif

namespace lamina::harness {

#ifdef LAMINA_HARNESS_CUDA
namespace {

bool in_use = false;

Status Checked(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return {};
  return {StatusCode::kDeviceError, std::string(doing) + ": " + cudaGetErrorName(error)};
}

}  // namespace

Status UseGpu() {
  int device = 0, same_addresses = 0;
  if (Status s = Checked(cudaGetDevice(&device), "no GPU"); !s.ok()) {
    return {StatusCode::kUnsupportedHardware, s.message()};
  }
  const cudaError_t error =
      cudaDeviceGetAttribute(&same_addresses, cudaDevAttrCanUseHostPointerForRegisteredMem, device);
  if (Status s = Checked(error, "asking about registered memory"); !s.ok()) return s;
  if (same_addresses == 0) {
    return {StatusCode::kUnsupportedHardware, "the GPU does not read registered memory by the host's addresses"};
  }
  in_use = true;
  return {};
}

Status WaitForGpu() {
  if (!in_use) return {};
  return Checked(cudaDeviceSynchronize(), "waiting for the GPU");
}

void RegisterPages(void* pages, size_t bytes) {
  if (!in_use || bytes == 0) return;
  if (Status s = Checked(cudaHostRegister(pages, bytes, cudaHostRegisterMapped), "registering pages"); !s.ok()) {
    std::fprintf(stderr, "%s\n", s.message().c_str());
    std::abort();
  }
}

void UnregisterPages(void* pages) {
  if (in_use) cudaHostUnregister(pages);
}
#else
Status UseGpu() { return {StatusCode::kNotBuilt, "this build has no CUDA"}; }
Status WaitForGpu() { return {}; }
void RegisterPages(void*, size_t) {}
void UnregisterPages(void*) {}
#endif

}  // namespace lamina::harness
