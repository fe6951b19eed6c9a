#include "harness/parity.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "reference/element.h"

namespace lamina::harness {

uint64_t TensorStore::Random() {  // SplitMix64 (Steele, Lea, Flood 2014)
  uint64_t z = (seed_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

int64_t TensorStore::RandomBelow(int64_t bound) {
  return bound <= 1 ? 0 : static_cast<int64_t>(Random() % static_cast<uint64_t>(bound));
}

double TensorStore::RandomNormal() {  // Box-Muller
  const double u = (static_cast<double>(Random() >> 11) + 1) * 0x1p-53,
               v = static_cast<double>(Random() >> 11) * 0x1p-53;
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * 3.14159265358979323846 * v);
}

void* TensorStore::Allocate(size_t bytes) {
  const size_t offset = guard_ == Guard::kScattered ? 64 * static_cast<size_t>(RandomBelow(64)) : 0;
  all_.emplace_back(bytes, guard_, offset);
  return all_.back().data();
}

void* TensorStore::Input(DType dtype, int64_t count, double scale) {
  void* data = Allocate(static_cast<size_t>(count) * SizeOf(dtype));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t integer = RandomBelow(8);  // -4..-1, 1..4
    const auto exact = static_cast<double>(integer < 4 ? integer - 4 : integer - 3);
    reference::Store(fill_ == Fill::kExact ? exact : scale * RandomNormal(), dtype, data, i);
  }
  inputs_.push_back(&all_.back());
  return data;
}
float* TensorStore::Input(int64_t count, double scale) { return static_cast<float*>(Input(DType::kF32, count, scale)); }

void* TensorStore::Output(DType dtype, int64_t count) {
  void* data = Allocate(static_cast<size_t>(count) * SizeOf(dtype));
  outputs_.push_back({static_cast<std::byte*>(data), count, dtype});
  return data;
}
float* TensorStore::Output(int64_t count) { return static_cast<float*>(Output(DType::kF32, count)); }

void TensorStore::ProtectInputs() {
  for (Guarded* g : inputs_) g->Protect();
}

bool TensorStore::Region::poisoned(int64_t i) const {
  const std::byte* at = data + i * element();
  return dtype == DType::kF32 ? std::memcmp(at, &kPoison, sizeof(kPoison)) == 0
                              : std::memcmp(at, &kNarrowPoison, sizeof(kNarrowPoison)) == 0;
}

void TensorStore::PoisonOutputs() {
  for (const Region& r : outputs_) {
    for (int64_t i = 0; i < r.count; ++i) {
      std::byte* at = r.data + i * r.element();
      if (r.dtype == DType::kF32) {
        std::memcpy(at, &kPoison, sizeof(kPoison));
      } else {
        std::memcpy(at, &kNarrowPoison, sizeof(kNarrowPoison));
      }
    }
  }
}

std::vector<std::byte> TensorStore::OutputBytes() const {
  std::vector<std::byte> bytes;
  for (const Region& r : outputs_) bytes.insert(bytes.end(), r.data, r.data + r.count * r.element());
  bytes.push_back(std::byte{1});  // never empty, so that a first run can be told from none
  return bytes;
}

std::string CheckGaps(const TensorStore& store, std::span<const Expected> outputs) {
  for (const TensorStore::Region& region : store.outputs()) {
    std::vector<bool> in_row(static_cast<size_t>(region.count));  // of any expected output that lies in this region
    const Expected* last = nullptr;
    for (const Expected& e : outputs) {
      const auto* got = static_cast<const std::byte*>(e.got);
      if (got < region.data || got >= region.data + region.count * region.element()) continue;
      last = &e;
      for (int64_t r = 0; r < e.rows; ++r) {
        const auto begin = in_row.begin() + (got - region.data) / region.element() + r * e.stride;
        std::fill(begin, begin + e.row, true);
      }
    }
    for (int64_t i = 0; last != nullptr && i < region.count; ++i) {
      if (!in_row[static_cast<size_t>(i)] && !region.poisoned(i)) {
        return last->name + ": element " + std::to_string(i) + " between the rows of the slice was written";
      }
    }
  }
  return "";
}

std::unique_ptr<Guarded> GuardedScratch(size_t bytes) {
  return std::make_unique<Guarded>((bytes + 63) / 64 * 64, Guard::kEnd);
}

namespace {

class EagerPool final : public ThreadPool {
 public:
  explicit EagerPool(std::unique_ptr<ThreadPool> pool) : pool_(std::move(pool)) {}
  size_t num_threads() const override { return pool_->num_threads(); }
  void ParallelFor(size_t count, void (*task)(void*, size_t), void* arg) override {
    pool_->ParallelFor(count, task, arg);
  }
  double handoff_ns() const override { return 0; }

 private:
  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace

ThreadPool& PoolOf(size_t threads) {
  static std::mutex mutex;
  static auto& pools = *new std::vector<ThreadPool*>;  // never destroyed: threads may outlive statics
  const std::lock_guard lock(mutex);
  if (pools.size() <= threads) pools.resize(threads + 1);
  if (pools[threads] == nullptr) {
    auto made = MakeThreadPool(threads);
    if (!made.ok()) {
      std::fprintf(stderr, "%s\n", made.status().message().c_str());
      std::abort();
    }
    pools[threads] = new EagerPool(*std::move(made));
  }
  return *pools[threads];
}

ParityReport& ParityReport::operator+=(const ParityReport& o) {
  passed += o.passed;
  failed += o.failed;
  refused += o.refused;
  worst = std::max(worst, o.worst);
  failures.insert(failures.end(), o.failures.begin(), o.failures.end());
  refusals.insert(refusals.end(), o.refusals.begin(), o.refusals.end());
  return *this;
}

}  // namespace lamina::harness
