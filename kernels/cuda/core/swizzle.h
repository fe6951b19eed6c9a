// Where 16-byte chunks of a tile lie in shared memory, so that the eight rows that one ldmatrix (or the lanes of one
// 16-byte load) touch fall on 32 different banks.
#ifndef LAMINA_KERNELS_CUDA_CORE_SWIZZLE_H_
#define LAMINA_KERNELS_CUDA_CORE_SWIZZLE_H_

#include <cstdint>

#include "kernels/cuda/core/host_device.h"

namespace lamina::cuda {

inline constexpr int kChunkBytes = 16;

// Byte offset of chunk `chunk` of row `row` in a tile with rows of 64 bytes (4 chunks): two rows make a line of banks,
// so the chunk moves with row / 2.
LAMINA_HD int Swizzle64(int row, int chunk) { return row * 64 + ((chunk ^ ((row >> 1) & 3)) * kChunkBytes); }

// Rows of 128 bytes (8 chunks) make a line each; the chunk moves with the row. TMA's SWIZZLE_128B is this one too.
LAMINA_HD int Swizzle128(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) * kChunkBytes); }

// Rows of `kRowBytes`, a multiple of 128: as Swizzle128 within every 128 bytes of the row.
template <int kRowBytes>
LAMINA_HD int SwizzleWide(int row, int chunk) {
  static_assert(kRowBytes % 128 == 0);
  return row * kRowBytes + (chunk & ~7) * kChunkBytes + (((chunk & 7) ^ (row & 7)) * kChunkBytes);
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_SWIZZLE_H_
