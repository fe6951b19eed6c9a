#include "kernels/cuda/runtime.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <mutex>
#include <string_view>
#include <vector>

namespace lamina::cuda {
namespace {

constexpr int kOldestCapability = 80;

std::string Words(cudaError_t error) { return std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error); }

// Reads an error away, so that it is reported once.
cudaError_t Taken(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

Status Unavailable(const std::string& why) {
  return {StatusCode::kUnsupportedHardware, "context: backend cuda is not available: " + why};
}

Result<Device> Describe(int id) {
  Device device;
  device.id = id;
  cudaDeviceProp properties;
  if (const cudaError_t e = Taken(cudaGetDeviceProperties(&properties, id)); e != cudaSuccess) {
    return Status{StatusCode::kDeviceError, "context: reading the device's properties failed: " + Words(e)};
  }
  device.name = properties.name;
  device.capability = properties.major * 10 + properties.minor;
  device.multiprocessors = properties.multiProcessorCount;
  device.shared_bytes = properties.sharedMemPerBlockOptin;
  int kilohertz = 0, memory_kilohertz = 0;  // 0 where the driver does not say
  Taken(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, id));
  Taken(cudaDeviceGetAttribute(&memory_kilohertz, cudaDevAttrMemoryClockRate, id));
  device.clock_hz = kilohertz > 0 ? 1e3 * kilohertz : 1.5e9;
  device.bytes_per_second = memory_kilohertz > 0 ? 2e3 * memory_kilohertz * properties.memoryBusWidth / 8 : 1e12;
  return device;
}

// A function of the driver, found at run time: the library starts where there is none. Null where it is too old.
template <class Function>
Function DriverFunction(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t e = Taken(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found));
  return e == cudaSuccess && found == cudaDriverEntryPointSuccess ? reinterpret_cast<Function>(function) : nullptr;
}

static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));

CUtensorMapDataType DriverType(TmaElement element) {
  switch (element) {
    case TmaElement::kBf16: return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case TmaElement::kF16: return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case TmaElement::kTf32: return CU_TENSOR_MAP_DATA_TYPE_TFLOAT32;
    case TmaElement::kF32: break;
  }
  return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
}
CUtensorMapSwizzle DriverSwizzle(Swizzle s) {
  switch (s) {
    case Swizzle::k128: return CU_TENSOR_MAP_SWIZZLE_128B;
    case Swizzle::k64: return CU_TENSOR_MAP_SWIZZLE_64B;
    case Swizzle::k32: return CU_TENSOR_MAP_SWIZZLE_32B;
    case Swizzle::kNone: break;
  }
  return CU_TENSOR_MAP_SWIZZLE_NONE;
}

}  // namespace

Result<const Device*> DeviceFor(void* stream) {
  int count = 0;
  if (const cudaError_t e = Taken(cudaGetDeviceCount(&count)); e != cudaSuccess || count == 0) {
    return Unavailable("no CUDA device" + (e == cudaSuccess ? "" : " (" + Words(e) + ")"));
  }
  int current = 0, of_stream = 0;
  if (const cudaError_t e = Taken(cudaGetDevice(&current)); e != cudaSuccess) {
    return Status{StatusCode::kDeviceError, "context: reading the current device failed: " + Words(e)};
  }
  of_stream = current;
  if (stream != nullptr) {
    if (const cudaError_t e = Taken(cudaStreamGetDevice(static_cast<cudaStream_t>(stream), &of_stream));
        e != cudaSuccess) {
      return Status{StatusCode::kDeviceError, "context: reading the stream's device failed: " + Words(e)};
    }
  }
  if (of_stream != current) {
    return InvalidArgument("context: stream must be of the current device, got stream of device " +
                           std::to_string(of_stream) + " current device " + std::to_string(current));
  }
  if (const cudaError_t e = cudaPeekAtLastError(); e != cudaSuccess) {
    return Status{StatusCode::kDeviceError, "context: earlier work on the device has failed: " + Words(e)};
  }
  static std::mutex mutex;
  static std::vector<std::unique_ptr<const Device>> devices;
  const std::lock_guard lock(mutex);
  devices.resize(std::max(devices.size(), static_cast<size_t>(count)));
  std::unique_ptr<const Device>& known = devices[static_cast<size_t>(current)];
  if (known == nullptr) {
    Result<Device> device = Describe(current);
    if (!device.ok()) return device.status();
    if (device->capability < kOldestCapability) {
      return Unavailable("device " + std::to_string(current) + " (" + device->name + ") has compute capability " +
                         std::to_string(device->capability / 10) + "." + std::to_string(device->capability % 10) +
                         ", the oldest that is served is 8.0");
    }
    known = std::make_unique<const Device>(std::move(*device));
  }
  return known.get();
}

