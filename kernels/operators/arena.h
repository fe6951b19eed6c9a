// Scratch of the calling thread for Runs that were given none: grows on first use, nested Runs get their own part.
#ifndef LAMINA_KERNELS_OPERATORS_ARENA_H_
#define LAMINA_KERNELS_OPERATORS_ARENA_H_

#include <cstddef>

namespace lamina {

class ArenaLease {
 public:
  explicit ArenaLease(size_t bytes);
  ~ArenaLease();
  ArenaLease(const ArenaLease&) = delete;
  ArenaLease& operator=(const ArenaLease&) = delete;
  std::byte* data() const { return data_; }  // null: out of memory

 private:
  std::byte* data_;
  bool owned_;  // a nested lease holds memory of its own, freed with it
};

}  // namespace lamina

#endif  // LAMINA_KERNELS_OPERATORS_ARENA_H_
