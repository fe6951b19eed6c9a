// The C interface's view of an operator: a handle that hides its type, and what it does with a descriptor. Implemented
// in handle.h, once per operator in bindings/c/<op>.cc.
#ifndef LAMINA_BINDINGS_C_ENTRY_H_
#define LAMINA_BINDINGS_C_ENTRY_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/c.h"
#include "lamina/context.h"
#include "lamina/machine.h"
#include "lamina/status.h"

namespace lamina::c {

// A context and the machine that the caller gave as text, which must live as long as what is prepared with it.
struct OwnedContext {
  Context context;
  std::shared_ptr<const Machine> machine;
};

}  // namespace lamina::c

struct lamina_operator {
  virtual ~lamina_operator() = default;
  virtual lamina::Result<std::unique_ptr<lamina_operator>> Reshape(std::string_view text) const = 0;
  virtual lamina::Status Run(const lamina_tensor* tensors, size_t count, void* scratch, size_t scratch_bytes) const = 0;
  virtual lamina::Status PrepareKeys(const lamina_tensor* tensors, size_t count, void* prepared_keys, void* scratch,
                                     size_t scratch_bytes) const = 0;
  virtual lamina::Result<size_t> PreparedKeysBytes() const = 0;
  virtual lamina::Status SavePacked(const std::string& path) const = 0;
  virtual const std::string& Explain() const = 0;

  // Asked once, when the operator is prepared: these never change.
  std::string desc, implementation;
  size_t scratch_bytes = 0, packed_bytes = 0;
};

namespace lamina::c {

// Descriptors are valid.
template <class Desc>
struct Entry {
  static void Describe(const Desc& desc, lamina_tensor* tensors, size_t capacity, size_t* count);
  static Result<std::vector<CandidateReport>> Candidates(const Desc& desc, const Context& context);
  static Result<std::unique_ptr<lamina_operator>> Prepare(const Desc& desc, const lamina_tensor* weights, size_t count,
                                                          const OwnedContext& context);
  static Result<std::unique_ptr<lamina_operator>> LoadPacked(const std::string& path, const OwnedContext& context);
};

}  // namespace lamina::c

#endif  // LAMINA_BINDINGS_C_ENTRY_H_
