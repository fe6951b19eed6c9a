// A tensor as Python holds it: memory of another library's that came by DLPack, or of our own. lamina.Array in Python.
#ifndef LAMINA_BINDINGS_PYTHON_ARRAY_H_
#define LAMINA_BINDINGS_PYTHON_ARRAY_H_

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lamina/c.h"

namespace lamina::python {

namespace nb = nanobind;

class Array {
 public:
  // What any object with __dlpack__ holds, as the tensor `name` of refusals; nothing is copied.
  static Array From(nb::handle producer, const char* name);
  // Dense memory at a multiple of 64 bytes, on the CPU, not initialised.
  static Array Empty(const std::vector<int64_t>& shape, const std::string& dtype);

  // For a call that takes tensors; `name` must live until it returns.
  lamina_tensor Named(const char* name) const;
  // A capsule that keeps the memory alive: the versioned form for a consumer that asked for one, else the older.
  nb::object ToDlpack(bool versioned) const;

  std::vector<int64_t> shape() const { return {t_.shape, t_.shape + t_.ndim}; }
  std::vector<int64_t> strides() const;  // in elements
  const char* dtype() const;             // "f32"
  bool read_only() const { return t_.read_only != 0; }
  bool on_cuda() const { return t_.device == LAMINA_DEVICE_CUDA; }
  int32_t device_id() const { return device_id_; }
  void* data() const { return t_.data; }

 private:
  template <class Managed>
  static Array Take(PyObject* capsule, const char* name);

  lamina_tensor t_ = {};
  int32_t device_id_ = 0;
  std::shared_ptr<void> owner_;  // frees the memory with the last Array or capsule that refers to it
};

const char* DTypeName(int32_t dtype);  // "f32"

// The exceptions, one for each lamina_status but LAMINA_OK; made by DefineErrors.
void DefineErrors(nb::module_& m);
PyObject* ErrorOf(int32_t status);
[[noreturn]] void Raise(int32_t status, const std::string& sentence);
// Raises lamina.InvalidArgument.
[[noreturn]] void Refuse(const std::string& sentence);
// Raises what the C interface refused or failed of, with its sentence.
void Check(int32_t status);

}  // namespace lamina::python

#endif  // LAMINA_BINDINGS_PYTHON_ARRAY_H_
