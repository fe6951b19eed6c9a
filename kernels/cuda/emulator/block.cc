#include "kernels/cuda/emulator/block.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <utility>

namespace lamina::cuda::emulator {
namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kSharedAlignment = 1024;
constexpr int kRegisters = 65536;   // of a multiprocessor
constexpr std::byte kPoison{0xff};  // NaN as f32, bf16 and f16

Block* running = nullptr;

// Stacks live on from block to block.
class KeptStacks {
 public:
  boost::context::stack_context allocate() {
    if (!Free().empty()) {
      const auto stack = Free().back();
      Free().pop_back();
      return stack;
    }
    return boost::context::fixedsize_stack(kStackBytes).allocate();
  }
  void deallocate(boost::context::stack_context& stack) { Free().push_back(stack); }

 private:
  static std::vector<boost::context::stack_context>& Free() {
    static auto* const free = new std::vector<boost::context::stack_context>;
    return *free;
  }
};

}  // namespace

void Die(const std::string& sentence) {
  std::fprintf(stderr, "emulated GPU: %s (block %u,%u,%u thread %u)\n", sentence.c_str(), blockIdx.x, blockIdx.y,
               blockIdx.z, threadIdx.x);
  std::abort();
}

struct Block::Fiber {
  boost::context::fiber self, scheduler;
  const uint64_t* counter = nullptr;  // waits until *counter differs from value; null: it can go on
  uint64_t value = 0;
  const char* what = "start";
  bool done = false, awaited = false;
  std::vector<std::function<void()>> open;                // copies not yet committed
  std::deque<std::vector<std::function<void()>>> groups;  // committed, not yet landed
};

Schedule& TheSchedule() {
  static Schedule schedule;
  return schedule;
}

Block& Block::Current() {
  if (running == nullptr) Die("device code was called outside a kernel");
  return *running;
}

Block::Block(int threads, size_t shared_bytes)
    : threads_(threads), shared_bytes_(shared_bytes), warps_(static_cast<size_t>(threads / kWarpLanes)) {
  // Shared memory ends at an inaccessible page, as far as its alignment allows.
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t most = (kMostSharedBytes + page - 1) / page * page;
  void* map = mmap(nullptr, most + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED || mprotect(static_cast<std::byte*>(map) + most, page, PROT_NONE) != 0) Die("no memory");
  shared_map_ = static_cast<std::byte*>(map);
  const size_t rounded = (shared_bytes + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
  shared_ = shared_map_ + most - rounded;
  for (int i = 0; i < threads; ++i) fibers_.push_back(std::make_unique<Fiber>());
}

Block::~Block() {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  munmap(shared_map_, (kMostSharedBytes + page - 1) / page * page + page);
}

void Block::RunGrid(dim3 grid, int threads, size_t shared_bytes, const std::function<void()>& body) {
  if (running != nullptr) Die("a kernel was launched within a kernel");
  if (threads < kWarpLanes || threads > 1024 || threads % kWarpLanes != 0) {
    Die("a block must have whole warps, at most 1024 threads");
  }
  if (shared_bytes > kMostSharedBytes) Die("a block must not have more than 227 KiB of shared memory");
  if (grid.x < 1 || grid.x > 0x7fffffff || grid.y < 1 || grid.y > 65535 || grid.z < 1 || grid.z > 65535) {
    Die("a grid must have 1 to 2^31 - 1, 65535 and 65535 blocks");
  }
  Block block(threads, shared_bytes);
  running = &block;
  gridDim = grid;
  blockDim = {static_cast<unsigned>(threads), 1, 1};
  const uint64_t count = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t b = TheSchedule().backward ? count - 1 - i : i;
    blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                static_cast<unsigned>(b / grid.x / grid.y)};
    block.Run(body);
  }
  running = nullptr;
}

