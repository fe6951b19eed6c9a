// How wgmma finds an operand in shared memory: the 64-bit matrix descriptor and the layouts it can describe. PTX ISA
// 9.0, section 9.7.16.5 ("Asynchronous Warpgroup Level Matrix Shared Memory Layout", "Matrix Descriptor Format").
// Bytes of k (or of m and n) lie in rows of the swizzle's span; eight rows make an atom, repeated at the strides.
#ifndef LAMINA_KERNELS_CUDA_CORE_DESCRIPTOR_H_
#define LAMINA_KERNELS_CUDA_CORE_DESCRIPTOR_H_

#include <cstdint>

#include "kernels/cuda/core/host_device.h"

namespace lamina::cuda {

// The descriptor's code for the exchange of 16-byte chunks within every eight rows.
enum class Swizzle : uint32_t { kNone = 0, k128 = 1, k64 = 2, k32 = 3 };

LAMINA_HD int SpanBytes(Swizzle s) { return s == Swizzle::kNone ? 16 : 256 >> static_cast<int>(s); }

// Where TMA puts, and wgmma looks for, the byte that without a swizzle would be at `address` of shared memory: bits 4
// to 6 are exchanged by bits 7 to 9, as many of them as the span has chunks.
LAMINA_HD uint32_t Swizzled(uint32_t address, Swizzle s) {
  const auto chunks = static_cast<uint32_t>(SpanBytes(s) / 16);
  return address ^ ((address >> 7 & (chunks - 1)) << 4);
}

// Which index of an operand neighbours in memory: k, or the row of a (column of b).
enum class Major { kK, kMn };

// Of a K-major operand: `stride_bytes` from one eight rows to the next; `leading_bytes` counts only without a swizzle,
// from one 16 bytes of k to the next. Of an MN-major one: `leading_bytes` from one span of rows to the next,
// `stride_bytes` from one eight of k to the next.
struct MatrixDescriptor {
  uint32_t address = 0, leading_bytes = 0, stride_bytes = 0;  // multiples of 16, below 2^18
  Swizzle swizzle = Swizzle::k128;
};

LAMINA_HD uint64_t Pack(const MatrixDescriptor& d) {
  const auto field = [](uint32_t bytes) { return static_cast<uint64_t>(bytes >> 4 & 0x3fff); };
  return field(d.address) | field(d.leading_bytes) << 16 | field(d.stride_bytes) << 32 |
         static_cast<uint64_t>(d.swizzle) << 62;
}
LAMINA_HD MatrixDescriptor Unpack(uint64_t bits) {
  const auto bytes = [](uint64_t field) { return static_cast<uint32_t>(field & 0x3fff) << 4; };
  return {bytes(bits), bytes(bits >> 16), bytes(bits >> 32), static_cast<Swizzle>(bits >> 62)};
}

// Rows of 128 swizzled bytes of k, as one TMA box leaves them at a multiple of 1024.
LAMINA_HD uint64_t KMajor128(uint32_t address) { return Pack({address, 16, 1024, Swizzle::k128}); }

// The same operand `bytes` (a multiple of 16) further on: 32 for the next step of k within a swizzled row.
LAMINA_HD uint64_t Step(uint64_t descriptor, int bytes) { return descriptor + static_cast<uint64_t>(bytes >> 4); }

// Address of an element: `row` of a (column of b), `k`, elements of `element` bytes.
LAMINA_HD uint32_t OperandAddress(const MatrixDescriptor& d, Major major, int row, int k, int element) {
  const int span = SpanBytes(d.swizzle);
  const bool k_major = major == Major::kK;
  const int byte = (k_major ? k : row) * element, line = k_major ? row : k;  // along a span, and across
  const auto atom = static_cast<uint32_t>(byte / span), eight = static_cast<uint32_t>(line / 8);
  const auto within = static_cast<uint32_t>(line % 8 * span + byte % span);
  return Swizzled(d.address + atom * d.leading_bytes + eight * d.stride_bytes + within, d.swizzle);
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_DESCRIPTOR_H_
