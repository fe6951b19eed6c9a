// The functions of CUDA C++ that kernels call, on the emulated block. Collectives of a warp want all of its lanes.
#ifndef LAMINA_KERNELS_CUDA_EMULATOR_FUNCTIONS_H_
#define LAMINA_KERNELS_CUDA_EMULATOR_FUNCTIONS_H_

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/cuda/emulator/block.h"

inline void __syncthreads() { lamina::cuda::emulator::Block::Current().SyncThreads(); }
inline void __syncwarp() { lamina::cuda::emulator::Block::Current().Exchange(0, "__syncwarp"); }

template <class T>
T __shfl_sync(uint32_t, T value, int lane) {
  return lamina::cuda::emulator::Block::Current().Exchange(value, "__shfl_sync")[lane % 32];
}
template <class T>
T __shfl_xor_sync(uint32_t, T value, int mask) {
  auto& block = lamina::cuda::emulator::Block::Current();
  return block.Exchange(value, "__shfl_xor_sync")[block.lane() ^ mask];
}
inline uint32_t __ballot_sync(uint32_t, int predicate) {
  const auto lanes = lamina::cuda::emulator::Block::Current().Exchange(predicate, "__ballot_sync");
  uint32_t bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= static_cast<uint32_t>(lanes[lane] != 0) << lane;
  return bits;
}
inline bool __any_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }

using std::max;
using std::min;

#endif  // LAMINA_KERNELS_CUDA_EMULATOR_FUNCTIONS_H_