Status DeviceStatus(const std::string& desc, const char* doing, Error error) {
  if (error.ok()) return {};
  const auto e = static_cast<cudaError_t>(error.code);
  return {e == cudaErrorMemoryAllocation ? StatusCode::kOutOfMemory : StatusCode::kDeviceError,
          desc + ": " + doing + " failed: " + Words(e)};
}

Result<std::shared_ptr<const DeviceMemory>> DeviceMemory::Allocate(const std::string& desc, size_t bytes) {
  void* data = nullptr;
  int device = 0;
  cudaError_t error = Taken(cudaGetDevice(&device));
  if (error == cudaSuccess) error = Taken(cudaMalloc(&data, bytes == 0 ? 1 : bytes));
  if (error != cudaSuccess) {
    const std::string doing = "allocating " + std::to_string(bytes) + " bytes of device memory";
    return DeviceStatus(desc, doing.c_str(), {static_cast<int>(error)});
  }
  return std::shared_ptr<const DeviceMemory>(new DeviceMemory(data, bytes, device));
}

Result<std::shared_ptr<const DeviceMemory>> DeviceMemory::Upload(const std::string& desc, const void* host,
                                                                 size_t bytes) {
  auto memory = Allocate(desc, bytes);
  if (!memory.ok() || bytes == 0) return memory;
  // On a stream of its own that waits for no other, and so not for a stream that is being captured.
  cudaStream_t stream = nullptr;
  cudaError_t error = Taken(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  if (error == cudaSuccess) {
    error = Taken(cudaMemcpyAsync((*memory)->as(), host, bytes, cudaMemcpyHostToDevice, stream));
    if (error == cudaSuccess) error = Taken(cudaStreamSynchronize(stream));
    Taken(cudaStreamDestroy(stream));
  }
  if (error != cudaSuccess) return DeviceStatus(desc, "copying weights to the device", {static_cast<int>(error)});
  return memory;
}

DeviceMemory::~DeviceMemory() {
  int current = 0;
  const bool known = Taken(cudaGetDevice(&current)) == cudaSuccess;
  if (known && current != device_) Taken(cudaSetDevice(device_));
  Taken(cudaFree(data_));
  if (known && current != device_) Taken(cudaSetDevice(current));
}

Error EncodeTensorMap(const TileMap& m, TensorMap* to) {
  static const auto encode = DriverFunction<decltype(&cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  if (encode == nullptr) return {cudaErrorNotSupported};
  const cuuint32_t steps[5] = {1, 1, 1, 1, 1};
  return {static_cast<int>(encode(reinterpret_cast<CUtensorMap*>(to), DriverType(m.element), m.rank,
                                  const_cast<void*>(m.base), m.dims, m.strides, m.box, steps,
                                  CU_TENSOR_MAP_INTERLEAVE_NONE, DriverSwizzle(m.swizzle),
                                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE))};
}

Error EncodeTensorMap(const Im2colMap& m, TensorMap* to) {
  static const auto encode = DriverFunction<decltype(&cuTensorMapEncodeIm2col)>("cuTensorMapEncodeIm2col");
  if (encode == nullptr) return {cudaErrorNotSupported};
  const cuuint32_t steps[4] = {1, m.step[0], m.step[1], 1};
  return {static_cast<int>(encode(reinterpret_cast<CUtensorMap*>(to), DriverType(m.element), 4,
                                  const_cast<void*>(m.base), m.dims, m.strides, m.lower, m.upper, m.channels, m.pixels,
                                  steps, CU_TENSOR_MAP_INTERLEAVE_NONE, DriverSwizzle(m.swizzle),
                                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE))};
}

bool Validates() {
  const char* value = std::getenv("LAMINA_VALIDATE");
  return value != nullptr && std::string_view(value) == "1";
}

Status CheckDevicePointer(const std::string& desc, const char* name, const void* pointer) {
  if (pointer == nullptr) return {};
  cudaPointerAttributes attributes;
  const cudaError_t e = Taken(cudaPointerGetAttributes(&attributes, pointer));
  if (e != cudaSuccess) return DeviceStatus(desc, "asking about a pointer", {static_cast<int>(e)});
  if (attributes.devicePointer != nullptr) return {};
  return InvalidArgument(desc + ": " + name + " must be device memory, got memory of the host");
}

Error Download(void* host, const void* device, size_t bytes, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  cudaError_t error = Taken(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, s));
  if (error == cudaSuccess) error = Taken(cudaStreamSynchronize(s));
  return {static_cast<int>(error)};
}

}  // namespace lamina::cuda
