// A GPU on the CPU, for tests: runs a kernel's own source, each CUDA thread as a fiber. One block at a time, one fiber
// at a time, switching only where threads wait for each other; so a block whose threads never meet is reported, not
// hung on, and the order in which fibers take their turns, as well as the moment at which asynchronous copies land, can
// be chosen to bring missing barriers and waits to light.
#ifndef LAMINA_KERNELS_CUDA_EMULATOR_BLOCK_H_
#define LAMINA_KERNELS_CUDA_EMULATOR_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/emulator/warpgroup.h"
#include "kernels/cuda/emulator/words.h"

namespace lamina::cuda::emulator {

// Reports a mistake of the thread that is running, and aborts.
[[noreturn]] void Die(const std::string& sentence);

// Two extremes that a correct kernel cannot tell apart. Whenever a thread has to wait, the first one that can go on
// does: those behind it may be held up for as long as it can do without them.
struct Schedule {
  bool backward = false;        // the last one instead
  bool late = false;            // what is asynchronous happens when it is waited for, not when it is issued
  bool products_first = false;  // and products happen before loads that nothing has waited for
};
Schedule& TheSchedule();

// Threads that meet: the generation grows when the last expected one has arrived.
struct Barrier {
  int arrived = 0;
  uint64_t generation = 0;
};

inline constexpr int kWarpLanes = 32;
inline constexpr size_t kMostSharedBytes = 232448;  // of a block, on sm_90
inline constexpr uint32_t kSharedBase = 1024;       // the address of a block's shared memory: not 0, and aligned
inline constexpr size_t kMostExchangeBytes = 64;    // that one lane gives to a warp's collective

class Block {
 public:
  // The block that is running. Kernels run on the thread that launches them.
  static Block& Current();

  // Runs `body` once per thread of each block of the grid. Aborts with a sentence where threads wait for ever.
  static void RunGrid(dim3 grid, int threads, size_t shared_bytes, const std::function<void()>& body);

  std::byte* shared() const { return shared_; }
  int thread() const { return current_; }
  int lane() const { return current_ % kWarpLanes; }

  // Returns when `expected` threads have called it on this barrier since the last time.
  void Meet(Barrier& barrier, int expected, const char* what);
  // Returns when `counter` differs from `value`.
  void WaitForChange(const uint64_t& counter, uint64_t value, const char* what);
  // Says that a counter has changed: a thread that comes before this one may now go on.
  void Woke() { woke_ = true; }
  void SyncThreads() { Meet(all_, threads_, "__syncthreads"); }
  void SyncNamed(int id, int threads) { Meet(named_[id], threads, "bar.sync"); }
  void ArriveNamed(int id, int threads);

  // griddepcontrol.wait of the calling thread, and whether it has been.
  void AwaitEarlierKernels();
  bool awaited() const;

  // Gives `mine` to the lanes of this warp, all of which must call it, and returns the array of what they gave.
  template <class T>
  struct Lanes {
    const std::byte* data;
    const T& operator[](int lane) const { return *reinterpret_cast<const T*>(data + lane * kMostExchangeBytes); }
  };
  template <class T>
  Lanes<T> Exchange(const T& mine, const char* what) {
    static_assert(sizeof(T) <= kMostExchangeBytes);
    return {ExchangeBytes(&mine, sizeof(T), what)};
  }

  // Aborts where an instruction's address is not a multiple of `bytes`.
  static void RequireAligned(const void* address, size_t bytes);

  // Asynchronous copies of the calling thread (cp.async): `copy` runs at once or, where copies land late, when its
  // group has been waited for.
  void IssueCopy(std::function<void()> copy);
  void CommitCopies();
  void WaitCopies(int groups_left);

  // Addresses of shared memory as instructions take them, and the `bytes` of it at one.
  uint32_t SharedAddress(const void* shared) const;
  std::byte* SharedAt(uint32_t address, uint32_t bytes) const;
  // The same memory through the async proxy, by which TMA and wgmma go: `who` aborts where it reaches a byte that a
  // thread has stored and no fence.proxy.async has made known. A fence makes known what any thread has stored before
  // it: whether a barrier lies between is for the two schedules to show.
  void AsyncRead(uint32_t address, void* to, uint32_t bytes, const char* who) const;
  void AsyncWrite(uint32_t address, const void* from, uint32_t bytes, const char* who);
  void FenceProxies() { std::memcpy(async_.data(), shared_, shared_bytes_); }
  // An action of the hardware that ends in an mbarrier (TMA): at once or, where things happen late, when no thread can
  // go on without it, the latest one first.
  void Later(std::function<void()> action);
  // Whether an mbarrier was made and fence.mbarrier_init not executed since.
  bool barriers_unfenced() const { return barriers_unfenced_; }
  void set_barriers_unfenced(bool unfenced) { barriers_unfenced_ = unfenced; }
  // wgmma of the calling thread's warpgroup, and its registers per thread (setmaxnreg).
  void FenceWgmma() { warpgroup().Fence(current_ % Warpgroup::kThreads); }
  void IssueWgmma(const Wgmma& what, float* sums, const uint32_t* a);
  void CommitWgmma() { warpgroup().Commit(current_ % Warpgroup::kThreads); }
  void WaitWgmma(int groups_left);
  void SetRegisters(int count, bool increase);

 private:
  struct Fiber;
  struct Warp {
    Barrier barrier;
    const char* what[kWarpLanes] = {};
    alignas(16) std::byte slots[2][kWarpLanes][kMostExchangeBytes];
  };

  Block(int threads, size_t shared_bytes);
  ~Block();
  void Run(const std::function<void()>& body);
  void End(Fiber& fiber);
  bool LandOne();
  bool MultiplyOne();
  Warpgroup& warpgroup();
  const std::byte* ExchangeBytes(const void* mine, size_t bytes, const char* what);
  void RequireFenced(uint32_t address, uint32_t bytes, const char* who) const;
  [[noreturn]] void ReportStuck() const;

  int threads_;
  int current_ = 0;
  size_t shared_bytes_;
  std::byte* shared_map_;
  std::byte* shared_;
  std::vector<std::byte> async_;  // shared memory as the async proxy knows it
  Barrier all_;
  Barrier named_[16];
  std::vector<Warp> warps_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<std::function<void()>> late_;
  bool woke_ = false;
  bool barriers_unfenced_ = false;
  std::vector<Warpgroup> warpgroups_;
  std::vector<Barrier> registers_meet_;  // of each warpgroup
  std::vector<int> registers_;           // a thread's, in each warpgroup
  uint64_t registers_free_ = 0;
};

}  // namespace lamina::cuda::emulator

#endif  // LAMINA_KERNELS_CUDA_EMULATOR_BLOCK_H_
