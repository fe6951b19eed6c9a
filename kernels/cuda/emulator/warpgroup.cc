#include "kernels/cuda/emulator/warpgroup.h"

#include <cstring>

#include "kernels/cuda/core/element.h"
#include "kernels/cuda/core/fragment.h"
#include "kernels/cuda/emulator/block.h"

namespace lamina::cuda::emulator {
namespace {

// The tensor cores do not read the low 13 bits of an f32.
float ElementOfBits(uint32_t bits, Math math) {
  if (math == Math::kBf16) return Widen(Bf16{static_cast<uint16_t>(bits)});
  if (math == Math::kF16) return Widen(F16{static_cast<uint16_t>(bits)});
  return std::bit_cast<float>(bits & 0xffffe000);
}

// An operand as [k][rows] in shared memory's present state.
std::vector<double> Fetch(uint64_t descriptor, Major major, int rows, Math math) {
  const Block& block = Block::Current();
  const MatrixDescriptor d = Unpack(descriptor);
  const int element = ElementBytes(math), depth = 32 / element;
  std::vector<double> values(static_cast<size_t>(depth * rows));
  for (int row = 0; row < rows; ++row) {
    for (int k = 0; k < depth; ++k) {
      const uint32_t address = OperandAddress(d, major, row, k, element);
      uint32_t bits = 0;
      block.AsyncRead(address, &bits, static_cast<uint32_t>(element), "wgmma");
      values[static_cast<size_t>(k * rows + row)] = ElementOfBits(bits, math);
    }
  }
  return values;
}

// Operand a as [k][64] in the threads' registers, four to each.
std::vector<double> Gather(const uint32_t* const (&registers)[Warpgroup::kThreads], Math math) {
  const int per_word = 4 / ElementBytes(math);
  std::vector<double> values(static_cast<size_t>(8 * per_word * 64));
  for (int thread = 0; thread < Warpgroup::kThreads; ++thread) {
    for (int reg = 0; reg < 4; ++reg) {
      const Position p = APosition(thread % 32, reg);  // the column counts words
      for (int i = 0; i < per_word; ++i) {
        values[static_cast<size_t>((p.column * per_word + i) * 64 + thread / 32 * 16 + p.row)] =
            ElementOfBits(per_word == 1 ? registers[thread][reg] : registers[thread][reg] >> 16 * i & 0xffff, math);
      }
    }
  }
  return values;
}

}  // namespace

void Warpgroup::Issue(int thread, const Wgmma& what, float* sums, const uint32_t* a) {
  Thread& t = threads_[thread];
  if (!t.fenced) Die("wgmma without wgmma.fence since the last group");
  const uint64_t index = t.issued++ - done_;
  if (index == queue_.size()) queue_.push_back({what});
  Queued& q = queue_[index];
  if (q.what != what) Die("the threads of a warpgroup gave different operands to one wgmma");
  q.sums[thread] = sums;
  q.a[thread] = a;
  ++q.arrived;
}

void Warpgroup::Commit(int thread) {
  Thread& t = threads_[thread];
  t.groups.push_back(t.issued);
  t.fenced = false;
}

uint64_t Warpgroup::DoneAfter(int thread, int groups_left) {
  std::deque<uint64_t>& groups = threads_[thread].groups;
  uint64_t products = 0;
  while (groups.size() > static_cast<size_t>(groups_left)) {
    products = groups.front();
    groups.pop_front();
  }
  return products;
}

void Warpgroup::End(int thread) const {
  const Thread& t = threads_[thread];
  if (!t.groups.empty() || t.issued > done_) Die("a thread ended with a wgmma that it has not waited for");
}

void Warpgroup::RunOne() {
  const Queued& q = queue_.front();
  const Wgmma& w = q.what;
  const std::vector<double> a = q.a[0] != nullptr ? Gather(q.a, w.math) : Fetch(w.a, Major::kK, 64, w.math);
  const std::vector<double> b = Fetch(w.b, w.b_major, w.n, w.math);
  std::vector<double> products(static_cast<size_t>(64 * w.n));
  const int depth = 32 / ElementBytes(w.math);
  for (int row = 0; row < 64; ++row) {
    double* sum = &products[static_cast<size_t>(row * w.n)];
    for (int k = 0; k < depth; ++k) {
      const double factor = a[static_cast<size_t>(k * 64 + row)];
      const double* b_row = &b[static_cast<size_t>(k * w.n)];
      for (int column = 0; column < w.n; ++column) sum[column] += factor * b_row[column];
    }
  }
  for (int thread = 0; thread < kThreads; ++thread) {
    float* sums = q.sums[thread];
    for (int reg = 0; reg < w.n / 2; ++reg) {
      const Position p = WgmmaPosition(thread, reg);
      const double before = w.accumulate ? sums[reg] : 0.0;
      sums[reg] = static_cast<float>(before + products[static_cast<size_t>(p.row * w.n + p.column)]);
    }
  }
  queue_.pop_front();
  ++done_;
}

}  // namespace lamina::cuda::emulator
