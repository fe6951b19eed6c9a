// DLPack at the border of the C interface: its tensors as lamina_tensor, and back.
#include <dlpack/dlpack.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "bindings/c/guard.h"
#include "bindings/c/slots.h"

static_assert(DLPACK_MAJOR_VERSION == 1);

namespace lamina::c {
namespace {

struct TypePair {
  int32_t dtype;
  DLDataType type;
};
constexpr TypePair kTypes[] = {{LAMINA_F32, {kDLFloat, 32, 1}}, {LAMINA_BF16, {kDLBfloat, 16, 1}},
                               {LAMINA_F16, {kDLFloat, 16, 1}}, {LAMINA_BOOL, {kDLBool, 8, 1}},
                               {LAMINA_U8, {kDLUInt, 8, 1}},    {LAMINA_I32, {kDLInt, 32, 1}},
                               {LAMINA_I64, {kDLInt, 64, 1}}};

std::optional<int32_t> DTypeOf(const DLDataType& t) {
  for (const TypePair& p : kTypes) {
    if (p.type.code == t.code && p.type.bits == t.bits && p.type.lanes == t.lanes) return p.dtype;
  }
  return {};
}

// Where the CPU, or a kernel on a CUDA device, can follow the pointer.
std::optional<int32_t> DeviceOf(DLDeviceType type) {
  switch (type) {
    case kDLCPU:
    case kDLCUDAHost: return LAMINA_DEVICE_CPU;
    case kDLCUDA:
    case kDLCUDAManaged: return LAMINA_DEVICE_CUDA;
    default: return {};
  }
}

// "" or what is wrong with the strides: steps backwards, or elements that share memory. Each step must pass all that
// the smaller steps can reach.
std::string CheckStrides(const DLTensor& t) {
  if (std::any_of(t.shape, t.shape + t.ndim, [](int64_t size) { return size == 0; })) return "";
  for (int32_t i = 0; i < t.ndim; ++i) {
    if (t.shape[i] == 1) continue;  // no second element to step to
    int64_t reach = 0;
    bool fits = true;
    for (int32_t j = 0; j < t.ndim; ++j) {
      const bool smaller = t.strides[j] < t.strides[i] || (t.strides[j] == t.strides[i] && j > i);
      int64_t extent;
      if (t.shape[j] > 1 && smaller && t.strides[j] > 0) {
        fits = fits && !__builtin_mul_overflow(t.shape[j] - 1, t.strides[j], &extent) &&
               !__builtin_add_overflow(reach, extent, &reach);
      }
    }
    int64_t last;
    fits = fits && !__builtin_mul_overflow(t.shape[i] - 1, t.strides[i], &last);
    if (t.strides[i] <= reach || !fits) {
      return std::string(fits ? "strides must be positive and keep elements apart"
                              : "strides must reach elements that memory can hold") +
             ", got " + std::to_string(t.strides[i]) + " in dimension " + std::to_string(i);
    }
  }
  return "";
}

Status FromDlpack(const char* name, const DLTensor& t, bool read_only, lamina_tensor* tensor) {
  const auto refuse = [&](const std::string& sentence) {
    return InvalidArgument("tensor " + std::string(name) + ": " + sentence);
  };
  if (t.ndim < 0 || t.ndim > LAMINA_MAX_DIMS) {
    return refuse("must have at most " + std::to_string(LAMINA_MAX_DIMS) + " dimensions, got " +
                  std::to_string(t.ndim));
  }
  if (t.ndim > 0 && t.shape == nullptr) return refuse("shape must not be null");
  for (int32_t i = 0; i < t.ndim; ++i) {
    if (t.shape[i] < 0) return refuse("shape must not be negative, got " + std::to_string(t.shape[i]));
  }
  const auto dtype = DTypeOf(t.dtype);
  if (!dtype) {
    return refuse("type must be f32, bf16, f16, bool, u8, i32 or i64, got DLPack's code " +
                  std::to_string(t.dtype.code) + " of " + std::to_string(t.dtype.bits) + " bits in " +
                  std::to_string(t.dtype.lanes) + " lanes");
  }
  const auto device = DeviceOf(t.device.device_type);
  if (!device) {
    return refuse("device must be the CPU or CUDA, got DLPack's device type " +
                  std::to_string(static_cast<int>(t.device.device_type)));
  }
  if (t.ndim > 0 && t.strides != nullptr) {
    if (std::string wrong = CheckStrides(t); !wrong.empty()) return refuse(wrong);
  }
  lamina_tensor made = {};
  made.size = tensor->size;
  made.name = name;
  made.data = t.data == nullptr ? nullptr : static_cast<std::byte*>(t.data) + t.byte_offset;
  made.dtype = *dtype;
  made.device = *device;
  made.ndim = t.ndim;
  made.read_only = read_only;
  std::copy_n(t.shape, t.ndim, made.shape);
  if (t.strides != nullptr) std::copy_n(t.strides, t.ndim, made.strides);
  std::memset(tensor, 0, tensor->size);
  std::memcpy(tensor, &made, sizeof(made));
  return {};
}

// Of either form: what a deleter frees.
template <class Managed>
struct Exported {
  Managed managed = {};
  std::array<int64_t, LAMINA_MAX_DIMS> shape = {}, strides = {};
  void (*release)(void*) = nullptr;
  void* arg = nullptr;

