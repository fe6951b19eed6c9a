// mbarrier objects in emulated shared memory. PTX ISA 9.0, section 9.7.13.15: a phase ends when no arrival is pending
// and no byte is expected; the next one then expects as many arrivals as the barrier was made for.
#ifndef LAMINA_KERNELS_CUDA_EMULATOR_MBARRIER_H_
#define LAMINA_KERNELS_CUDA_EMULATOR_MBARRIER_H_

#include <cstdint>

#include "kernels/cuda/emulator/block.h"

namespace lamina::cuda::emulator {

// The 64 bits: 20 of pending arrivals, 20 of a phase's arrivals, 22 of bytes, the phase's parity; the last is 0, which
// poisoned memory is not.
class Mbarrier {
 public:
  static void Init(uint64_t* at, int count) {
    if (reinterpret_cast<uintptr_t>(at) % 8 != 0) Die("an mbarrier must lie at a multiple of 8 bytes");
    if (count < 1 || count >= 1 << 20) Die("an mbarrier expects 1 to 2^20 - 1 arrivals");
    *at = static_cast<uint64_t>(count) << 20 | static_cast<uint64_t>(count);
  }
  explicit Mbarrier(uint64_t* at) : at_(at), pending_(Field(0, 20)), count_(Field(20, 20)), parity_(Field(62, 1)) {
    if (*at >> 63 != 0) Die("an mbarrier was used before its init");
    bytes_ = static_cast<int64_t>(*at << 2) >> 42;
  }

  // Whether the phase of this parity is over.
  bool Passed(uint32_t parity) const { return parity_ != parity; }
  void Arrive() {
    if (pending_ == 0) Die("more arrivals at an mbarrier than its phase expects");
    --pending_;
    Store();
  }
  void Expect(int64_t bytes) {
    bytes_ += bytes;
    if (bytes_ >= 1 << 20 || bytes_ <= -(1 << 20)) Die("an mbarrier expects at most 2^20 - 1 bytes");
    Store();
  }
  void ArriveExpecting(int64_t bytes) {
    bytes_ += bytes;
    Arrive();
  }

 private:
  uint64_t Field(int from, int bits) const { return *at_ >> from & ((uint64_t{1} << bits) - 1); }
  void Store() {
    if (pending_ == 0 && bytes_ == 0) {
      pending_ = count_;
      parity_ ^= 1;
    }
    Block::Current().Woke();
    *at_ = pending_ | count_ << 20 | (static_cast<uint64_t>(bytes_) & 0x3fffff) << 40 | parity_ << 62;
  }

  uint64_t* at_;
  uint64_t pending_, count_, parity_;
  int64_t bytes_ = 0;
};

}  // namespace lamina::cuda::emulator

#endif  // LAMINA_KERNELS_CUDA_EMULATOR_MBARRIER_H_
