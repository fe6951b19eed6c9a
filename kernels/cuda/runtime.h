// What the CUDA backend needs of a CUDA runtime, without CUDA's headers: devices, memory, errors. Two implementations:
// runtime.cc on the CUDA runtime, emulator/runtime.cc on the CPU's memory, for tests.
#ifndef LAMINA_KERNELS_CUDA_RUNTIME_H_
#define LAMINA_KERNELS_CUDA_RUNTIME_H_

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/core/tensor_map.h"
#include "lamina/status.h"

namespace lamina::cuda {

// A cudaError_t; 0 is success.
struct Error {
  int code = 0;
  bool ok() const { return code == 0; }
};

struct Device {
  int id = 0;
  std::string name;
  int capability = 0;  // 90: compute capability 9.0
  int multiprocessors = 0;
  double clock_hz = 0, bytes_per_second = 0;
  size_t shared_bytes = 0;  // the most that one block can have
  DeviceFigures figures() const { return {static_cast<double>(multiprocessors), clock_hz, bytes_per_second}; }
};

// The current device, on which work on `stream` is going to run. Refused: no device, one older than 8.0, a stream of
// another device, an error that earlier work has left behind.
Result<const Device*> DeviceFor(void* stream);

// "" or why a device does not run kernels for sm_90a.
inline std::string RefusesSm90(const Device& device) {
  return device.capability == 90 ? ""
                                 : "is for compute capability 9.0, got " + std::to_string(device.capability / 10) +
                                       "." + std::to_string(device.capability % 10);
}

// A Status for a failed call: kOutOfMemory or kDeviceError, "<desc>: <doing> failed: cudaErrorName: its text".
Status DeviceStatus(const std::string& desc, const char* doing, Error error);

// Device memory that lives as long as this; contents by Upload, or undefined.
class DeviceMemory {
 public:
  // `desc` begins the sentence of a refusal.
  static Result<std::shared_ptr<const DeviceMemory>> Allocate(const std::string& desc, size_t bytes);
  // Allocates and copies; the host's memory may be freed on return.
  static Result<std::shared_ptr<const DeviceMemory>> Upload(const std::string& desc, const void* host, size_t bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  template <class T = void>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  DeviceMemory(void* data, size_t bytes, int device) : data_(data), bytes_(bytes), device_(device) {}
  void* data_;
  size_t bytes_;
  int device_;
};

// What a kernel's TMA reads by. The host alone does it, in about a microsecond; `map` breaks no limit.
Error EncodeTensorMap(const TileMap& map, TensorMap* to);
Error EncodeTensorMap(const Im2colMap& map, TensorMap* to);

// Whether LAMINA_VALIDATE=1 asks Run to look at pointers and lengths, which costs it a wait for the stream.
bool Validates();
// Ok for null and for memory that the current device can read.
Status CheckDevicePointer(const std::string& desc, const char* name, const void* pointer);
// The first refusal of CheckDevicePointer among these, where Validates() asks for it.
template <class Desc>
Status ValidatePointers(const Desc& desc, std::initializer_list<std::pair<const char*, const void*>> pointers) {
  if (!Validates()) return {};
  for (const auto& [name, pointer] : pointers) {
    if (Status s = CheckDevicePointer(ToString(desc), name, pointer); !s.ok()) return s;
  }
  return {};
}
// Waits for the stream, then copies from the device.
Error Download(void* host, const void* device, size_t bytes, void* stream);

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_RUNTIME_H_
