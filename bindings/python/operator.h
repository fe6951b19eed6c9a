// Contexts and prepared operators as Python holds them: the C interface's handles, with what must outlive them.
#ifndef LAMINA_BINDINGS_PYTHON_OPERATOR_H_
#define LAMINA_BINDINGS_PYTHON_OPERATOR_H_

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "bindings/python/array.h"
#include "lamina/c.h"

namespace lamina::python {

class Context {
 public:
  // threads 0: the pool that all such contexts share, of every available thread.
  Context(const std::string& backend, const std::string& isa, const std::string& accuracy, size_t threads, bool spin,
          std::string implementation, std::string machine, uintptr_t stream);

  lamina_context Get() const;  // its pointers live as long as this
  const std::shared_ptr<lamina_pool>& pool() const { return pool_; }

 private:
  lamina_context c_ = {};
  std::shared_ptr<lamina_pool> pool_;
  std::string implementation_, machine_;
};

// {"x": array}: an array is anything with __dlpack__, a number an int, None not given.
using Tensors = nb::typed<nb::dict, nb::str, nb::any>;

class Operator {
 public:
  Operator(const std::string& desc, const Tensors& weights, const Context& context);
  static Operator LoadPacked(const std::string& path, const Context& context);

  void Run(const Tensors& tensors) const;
  Array PrepareKeys(const Tensors& tensors) const;
  Operator Reshape(const std::string& desc) const;
  void SavePacked(const std::string& path) const;

  std::string desc() const;
  std::string implementation() const;
  std::string Explain() const;
  size_t scratch_bytes() const;
  size_t packed_bytes() const;
  size_t prepared_keys_bytes() const;

 private:
  Operator(lamina_operator* op, std::shared_ptr<lamina_pool> pool, bool on_cuda);

  std::shared_ptr<lamina_pool> pool_;  // outlives op_
  std::shared_ptr<lamina_operator> op_;
  bool on_cuda_ = false;
};

}  // namespace lamina::python

#endif  // LAMINA_BINDINGS_PYTHON_OPERATOR_H_
