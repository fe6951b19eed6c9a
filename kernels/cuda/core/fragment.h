// Which element of a tile each lane's registers hold, for the matrix instructions. PTX ISA 9.0, section 9.7.15
// ("Matrix fragments for mma.m16n8k16" and "... m16n8k8"); lane / 4 is the ISA's groupID, lane % 4 its
// threadID_in_group.
#ifndef LAMINA_KERNELS_CUDA_CORE_FRAGMENT_H_
#define LAMINA_KERNELS_CUDA_CORE_FRAGMENT_H_

#include "kernels/cuda/core/host_device.h"

namespace lamina::cuda {

struct Position {
  int row, column;
};

// Accumulators of m16n8: register 0..3 of a lane.
LAMINA_HD Position AccumulatorPosition(int lane, int reg) { return {lane / 4 + 8 * (reg / 2), lane % 4 * 2 + reg % 2}; }

// A of m16n8k16 (16-bit elements, two to a register) and of m16n8k8 (TF32, one to a register): the 32-bit word of
// register 0..3, words counted along k.
LAMINA_HD Position APosition(int lane, int reg) { return {lane / 4 + 8 * (reg % 2), lane % 4 + 4 * (reg / 2)}; }

// B: the word along k (row) and the column of register 0..1.
LAMINA_HD Position BPosition(int lane, int reg) { return {lane % 4 + 4 * reg, lane / 4}; }

// Accumulators of wgmma m64nN: register 0..N/2-1 of a thread of the warpgroup; warp w has the rows from 16 w on.
LAMINA_HD Position WgmmaPosition(int thread, int reg) {
  const Position p = AccumulatorPosition(thread % 32, reg % 4);
  return {16 * (thread / 32) + p.row, 8 * (reg / 4) + p.column};
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_FRAGMENT_H_
