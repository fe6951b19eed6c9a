// runtime.h on the CPU's memory: device pointers are host pointers, streams finish at once.
#include "kernels/cuda/emulator/runtime.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "kernels/cuda/emulator/tma.h"
#include "kernels/cuda/runtime.h"

namespace lamina::cuda {
namespace {

constexpr int kInvalidValue = 1;      // cudaErrorInvalidValue
constexpr int kMemoryAllocation = 2;  // cudaErrorMemoryAllocation
constexpr size_t kAlignment = 256;    // of cudaMalloc

std::atomic<int64_t> live_allocations{0};

}  // namespace

namespace emulator {

Faults& TheFaults() {
  static Faults faults;
  return faults;
}
int64_t LiveAllocations() { return live_allocations; }

}  // namespace emulator

Result<const Device*> DeviceFor(void*) {
  static Device device{0, "emulated GPU", 90, 132, 1.83e9, 4.3e12, 232448};
  if (emulator::TheFaults().no_device) {
    return Status{StatusCode::kUnsupportedHardware, "context: backend cuda is not available: no CUDA device"};
  }
  device.capability = emulator::TheFaults().capability;
  device.multiprocessors = emulator::TheFaults().multiprocessors;
  return &device;
}

Status DeviceStatus(const std::string& desc, const char* doing, Error error) {
  if (error.ok()) return {};
  return {error.code == kMemoryAllocation ? StatusCode::kOutOfMemory : StatusCode::kDeviceError,
          desc + ": " + doing + " failed: emulated error " + std::to_string(error.code)};
}

Result<std::shared_ptr<const DeviceMemory>> DeviceMemory::Allocate(const std::string& desc, size_t bytes) {
  int64_t& left = emulator::TheFaults().allocations_left;
  if (left == 0) {
    const std::string doing = "allocating " + std::to_string(bytes) + " bytes of device memory";
    return DeviceStatus(desc, doing.c_str(), {kMemoryAllocation});
  }
  if (left > 0) --left;
  const size_t rounded = (bytes + kAlignment) / kAlignment * kAlignment;
  void* data = std::aligned_alloc(kAlignment, rounded);
  std::memset(data, 0xff, rounded);
  ++live_allocations;
  return std::shared_ptr<const DeviceMemory>(new DeviceMemory(data, bytes, 0));
}

Result<std::shared_ptr<const DeviceMemory>> DeviceMemory::Upload(const std::string& desc, const void* host,
                                                                 size_t bytes) {
  auto memory = Allocate(desc, bytes);
  if (memory.ok() && bytes > 0) std::memcpy((*memory)->as(), host, bytes);
  return memory;
}

DeviceMemory::~DeviceMemory() {
  std::free(data_);
  --live_allocations;
}

Error EncodeTensorMap(const TileMap& map, TensorMap* to) {
  if (!Validate(map).empty()) return {kInvalidValue};
  emulator::Store(map, to);
  return {};
}
Error EncodeTensorMap(const Im2colMap& map, TensorMap* to) {
  if (!Validate(map).empty()) return {kInvalidValue};
  emulator::Store(map, to);
  return {};
}

bool Validates() {
  const char* value = std::getenv("LAMINA_VALIDATE");
  return value != nullptr && std::string_view(value) == "1";
}

Status CheckDevicePointer(const std::string& desc, const char* name, const void* pointer) {
  if (pointer == nullptr || pointer != emulator::TheFaults().host_memory) return {};
  return InvalidArgument(desc + ": " + name + " must be device memory, got memory of the host");
}

Error Download(void* host, const void* device, size_t bytes, void*) {
  std::memcpy(host, device, bytes);
  return {};
}

}  // namespace lamina::cuda