void Block::Run(const std::function<void()>& body) {
  const size_t rounded = (shared_bytes_ + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
  std::memset(shared_, static_cast<int>(kPoison), rounded);
  async_.assign(shared_bytes_, kPoison);
  for (auto& fiber : fibers_) {
    Fiber& f = *fiber;
    f.counter = nullptr;
    f.done = f.awaited = false;
    f.self = boost::context::fiber(std::allocator_arg, KeptStacks(), [&f, &body](boost::context::fiber&& scheduler) {
      f.scheduler = std::move(scheduler);
      body();
      f.done = true;
      return std::move(f.scheduler);
    });
  }
  const auto groups = static_cast<size_t>(threads_ / Warpgroup::kThreads);
  warpgroups_.assign(groups, {});
  registers_meet_.assign(groups, {});
  registers_.assign(groups, std::min(255, kRegisters / threads_) / 8 * 8);
  registers_free_ = 0;
  barriers_unfenced_ = false;
  int left = threads_;
  while (left > 0) {
    bool moved = false;
    for (int turn = 0; turn < threads_; ++turn) {
      const int i = TheSchedule().backward ? threads_ - 1 - turn : turn;
      Fiber& f = *fibers_[static_cast<size_t>(i)];
      if (f.done || (f.counter != nullptr && *f.counter == f.value)) continue;
      f.counter = nullptr;
      moved = true;
      current_ = i;
      threadIdx = {static_cast<unsigned>(i), 0, 0};
      f.self = std::move(f.self).resume();
      if (f.done) {
        --left;
        End(f);
      }
      if (std::exchange(woke_, false)) turn = -1;
    }
    if (!moved && !LandOne()) ReportStuck();
  }
  if (!late_.empty()) Die("a block ended with TMA loads that nobody has waited for");
  for (const Barrier& barrier : named_) {
    if (barrier.arrived != 0) Die("a block ended with threads on their way to a named barrier");
  }
  for (size_t i = shared_bytes_; i < rounded; ++i) {
    if (shared_[i] != kPoison) Die("a kernel wrote behind its shared memory");
  }
}

// Of the thread that is running.
void Block::End(Fiber& f) {
  for (const auto& group : f.groups) {
    if (!group.empty()) Die("a thread ended with copies that it has not waited for");
  }
  if (!f.open.empty()) Die("a thread ended with copies that it has not committed");
  f.groups.clear();
  if (!warpgroups_.empty()) warpgroup().End(current_ % Warpgroup::kThreads);
}

// Loads before products: what a product reads is then overwritten by every load that could come before it. The other
// way round, a product does not see what it has not waited for.
bool Block::LandOne() {
  if (TheSchedule().products_first && MultiplyOne()) return true;
  if (!late_.empty()) {
    const auto action = std::move(late_.back());
    late_.pop_back();
    action();
    return true;
  }
  return MultiplyOne();
}

bool Block::MultiplyOne() {
  for (Warpgroup& w : warpgroups_) {
    if (!w.Ready()) continue;
    w.RunOne();
    return true;
  }
  return false;
}

void Block::WaitForChange(const uint64_t& counter, uint64_t value, const char* what) {
  Fiber& f = *fibers_[static_cast<size_t>(current_)];
  if (counter != value) return;
  f.counter = &counter;
  f.value = value;
  f.what = what;
  f.scheduler = std::move(f.scheduler).resume();
}

void Block::Meet(Barrier& barrier, int expected, const char* what) {
  const uint64_t generation = barrier.generation;
  if (++barrier.arrived == expected) {
    barrier.arrived = 0;
    ++barrier.generation;
    Woke();
    return;
  }
  WaitForChange(barrier.generation, generation, what);
}

void Block::ArriveNamed(int id, int threads) {
  Barrier& barrier = named_[id];
  if (++barrier.arrived < threads) return;
  barrier.arrived = 0;
  ++barrier.generation;
  Woke();
}

void Block::AwaitEarlierKernels() { fibers_[static_cast<size_t>(current_)]->awaited = true; }
bool Block::awaited() const { return fibers_[static_cast<size_t>(current_)]->awaited; }

const std::byte* Block::ExchangeBytes(const void* mine, size_t bytes, const char* what) {
  Warp& warp = warps_[static_cast<size_t>(current_ / kWarpLanes)];
  // Two sets of slots in turn: nobody writes the next but one before all have read this one.
  auto& slots = warp.slots[warp.barrier.generation % 2];
  std::memcpy(slots[lane()], mine, bytes);
  warp.what[lane()] = what;
  if (warp.barrier.arrived + 1 == kWarpLanes) {
    for (const char* other : warp.what) {
      if (std::strcmp(other, what) != 0) Die("the lanes of a warp met in different instructions");
    }
  }
  Meet(warp.barrier, kWarpLanes, what);
  return slots[0];
}

void Block::RequireAligned(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) {
    Die("an address must be a multiple of " + std::to_string(bytes));
  }
}

