#include "bindings/python/array.h"

#include <dlpack/dlpack.h>

#include <algorithm>
#include <new>

namespace lamina::python {
namespace {

constexpr size_t kAlignment = 64;  // what prepared keys ask for, and a cache line

struct DTypeFacts {
  int32_t dtype;
  const char* name;
  int64_t bytes;
};
constexpr DTypeFacts kDTypes[] = {{LAMINA_F32, "f32", 4},   {LAMINA_BF16, "bf16", 2}, {LAMINA_F16, "f16", 2},
                                  {LAMINA_BOOL, "bool", 1}, {LAMINA_U8, "u8", 1},     {LAMINA_I32, "i32", 4},
                                  {LAMINA_I64, "i64", 8}};

const DTypeFacts& FactsOf(const std::string& name) {
  for (const DTypeFacts& f : kDTypes) {
    if (name == f.name) return f;
  }
  Refuse("dtype must be f32, bf16, f16, bool, u8, i32 or i64, got " + name);
}

// The two forms of DLPack, side by side.
template <class Managed>
struct Form;
template <>
struct Form<DLManagedTensor> {
  static constexpr const char *kName = "dltensor", *kUsed = "used_dltensor";
  static constexpr auto kFrom = &lamina_from_dlpack;
  static constexpr auto kTo = &lamina_to_dlpack;
};
template <>
struct Form<DLManagedTensorVersioned> {
  static constexpr const char *kName = "dltensor_versioned", *kUsed = "used_dltensor_versioned";
  static constexpr auto kFrom = &lamina_from_dlpack_versioned;
  static constexpr auto kTo = &lamina_to_dlpack_versioned;
};

template <class Managed>
nb::object Export(const lamina_tensor& t, int32_t device_id, const std::shared_ptr<void>& owner) {
  auto kept = std::make_unique<std::shared_ptr<void>>(owner);
  const auto release = [](void* arg) { delete static_cast<std::shared_ptr<void>*>(arg); };
  Managed* managed = nullptr;
  Check(Form<Managed>::kTo(&t, device_id, release, kept.get(), &managed));
  kept.release();
  // A capsule that nobody consumed still has its first name, and frees what it holds.
  const auto destroy = [](PyObject* capsule) {
    if (!PyCapsule_IsValid(capsule, Form<Managed>::kName)) return;
    auto* m = static_cast<Managed*>(PyCapsule_GetPointer(capsule, Form<Managed>::kName));
    m->deleter(m);
  };
  PyObject* capsule = PyCapsule_New(managed, Form<Managed>::kName, destroy);
  if (capsule == nullptr) {
    managed->deleter(managed);
    nb::raise_python_error();
  }
  return nb::steal(capsule);
}

// The capsule that the producer's __dlpack__ gives: in the versioned form where it knows of versions.
nb::object AskForCapsule(nb::handle producer, const std::string& where) {
  if (!nb::hasattr(producer, "__dlpack__")) {
    throw nb::type_error(
        (where + "must be an array with __dlpack__, got " + nb::type_name(producer.type()).c_str()).c_str());
  }
  const nb::object dlpack = producer.attr("__dlpack__");
  try {
    try {
      return dlpack(nb::arg("max_version") = nb::make_tuple(DLPACK_MAJOR_VERSION, 0));
    } catch (nb::python_error& e) {
      if (!e.matches(PyExc_TypeError)) throw;
    }
    return dlpack();
  } catch (nb::python_error& e) {
    nb::raise_from(e, ErrorOf(LAMINA_INVALID_ARGUMENT), "%s%s", where.c_str(), nb::str(e.value()).c_str());
  }
}

}  // namespace

const char* DTypeName(int32_t dtype) {
  for (const DTypeFacts& f : kDTypes) {
    if (f.dtype == dtype) return f.name;
  }
  return "unknown";
}

// Consumes the capsule: from here on its memory is ours to free. One that is refused stays the producer's.
template <class Managed>
Array Array::Take(PyObject* capsule, const char* name) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, Form<Managed>::kName));
  Array a;
  a.t_.size = sizeof(a.t_);
  Check(Form<Managed>::kFrom(name, managed, &a.t_));
  PyCapsule_SetName(capsule, Form<Managed>::kUsed);
  a.device_id_ = managed->dl_tensor.device.device_id;
  a.owner_ = std::shared_ptr<void>(managed, [](void* m) {
    if (auto* owned = static_cast<Managed*>(m); owned->deleter != nullptr) owned->deleter(owned);
  });
  a.t_.name = nullptr;  // each call has its own
  // A null pointer says that a tensor is not given; one without elements may be given, and have no memory.
  static constexpr double kNothing = 0;
  const bool empty = std::count(a.t_.shape, a.t_.shape + a.t_.ndim, 0) > 0;
  if (empty && a.t_.data == nullptr) a.t_.data = const_cast<double*>(&kNothing);
  return a;
}

Array Array::From(nb::handle producer, const char* name) {
  if (nb::isinstance<Array>(producer)) return nb::cast<const Array&>(producer);
  const std::string where = "tensor " + std::string(name) + ": ";
  const nb::object capsule = AskForCapsule(producer, where);
  if (PyCapsule_IsValid(capsule.ptr(), Form<DLManagedTensorVersioned>::kName)) {
    return Take<DLManagedTensorVersioned>(capsule.ptr(), name);
  }
  if (PyCapsule_IsValid(capsule.ptr(), Form<DLManagedTensor>::kName)) return Take<DLManagedTensor>(capsule.ptr(), name);
  Refuse(where + "__dlpack__ must give a capsule that nobody has consumed, got " + nb::repr(capsule).c_str());
}

Array Array::Empty(const std::vector<int64_t>& shape, const std::string& dtype) {
  const DTypeFacts& facts = FactsOf(dtype);
  if (shape.size() > LAMINA_MAX_DIMS) Refuse("an array has at most 6 dimensions, got " + std::to_string(shape.size()));
  int64_t bytes = facts.bytes;
  for (int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) Refuse("the size of the array overflows");
  }
  Array a;
  a.t_.size = sizeof(a.t_);
  a.t_.dtype = facts.dtype;
  a.t_.ndim = static_cast<int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), a.t_.shape);
  constexpr std::align_val_t alignment{kAlignment};
  a.t_.data = ::operator new(static_cast<size_t>(bytes), alignment, std::nothrow);
  if (a.t_.data == nullptr)
    Raise(LAMINA_OUT_OF_MEMORY, "no memory for an array of " + std::to_string(bytes) + " bytes");
  a.owner_ = std::shared_ptr<void>(a.t_.data, [](void* data) { ::operator delete(data, alignment); });
  return a;
}

lamina_tensor Array::Named(const char* name) const {
  lamina_tensor t = t_;
  t.name = name;
  return t;
}

nb::object Array::ToDlpack(bool versioned) const {
  return versioned ? Export<DLManagedTensorVersioned>(t_, device_id_, owner_)
                   : Export<DLManagedTensor>(t_, device_id_, owner_);
}

std::vector<int64_t> Array::strides() const {
  std::vector<int64_t> strides(t_.strides, t_.strides + t_.ndim);
  if (std::all_of(strides.begin(), strides.end(), [](int64_t s) { return s == 0; })) {  // dense
    int64_t step = 1;
    for (auto i = static_cast<size_t>(t_.ndim); i-- > 0; step *= t_.shape[i]) strides[i] = step;
  }
  return strides;
}

const char* Array::dtype() const { return DTypeName(t_.dtype); }

}  // namespace lamina::python
