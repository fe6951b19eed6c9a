#include "bindings/c/slots.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace lamina::c {
namespace {

constexpr size_t kTensorBytes = sizeof(lamina_tensor);  // the first version's

struct DTypeFacts {
  int32_t dtype;
  const char* name;
  size_t bytes;
};
constexpr DTypeFacts kDTypes[] = {{LAMINA_F32, "f32", 4},   {LAMINA_BF16, "bf16", 2}, {LAMINA_F16, "f16", 2},
                                  {LAMINA_BOOL, "bool", 1}, {LAMINA_U8, "u8", 1},     {LAMINA_I32, "i32", 4},
                                  {LAMINA_I64, "i64", 8}};

std::string DTypeName(int32_t dtype) {
  for (const DTypeFacts& f : kDTypes) {
    if (f.dtype == dtype) return f.name;
  }
  return std::to_string(dtype);
}

size_t DTypeBytes(int32_t dtype) {
  for (const DTypeFacts& f : kDTypes) {
    if (f.dtype == dtype) return f.bytes;
  }
  return 1;
}

std::string DeviceName(int32_t device) {
  return device == LAMINA_DEVICE_CPU ? "cpu" : device == LAMINA_DEVICE_CUDA ? "cuda" : std::to_string(device);
}

std::string List(const int64_t* values, int32_t count) {
  std::string out = "[";
  for (int32_t i = 0; i < count; ++i) out += (i ? ", " : "") + std::to_string(values[i]);
  return out + "]";
}

bool Any(const int64_t* values, int32_t count) {
  return std::any_of(values, values + count, [](int64_t v) { return v != 0; });
}

// Strides matter only where there is a second element to step to.
bool SameStrides(const Extents& want, const int64_t* got) {
  for (int32_t i = 0; i < want.ndim; ++i) {
    if (want.shape[i] == 0) return true;
    if (want.shape[i] > 1 && want.strides[i] != got[i]) return false;
  }
  return true;
}

}  // namespace

Extents Rows(std::initializer_list<int64_t> shape, int64_t stride) {
  Extents e;
  e.ndim = static_cast<int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), e.shape.begin());
  int64_t step = 1;
  for (int32_t i = e.ndim - 1; i >= 0; --i) {
    e.strides[i] = step;
    step = i == e.ndim - 1 && stride != 0 ? stride : step * e.shape[i];
  }
  return e;
}

Extents Dense(std::initializer_list<int64_t> shape) { return Rows(shape, 0); }

Extents Image(Layout layout, int64_t n, int64_t h, int64_t w, int64_t c, int64_t stride) {
  if (layout == Layout::kNhwc) return Rows({n, h, w, c}, stride);
  Extents e = Dense({n, c, h, w});
  if (stride != 0) e.strides[0] = stride;
  return e;
}

std::string Slots::Mismatch(const Slot& slot, const lamina_tensor& given, int32_t device) {
  const Extents& want = slot.extents;
  if (slot.role == LAMINA_OUTPUT && given.read_only != 0) return "memory must be writable, got a read-only tensor";
  if (given.dtype != slot.dtype) return "dtype must be " + DTypeName(slot.dtype) + ", got " + DTypeName(given.dtype);
  if (slot.dtype == LAMINA_I64) device = LAMINA_DEVICE_CPU;  // a number, read when the call is made
  if (given.device != device) return "device must be " + DeviceName(device) + ", got " + DeviceName(given.device);
  const bool known = given.ndim >= 0 && given.ndim <= LAMINA_MAX_DIMS;
  if (given.ndim != want.ndim || !std::equal(given.shape, given.shape + want.ndim, want.shape.begin())) {
    return "shape must be " + List(want.shape.data(), want.ndim) + ", got " +
           (known ? List(given.shape, given.ndim) : "ndim=" + std::to_string(given.ndim));
  }
  int64_t strides[LAMINA_MAX_DIMS];
  std::copy_n(given.strides, LAMINA_MAX_DIMS, strides);
  if (!Any(strides, want.ndim)) {  // dense
    int64_t step = 1;
    for (int32_t i = want.ndim - 1; i >= 0; step *= want.shape[i--]) strides[i] = step;
  }
  if (!SameStrides(want, strides)) {
    return "strides must be " + List(want.strides.data(), want.ndim) + ", got " + List(strides, want.ndim);
  }
  const size_t bytes = DTypeBytes(slot.dtype), remainder = reinterpret_cast<uintptr_t>(given.data) % bytes;
  if (remainder != 0) {
    return "data must lie at a multiple of " + std::to_string(bytes) +
           " bytes, got remainder=" + std::to_string(remainder);
  }
  return "";
}

