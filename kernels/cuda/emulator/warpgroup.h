// What four warps of an emulated block do together: wgmma, whose operands are read and whose sums are written some time
// between its issue and the wait for its group, in the order of issue.
#ifndef LAMINA_KERNELS_CUDA_EMULATOR_WARPGROUP_H_
#define LAMINA_KERNELS_CUDA_EMULATOR_WARPGROUP_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "kernels/cuda/core/descriptor.h"
#include "kernels/cuda/core/gemm.h"

namespace lamina::cuda::emulator {

inline constexpr uint64_t kInRegisters = ~uint64_t{0};  // for a descriptor of a

// sums[64, n] = (accumulate ? sums : 0) + a[64, k] * b[k, n], k of 32 bytes.
struct Wgmma {
  Math math = Math::kBf16;
  int n = 0;
  uint64_t a = 0, b = 0;  // descriptors
  Major b_major = Major::kK;
  bool accumulate = false;
  bool operator==(const Wgmma&) const = default;
};

class Warpgroup {
 public:
  static constexpr int kThreads = 128;

  // Of one thread, 0..127.
  void Fence(int thread) { threads_[thread].fenced = true; }
  void Issue(int thread, const Wgmma& what, float* sums, const uint32_t* a);
  void Commit(int thread);
  // How many products must be done so that at most `groups_left` of the thread's groups are under way.
  uint64_t DoneAfter(int thread, int groups_left);
  void End(int thread) const;

  // Products that all 128 threads have issued and that are not done.
  bool Ready() const { return !queue_.empty() && queue_.front().arrived == kThreads; }
  void RunOne();
  const uint64_t& done() const { return done_; }

 private:
  struct Queued {
    Wgmma what;
    float* sums[kThreads] = {};
    const uint32_t* a[kThreads] = {};  // null: by descriptor
    int arrived = 0;
  };
  struct Thread {
    uint64_t issued = 0;
    bool fenced = false;
    std::deque<uint64_t> groups;  // products issued before the group's end
  };
  std::deque<Queued> queue_;  // from product number done_ on
  uint64_t done_ = 0;
  Thread threads_[kThreads];
};

}  // namespace lamina::cuda::emulator

#endif  // LAMINA_KERNELS_CUDA_EMULATOR_WARPGROUP_H_
