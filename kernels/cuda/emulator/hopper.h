// The instructions of device/hopper.cuh on the emulated block, from the PTX ISA's description.
#ifndef LAMINA_KERNELS_CUDA_EMULATOR_HOPPER_H_
#define LAMINA_KERNELS_CUDA_EMULATOR_HOPPER_H_

#include <cstdint>

#include "kernels/cuda/core/descriptor.h"
#include "kernels/cuda/emulator/mbarrier.h"
#include "kernels/cuda/emulator/ptx.h"
#include "kernels/cuda/emulator/tma.h"

namespace lamina::cuda {

inline uint32_t SharedAddress(const void* shared) { return emulator::Block::Current().SharedAddress(shared); }

inline bool ElectOne() {
  auto& block = emulator::Block::Current();
  block.Exchange(0, "elect.sync");
  return block.lane() == 0;
}

template <int kCount>
void DecreaseRegisters() {
  static_assert(kCount % 8 == 0 && kCount >= 24 && kCount <= 256);
  emulator::Block::Current().SetRegisters(kCount, false);
}
template <int kCount>
void IncreaseRegisters() {
  static_assert(kCount % 8 == 0 && kCount >= 24 && kCount <= 256);
  emulator::Block::Current().SetRegisters(kCount, true);
}

inline void InitBarrier(uint64_t* barrier, int arrivals) {
  emulator::Mbarrier::Init(barrier, arrivals);
  emulator::Block::Current().set_barriers_unfenced(true);
}
inline void FenceBarrierInit() { emulator::Block::Current().set_barriers_unfenced(false); }
inline void Arrive(uint64_t* barrier) { emulator::Mbarrier(barrier).Arrive(); }
inline void ArriveExpecting(uint64_t* barrier, int bytes) { emulator::Mbarrier(barrier).ArriveExpecting(bytes); }
inline void WaitBarrier(uint64_t* barrier, uint32_t parity) {
  while (!emulator::Mbarrier(barrier).Passed(parity)) {
    emulator::Block::Current().WaitForChange(*barrier, *barrier, "mbarrier.try_wait");
  }
}

inline void PrefetchMap(const TensorMap&) {}
inline void LoadTile(void* shared, const TensorMap& map, uint64_t* barrier, int c0, int c1) {
  emulator::LoadTile(shared, map, barrier, 2, {c0, c1});
}
inline void LoadTile(void* shared, const TensorMap& map, uint64_t* barrier, int c0, int c1, int c2) {
  emulator::LoadTile(shared, map, barrier, 3, {c0, c1, c2});
}
inline void LoadTile(void* shared, const TensorMap& map, uint64_t* barrier, int c0, int c1, int c2, int c3) {
  emulator::LoadTile(shared, map, barrier, 4, {c0, c1, c2, c3});
}
inline void LoadIm2col(void* shared, const TensorMap& map, uint64_t* barrier, int c, int w, int h, int n, int tap_w,
                       int tap_h) {
  emulator::LoadIm2col(shared, map, barrier, {c, w, h, n}, {tap_w, tap_h});
}

inline void FenceSharedStores() { emulator::Block::Current().FenceProxies(); }
inline void SyncNamed(int id, int threads) { emulator::Block::Current().SyncNamed(id, threads); }

inline void WgmmaFence() { emulator::Block::Current().FenceWgmma(); }
inline void WgmmaCommit() { emulator::Block::Current().CommitWgmma(); }
template <int kGroupsLeft>
void WgmmaWait() {
  emulator::Block::Current().WaitWgmma(kGroupsLeft);
}
template <class T, int kCount>
void Pin(T (&)[kCount]) {}
template <Math kMath, int kN, Major kMajorB = Major::kK>
void Wgmma(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(kMajorB == Major::kK || kMath != Math::kTf32, "TF32 operands are K-major");
  emulator::Block::Current().IssueWgmma({kMath, kN, a, b, kMajorB, accumulate}, d, nullptr);
}
template <Math kMath, int kN, Major kMajorB = Major::kK>
void Wgmma(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  static_assert(kMajorB == Major::kK || kMath != Math::kTf32, "TF32 operands are K-major");
  emulator::Block::Current().IssueWgmma({kMath, kN, emulator::kInRegisters, b, kMajorB, accumulate}, d, a);
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_EMULATOR_HOPPER_H_
