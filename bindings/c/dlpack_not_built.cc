// DLPack in a build that found no dlpack.h.
#include "bindings/c/guard.h"

namespace {

int32_t NotBuilt() {
  return lamina::c::Fail(LAMINA_NOT_BUILT, "DLPack: this library was built without dlpack.h of version 1");
}

}  // namespace

extern "C" {

int32_t lamina_from_dlpack(const char*, const DLManagedTensor*, lamina_tensor*) { return NotBuilt(); }
int32_t lamina_from_dlpack_versioned(const char*, const DLManagedTensorVersioned*, lamina_tensor*) {
  return NotBuilt();
}
int32_t lamina_to_dlpack(const lamina_tensor*, int32_t, void (*)(void*), void*, DLManagedTensor** managed) {
  if (managed != nullptr) *managed = nullptr;
  return NotBuilt();
}
int32_t lamina_to_dlpack_versioned(const lamina_tensor*, int32_t, void (*)(void*), void*,
                                   DLManagedTensorVersioned** managed) {
  if (managed != nullptr) *managed = nullptr;
  return NotBuilt();
}

}  // extern "C"
