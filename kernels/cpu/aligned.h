// Memory for packed weights and scratch: aligned to a cache line, from 1 MiB up to huge pages, which a stream of
// weights out of DRAM needs (1.2 to 2.1 times the speed of 4 KiB pages).
#ifndef LAMINA_KERNELS_CPU_ALIGNED_H_
#define LAMINA_KERNELS_CPU_ALIGNED_H_

#include <cstddef>
#include <utility>

namespace lamina {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes) : data_(Allocate(bytes)), bytes_(data_ ? bytes : 0) {}
  ~AlignedBuffer() { Free(data_); }
  AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  // Null when there is no memory (or none was asked for).
  std::byte* data() const { return data_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

  // Uninitialised; null for 0 bytes or when there is no memory.
  static std::byte* Allocate(size_t bytes);
  static void Free(std::byte* data);

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace lamina

#endif  // LAMINA_KERNELS_CPU_ALIGNED_H_
