// lamina.Error and its subclasses: a lamina_status each, with the library's own sentence.
#include <string>

#include "bindings/python/array.h"

namespace lamina::python {
namespace {

struct ErrorKind {
  int32_t status;
  const char* name;
  PyObject** builtin;  // what an `except` that knows nothing of Lamina catches it by
  const char* doc;
};
const ErrorKind kErrors[] = {
    {LAMINA_INVALID_ARGUMENT, "InvalidArgument", &PyExc_ValueError, "The caller asked for nonsense."},
    {LAMINA_NOT_BUILT, "NotBuilt", nullptr, "Sensible, but this build of the library lacks it."},
    {LAMINA_UNSUPPORTED_HARDWARE, "UnsupportedHardware", nullptr, "Built, but this machine cannot run it."},
    {LAMINA_OUT_OF_MEMORY, "OutOfMemory", &PyExc_MemoryError, "Memory for weights or scratch could not be had."},
    {LAMINA_DEVICE_ERROR, "DeviceError", nullptr, "A call of the device failed; the sentence has its words."},
    {LAMINA_INTERNAL_ERROR, "InternalError", nullptr, "A bug of the library."}};

PyObject* errors[LAMINA_INTERNAL_ERROR + 1];  // by status; [0] is the base. They live as long as the process

PyObject* Define(nb::module_& m, const char* name, const char* doc, nb::handle bases) {
  const std::string qualified = std::string(nb::str(m.attr("__name__")).c_str()) + "." + name;
  PyObject* type = PyErr_NewExceptionWithDoc(qualified.c_str(), doc, bases.ptr(), nullptr);
  if (type == nullptr) nb::raise_python_error();
  m.attr(name) = nb::borrow(type);
  return type;
}

}  // namespace

void DefineErrors(nb::module_& m) {
  errors[0] = Define(m, "Error", "What a call was refused for, or failed of, as one sentence.", PyExc_Exception);
  for (const ErrorKind& e : kErrors) {
    const nb::handle base = errors[0];
    errors[e.status] =
        Define(m, e.name, e.doc, e.builtin ? nb::make_tuple(base, nb::handle(*e.builtin)) : nb::make_tuple(base));
  }
}

PyObject* ErrorOf(int32_t status) { return errors[status]; }

void Raise(int32_t status, const std::string& sentence) {
  PyErr_SetString(ErrorOf(status), sentence.c_str());
  nb::raise_python_error();
}

void Refuse(const std::string& sentence) { Raise(LAMINA_INVALID_ARGUMENT, sentence); }

void Check(int32_t status) {
  if (status != LAMINA_OK) Raise(status, lamina_last_error());
}

}  // namespace lamina::python