Slots::Failure Slots::BindAll(const lamina_tensor* tensors, size_t count, int32_t device) {
  if (count > 0 && tensors == nullptr) return {true, "tensors must not be null, got count=" + std::to_string(count)};
  const auto* at = reinterpret_cast<const std::byte*>(tensors);
  for (size_t i = 0; i < count; ++i, at += tensors->size) {
    lamina_tensor given;
    if (!CopySized(at, kTensorBytes, &given, sizeof(given)) || given.size != tensors->size) {
      return {true, "size of tensors[" + std::to_string(i) + "] must be sizeof(lamina_tensor)=" +
                        std::to_string(sizeof(lamina_tensor)) + ", got " + std::to_string(given.size)};
    }
    if (given.name == nullptr) return {true, "name of tensors[" + std::to_string(i) + "] must not be null"};
    const std::string_view name = given.name;
    Slot* slot = std::find_if(slots_.data(), slots_.data() + size_, [&](const Slot& s) { return name == s.name; });
    if (slot == slots_.data() + size_) {
      std::string names;
      for (size_t s = 0; s < size_; ++s) names += std::string(" ") + slots_[s].name;
      return {true, "unknown tensor \"" + std::string(name) + "\", this call takes" + names};
    }
    if (slot->given) return {true, "tensor " + std::string(name) + " is given twice"};
    if (given.data == nullptr) continue;
    slot->given = true;
    if (std::string mismatch = Mismatch(*slot, given, device); !mismatch.empty()) {
      return {true, "tensor " + std::string(name) + ": " + mismatch};
    }
    // Members are pointers of some type, or an int64_t that the data holds.
    if (slot->dtype == LAMINA_I64) {
      std::memcpy(slot->member, given.data, sizeof(int64_t));
    } else {
      std::memcpy(slot->member, &given.data, sizeof(void*));
    }
  }
  return {};
}

void Slots::Describe(lamina_tensor* tensors, size_t capacity, size_t* count) const {
  for (size_t i = 0; i < size_; ++i, ++*count) {
    if (*count >= capacity) continue;
    const Slot& slot = slots_[i];
    lamina_tensor t = {};
    t.size = tensors->size;
    t.name = slot.name;
    t.dtype = slot.dtype;
    t.role = slot.role;
    t.optional = slot.optional;
    t.ndim = slot.extents.ndim;
    std::copy(slot.extents.shape.begin(), slot.extents.shape.end(), t.shape);
    std::copy(slot.extents.strides.begin(), slot.extents.strides.end(), t.strides);
    auto* to = reinterpret_cast<std::byte*>(tensors) + *count * t.size;
    std::memset(to, 0, t.size);
    std::memcpy(to, &t, std::min(t.size, sizeof(t)));
  }
}

bool CopySized(const void* given, size_t least, void* known, size_t known_bytes) {
  size_t size = 0;
  std::memcpy(&size, given, sizeof(size));
  std::memset(known, 0, known_bytes);
  std::memcpy(known, &size, sizeof(size));
  if (size < least || size > 4096) return false;
  std::memcpy(known, given, std::min(size, known_bytes));
  const auto* bytes = static_cast<const unsigned char*>(given);
  return std::all_of(bytes + std::min(size, known_bytes), bytes + size, [](unsigned char b) { return b == 0; });
}

}  // namespace lamina::c