void Block::IssueCopy(std::function<void()> copy) {
  if (TheSchedule().late) {
    fibers_[static_cast<size_t>(current_)]->open.push_back(std::move(copy));
  } else {
    copy();
  }
}

void Block::CommitCopies() {
  Fiber& f = *fibers_[static_cast<size_t>(current_)];
  if (TheSchedule().late) f.groups.push_back(std::exchange(f.open, {}));
}

void Block::WaitCopies(int groups_left) {
  Fiber& f = *fibers_[static_cast<size_t>(current_)];
  while (f.groups.size() > static_cast<size_t>(groups_left)) {
    for (const auto& copy : f.groups.front()) copy();
    f.groups.pop_front();
  }
}

uint32_t Block::SharedAddress(const void* shared) const {
  const auto* p = static_cast<const std::byte*>(shared);
  if (p < shared_ || p >= shared_ + shared_bytes_) Die("an address of shared memory was wanted, and another given");
  return kSharedBase + static_cast<uint32_t>(p - shared_);
}

std::byte* Block::SharedAt(uint32_t address, uint32_t bytes) const {
  if (address < kSharedBase || address - kSharedBase + bytes > shared_bytes_) Die("outside the shared memory");
  return shared_ + (address - kSharedBase);
}

void Block::RequireFenced(uint32_t address, uint32_t bytes, const char* who) const {
  if (std::memcmp(SharedAt(address, bytes), &async_[address - kSharedBase], bytes) != 0) {
    Die(std::string(who) + " reached shared memory that was stored to without fence.proxy.async");
  }
}

void Block::AsyncRead(uint32_t address, void* to, uint32_t bytes, const char* who) const {
  RequireFenced(address, bytes, who);
  std::memcpy(to, SharedAt(address, bytes), bytes);
}

void Block::AsyncWrite(uint32_t address, const void* from, uint32_t bytes, const char* who) {
  RequireFenced(address, bytes, who);
  std::memcpy(SharedAt(address, bytes), from, bytes);
  std::memcpy(&async_[address - kSharedBase], from, bytes);
}

void Block::Later(std::function<void()> action) {
  if (TheSchedule().late) {
    late_.push_back(std::move(action));
  } else {
    action();
  }
}

Warpgroup& Block::warpgroup() {
  const auto index = static_cast<size_t>(current_ / Warpgroup::kThreads);
  if (index >= warpgroups_.size()) Die("a warpgroup is 128 threads");
  return warpgroups_[index];
}

void Block::IssueWgmma(const Wgmma& what, float* sums, const uint32_t* a) {
  Warpgroup& w = warpgroup();
  w.Issue(current_ % Warpgroup::kThreads, what, sums, a);
  if (TheSchedule().late || !w.Ready()) return;
  w.RunOne();
  Woke();
}

void Block::WaitWgmma(int groups_left) {
  Warpgroup& w = warpgroup();
  const uint64_t products = w.DoneAfter(current_ % Warpgroup::kThreads, groups_left);
  while (w.done() < products) WaitForChange(w.done(), w.done(), "wgmma.wait_group");
}

void Block::SetRegisters(int count, bool increase) {
  warpgroup();
  const auto index = static_cast<size_t>(current_ / Warpgroup::kThreads);
  Meet(registers_meet_[index], Warpgroup::kThreads, "setmaxnreg");
  if (current_ % Warpgroup::kThreads == 0) {
    int& mine = registers_[index];
    if (increase ? count < mine : count > mine) Die("setmaxnreg in the wrong direction");
    const auto change = static_cast<uint64_t>(Warpgroup::kThreads * std::abs(count - mine));
    while (increase && registers_free_ < change) WaitForChange(registers_free_, registers_free_, "setmaxnreg.inc");
    registers_free_ += increase ? -change : change;
    Woke();
    mine = count;
  }
  Meet(registers_meet_[index], Warpgroup::kThreads, "setmaxnreg");
}

void Block::ReportStuck() const {
  std::fprintf(stderr, "emulated GPU: the threads of block %u,%u,%u wait for each other for ever:\n", blockIdx.x,
               blockIdx.y, blockIdx.z);
  for (int i = 0; i < threads_; ++i) {
    const Fiber& f = *fibers_[static_cast<size_t>(i)];
    std::fprintf(stderr, "  thread %d %s\n", i, f.done ? "has ended" : f.what);
  }
  std::abort();
}

}  // namespace lamina::cuda::emulator
