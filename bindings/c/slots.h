// The tensors that one call of the C interface takes, each with the shape, strides and type that the descriptor asks
// for and the member of the C++ struct that gets its address. No memory is allocated: lamina_run goes through here.
#ifndef LAMINA_BINDINGS_C_SLOTS_H_
#define LAMINA_BINDINGS_C_SLOTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "lamina/c.h"
#include "lamina/status.h"
#include "lamina/types.h"

namespace lamina::c {

// Shape and strides in elements, slowest dimension first.
struct Extents {
  int32_t ndim = 0;
  std::array<int64_t, LAMINA_MAX_DIMS> shape = {}, strides = {};
};

Extents Dense(std::initializer_list<int64_t> shape);
// [rows.., row] whose rows are `stride` elements apart, 0 = dense; the dimensions before lie on top of each other.
Extents Rows(std::initializer_list<int64_t> shape, int64_t stride);
// [n, h, w, c] or [n, c, h, w] with conv2d.h's meaning of the stride.
Extents Image(Layout layout, int64_t n, int64_t h, int64_t w, int64_t c, int64_t stride);

constexpr int64_t kAnySize = -1;

class Slots {
 public:
  enum Need { kRequired, kOptional };

  template <class P>
  void Weight(const char* name, P*& member, DType dtype, const Extents& extents, Need need = kRequired) {
    Add(name, &member, static_cast<int32_t>(dtype), extents, LAMINA_WEIGHT, need);
  }
  template <class P>
  void Input(const char* name, P*& member, int32_t dtype, const Extents& extents, Need need = kRequired) {
    Add(name, &member, dtype, extents, LAMINA_INPUT, need);
  }
  template <class P>
  void Input(const char* name, P*& member, DType dtype, const Extents& extents, Need need = kRequired) {
    Input(name, member, static_cast<int32_t>(dtype), extents, need);
  }
  template <class P>
  void Output(const char* name, P*& member, DType dtype, const Extents& extents, Need need = kRequired) {
    Add(name, &member, static_cast<int32_t>(dtype), extents, LAMINA_OUTPUT, need);
  }
  // A number, passed as a tensor of no dimensions; it is read when the call is made.
  void Number(const char* name, int64_t& member) { Add(name, &member, LAMINA_I64, Extents{}, LAMINA_INPUT, kOptional); }

  // Checks what the caller gives and fills in the members. `where` begins the sentence of a refusal: it is called only
  // then.
  template <class Where>
  Status Bind(const lamina_tensor* tensors, size_t count, int32_t device, const Where& where) {
    if (Failure f = BindAll(tensors, count, device); f.failed) return InvalidArgument(where() + ": " + f.sentence);
    return {};
  }

  // Appends what is asked for to an array of the caller's; see lamina_tensors.
  void Describe(lamina_tensor* tensors, size_t capacity, size_t* count) const;

 private:
  struct Slot {
    const char* name;
    void* member;
    int32_t dtype, role;
    bool optional, given;
    Extents extents;
  };
  struct Failure {
    bool failed = false;
    std::string sentence = {};
  };
  static constexpr size_t kMost = 20;  // multi_head_attention has 16

  template <class M>
  void Add(const char* name, M* member, int32_t dtype, const Extents& extents, int32_t role, Need need) {
    static_assert(std::is_pointer_v<M> || std::is_same_v<M, int64_t>);
    static_assert(sizeof(M) == sizeof(void*));
    slots_[size_++] = {name, member, dtype, role, need == kOptional, false, extents};
  }
  Failure BindAll(const lamina_tensor* tensors, size_t count, int32_t device);
  static std::string Mismatch(const Slot& slot, const lamina_tensor& given, int32_t device);

  std::array<Slot, kMost> slots_;
  size_t size_ = 0;
};

// A struct of the caller's as this version knows it: fields that it lacks are zero, fields that this version does not
// know must be zero. False when the struct is smaller than the first version's, `least` bytes, or knows more than we
// do.
bool CopySized(const void* given, size_t least, void* known, size_t known_bytes);

}  // namespace lamina::c

#endif  // LAMINA_BINDINGS_C_SLOTS_H_
