// The machine instructions of device/ptx.cuh on the emulated block, written from the PTX ISA's description and not from
// the kernels: fragments by register and lane, ldmatrix by row addresses.
#ifndef LAMINA_KERNELS_CUDA_EMULATOR_PTX_H_
#define LAMINA_KERNELS_CUDA_EMULATOR_PTX_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/core/element.h"
#include "kernels/cuda/emulator/functions.h"

namespace lamina::cuda {

inline void AwaitEarlierKernels() { emulator::Block::Current().AwaitEarlierKernels(); }

inline void CopyAsync16(void* shared, const void* global, bool valid) {
  emulator::Block::RequireAligned(shared, 16);
  if (valid) emulator::Block::RequireAligned(global, 16);
  emulator::Block::Current().IssueCopy([=] {
    if (valid) {
      std::memcpy(shared, global, 16);
    } else {
      std::memset(shared, 0, 16);
    }
  });
}
inline void CopyAsyncCommit() { emulator::Block::Current().CommitCopies(); }
template <int kGroupsLeft>
void CopyAsyncWait() {
  emulator::Block::Current().WaitCopies(kGroupsLeft);
}

// Matrix i's eight rows are at the addresses that lanes 8i..8i+7 give.
inline void LoadMatrix4(uint32_t (&r)[4], const void* row) {
  auto& block = emulator::Block::Current();
  const int lane = block.lane();
  emulator::Block::RequireAligned(row, 16);
  const auto rows = block.Exchange(row, "ldmatrix");
  for (int i = 0; i < 4; ++i) {
    std::memcpy(&r[i], static_cast<const std::byte*>(rows[8 * i + lane / 4]) + lane % 4 * 4, 4);
  }
}
inline void LoadMatrix4Transposed(uint32_t (&r)[4], const void* row) {
  auto& block = emulator::Block::Current();
  const int lane = block.lane();
  emulator::Block::RequireAligned(row, 16);
  const auto rows = block.Exchange(row, "ldmatrix.trans");
  for (int i = 0; i < 4; ++i) {
    uint16_t pair[2];
    for (int j = 0; j < 2; ++j) {
      std::memcpy(&pair[j], static_cast<const std::byte*>(rows[8 * i + lane % 4 * 2 + j]) + lane / 4 * 2, 2);
    }
    std::memcpy(&r[i], pair, 4);
  }
}

namespace emulator {

struct MmaOperands {
  uint32_t a[4], b[2];
};

// d += a * b of m16n8 with eight 32-bit words along k; kPerWord(word of a, word of b) gives the products' sum.
template <class Product>
void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const char* what, const Product& product) {
  auto& block = Block::Current();
  const int lane = block.lane();
  const auto lanes = block.Exchange(MmaOperands{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, what);
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
    double sum = d[i];
    for (int word = 0; word < 8; ++word) {
      sum +=
          product(lanes[row % 8 * 4 + word % 4].a[row / 8 + 2 * (word / 4)], lanes[column * 4 + word % 4].b[word / 4]);
    }
    d[i] = static_cast<float>(sum);
  }
}

template <class T>
double ProductOfPairs(uint32_t a, uint32_t b) {
  return static_cast<double>(Widen(T{static_cast<uint16_t>(a)})) * Widen(T{static_cast<uint16_t>(b)}) +
         static_cast<double>(Widen(T{static_cast<uint16_t>(a >> 16)})) * Widen(T{static_cast<uint16_t>(b >> 16)});
}

}  // namespace emulator

inline void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::Mma(d, a, b, "mma.bf16", emulator::ProductOfPairs<Bf16>);
}
inline void MmaF16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::Mma(d, a, b, "mma.f16", emulator::ProductOfPairs<F16>);
}
// The tensor cores do not read the low 13 bits.
inline void MmaTf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::Mma(d, a, b, "mma.tf32", [](uint32_t x, uint32_t y) {
    return static_cast<double>(__uint_as_float(x & 0xffffe000)) * __uint_as_float(y & 0xffffe000);
  });
}

// To nearest, ties away from zero.
inline uint32_t RoundTf32(float x) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffff) >= 0x7f800000) return bits;
  return (bits + 0x1000) & 0xffffe000;
}

inline float ToFloat(Bf16 x) { return Widen(x); }
inline float ToFloat(F16 x) { return Widen(x); }
inline void FromFloat(float x, Bf16& y) { y = NarrowBf16(x); }
inline void FromFloat(float x, F16& y) { y = NarrowF16(x); }
// `low` in the low half.
inline uint32_t PackPair(float low, float high, Bf16) {
  return NarrowBf16(low).bits | static_cast<uint32_t>(NarrowBf16(high).bits) << 16;
}
inline uint32_t PackPair(float low, float high, F16) {
  return NarrowF16(low).bits | static_cast<uint32_t>(NarrowF16(high).bits) << 16;
}

inline float MaxNan(float a, float b) { return std::isnan(a) || std::isnan(b) ? NAN : a > b ? a : b; }
inline float MinNan(float a, float b) { return std::isnan(a) || std::isnan(b) ? NAN : a < b ? a : b; }

inline float FastExp2(float x) { return std::exp2(x); }
inline float FastReciprocal(float x) { return 1.0f / x; }

inline int Opaque(int x) { return x; }

template <class T>
T& SharedMemory() {
  return *reinterpret_cast<T*>(emulator::Block::Current().shared());
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_EMULATOR_PTX_H_
