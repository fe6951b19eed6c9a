// Memory with an inaccessible page at its end (or its beginning), so that one byte read or written outside a tensor is
// a crash in every build, not only under a sanitizer.
#ifndef LAMINA_HARNESS_GUARDED_H_
#define LAMINA_HARNESS_GUARDED_H_

#include <cstddef>
#include <cstdint>
#include <utility>

namespace lamina::harness {

// Where the inaccessible page is; kScattered, for timing: somewhere behind, the data at a multiple of 64 bytes in its
// page.
enum class Guard { kEnd, kBegin, kScattered };

class Guarded {
 public:
  Guarded() = default;
  // Aborts when the system has no memory: a test cannot go on without it.
  // kScattered: the data begins `offset` bytes into a page.
  Guarded(size_t bytes, Guard guard, size_t offset = 0);
  ~Guarded();
  Guarded(Guarded&& other) noexcept { *this = std::move(other); }
  Guarded& operator=(Guarded&& other) noexcept {
    std::swap(map_, other.map_);
    std::swap(map_bytes_, other.map_bytes_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }
  // Takes the right to write away, for inputs.
  void Protect();

 private:
  std::byte* map_ = nullptr;
  size_t map_bytes_ = 0;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_GUARDED_H_
