#include "kernels/operators/arena.h"

#include "kernels/cpu/aligned.h"

namespace lamina {
namespace {

struct Arena {
  AlignedBuffer buffer;
  bool leased = false;
};
thread_local Arena arena;

}  // namespace

// A lease inside another one (an operator that runs a second one) is rare and must not move the outer's memory.
ArenaLease::ArenaLease(size_t bytes) : data_(nullptr), owned_(arena.leased) {
  if (owned_) {
    data_ = AlignedBuffer::Allocate(bytes);
    return;
  }
  if (arena.buffer.bytes() < bytes) arena.buffer = AlignedBuffer(bytes);
  data_ = arena.buffer.data();
  arena.leased = data_ != nullptr;
}

ArenaLease::~ArenaLease() {
  if (owned_) {
    AlignedBuffer::Free(data_);
  } else if (data_ != nullptr) {
    arena.leased = false;
  }
}

}  // namespace lamina