  static void Delete(Managed* managed) {
    const std::unique_ptr<Exported> self(static_cast<Exported*>(managed->manager_ctx));
    if (self->release != nullptr) self->release(self->arg);
  }
};

template <class Managed>
Status ToDlpack(const lamina_tensor* given, int32_t device_id, void (*release)(void*), void* arg, Managed** managed) {
  if (managed == nullptr) return MustNotBeNull("managed");
  *managed = nullptr;
  if (given == nullptr) return MustNotBeNull("tensor");
  lamina_tensor t;
  if (!CopySized(given, sizeof(t), &t, sizeof(t))) {
    return InvalidArgument("tensor: size must be sizeof(lamina_tensor)=" + std::to_string(sizeof(t)) + ", got " +
                           std::to_string(t.size));
  }
  const auto* type =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypePair& p) { return p.dtype == t.dtype; });
  if (type == std::end(kTypes)) {
    return InvalidArgument("tensor: dtype must be a member of lamina_dtype, got " + std::to_string(t.dtype));
  }
  if (t.device != LAMINA_DEVICE_CPU && t.device != LAMINA_DEVICE_CUDA) {
    return InvalidArgument("tensor: device must be a member of lamina_device, got " + std::to_string(t.device));
  }
  if (t.ndim < 0 || t.ndim > LAMINA_MAX_DIMS) {
    return InvalidArgument("tensor: ndim must be between 0 and " + std::to_string(LAMINA_MAX_DIMS) + ", got " +
                           std::to_string(t.ndim));
  }
  auto out = std::make_unique<Exported<Managed>>();
  if constexpr (requires { out->managed.flags; }) {
    out->managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
    out->managed.flags = t.read_only != 0 ? DLPACK_FLAG_BITMASK_READ_ONLY : 0;
  } else if (t.read_only != 0) {
    return InvalidArgument("tensor: a read-only one needs lamina_to_dlpack_versioned, got read_only=1");
  }
  std::copy_n(t.shape, t.ndim, out->shape.begin());
  std::copy_n(t.strides, t.ndim, out->strides.begin());
  if (std::all_of(t.strides, t.strides + t.ndim, [](int64_t s) { return s == 0; })) {
    int64_t step = 1;
    for (auto i = static_cast<size_t>(t.ndim); i-- > 0; step *= out->shape[i]) out->strides[i] = step;
  }
  DLTensor& dl = out->managed.dl_tensor;
  dl.data = t.data;
  dl.device = {t.device == LAMINA_DEVICE_CPU ? kDLCPU : kDLCUDA, device_id};
  dl.ndim = t.ndim;
  dl.dtype = type->type;
  dl.shape = out->shape.data();
  dl.strides = out->strides.data();
  dl.byte_offset = 0;
  out->release = release;
  out->arg = arg;
  out->managed.manager_ctx = out.get();
  out->managed.deleter = Exported<Managed>::Delete;
  *managed = &out.release()->managed;
  return {};
}

Status CheckPlace(const char* name, const void* managed, const lamina_tensor* tensor) {
  if (name == nullptr) return MustNotBeNull("name");
  if (managed == nullptr) return MustNotBeNull("managed");
  if (tensor == nullptr) return MustNotBeNull("tensor");
  if (tensor->size < sizeof(lamina_tensor) || tensor->size > 4096) {
    return InvalidArgument("tensor: size must be sizeof(lamina_tensor)=" + std::to_string(sizeof(lamina_tensor)) +
                           ", got " + std::to_string(tensor->size));
  }
  return {};
}

}  // namespace
}  // namespace lamina::c

using namespace lamina;     // NOLINT: what follows is the border itself
using namespace lamina::c;  // NOLINT

extern "C" {

int32_t lamina_from_dlpack(const char* name, const DLManagedTensor* managed, lamina_tensor* tensor) {
  return Guard([&]() -> Status {
    if (Status s = CheckPlace(name, managed, tensor); !s.ok()) return s;
    return FromDlpack(name, managed->dl_tensor, false, tensor);
  });
}

int32_t lamina_from_dlpack_versioned(const char* name, const DLManagedTensorVersioned* managed, lamina_tensor* tensor) {
  return Guard([&]() -> Status {
    if (Status s = CheckPlace(name, managed, tensor); !s.ok()) return s;
    if (managed->version.major != DLPACK_MAJOR_VERSION) {  // what lies behind it may then be anything
      return InvalidArgument("tensor " + std::string(name) + ": DLPack's version must be 1.x, got " +
                             std::to_string(managed->version.major) + "." + std::to_string(managed->version.minor));
    }
    return FromDlpack(name, managed->dl_tensor, (managed->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0, tensor);
  });
}

int32_t lamina_to_dlpack(const lamina_tensor* tensor, int32_t device_id, void (*release)(void*), void* arg,
                         DLManagedTensor** managed) {
  return Guard([&] { return ToDlpack(tensor, device_id, release, arg, managed); });
}

int32_t lamina_to_dlpack_versioned(const lamina_tensor* tensor, int32_t device_id, void (*release)(void*), void* arg,
                                   DLManagedTensorVersioned** managed) {
  return Guard([&] { return ToDlpack(tensor, device_id, release, arg, managed); });
}

}  // extern "C"
