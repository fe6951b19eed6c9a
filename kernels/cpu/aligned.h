// Memory for packed weights and scratch: aligned to a cache line, from 1 MiB up to huge pages, which a stream of
// weights out of DRAM needs (1.2 to 2.1 times the speed of 4 KiB pages).
#ifndef LAMINA_KERNELS_CPU_ALIGNED_H_
#define LAMINA_KERNELS_CPU_ALIGNED_H_

#include <cstddef>
#include <memory>
#include <span>
#include <utility>

namespace lamina {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes) : data_(Allocate(bytes)), bytes_(data_ ? bytes : 0) {}
  // Another's memory, only to be read, which lives as long as `owner`.
  AlignedBuffer(std::span<const std::byte> memory, std::shared_ptr<const void> owner)
      : data_(const_cast<std::byte*>(memory.data())), bytes_(memory.size()), owner_(std::move(owner)) {}
  ~AlignedBuffer() {
    if (owner_ == nullptr) Free(data_);
  }
  AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(owner_, other.owner_);
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
  std::shared_ptr<const void> owner_;
};

}  // namespace lamina

#endif  // LAMINA_KERNELS_CPU_ALIGNED_H_
