// A ring of stages in shared memory between those who fill them, one thread of them by TMA, and those who read them.
#ifndef LAMINA_KERNELS_CUDA_DEVICE_RING_CUH_
#define LAMINA_KERNELS_CUDA_DEVICE_RING_CUH_

#include "kernels/cuda/core/schedule.h"
#include "kernels/cuda/device/hopper.cuh"

namespace lamina::cuda {

template <int kStages>
class Ring {
 public:
  using Position = RingPosition<kStages>;
  using Barriers = RingBarriers<kStages>;

  __device__ __forceinline__ explicit Ring(Barriers& barriers) : barriers_(barriers) {}

  // By one thread, before a __syncthreads. `readers` let go of each stage; it is full when the thread that loads and
  // `writers` that store have said so, and the bytes are there.
  __device__ __forceinline__ void Init(int readers, int writers = 0) {
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(&barriers_.full[i], 1 + writers);
      InitBarrier(&barriers_.empty[i], readers);
    }
    FenceBarrierInit();
  }

  // The thread that loads: waits until the stage is empty, announces its bytes, and gives the barrier that the loads
  // must name.
  __device__ __forceinline__ uint64_t* Fill(const Position& at, int bytes) {
    AwaitEmpty(at);
    ArriveExpecting(&barriers_.full[at.stage], bytes);
    return &barriers_.full[at.stage];
  }
  // A writer: waits until the stage is empty; says that it has stored its part.
  __device__ __forceinline__ void AwaitEmpty(const Position& at) {
    WaitBarrier(&barriers_.empty[at.stage], at.phase ^ 1);
  }
  __device__ __forceinline__ void HaveStored(const Position& at) { Arrive(&barriers_.full[at.stage]); }
  // A reader: waits for the bytes; one thread lets go for all that have read.
  __device__ __forceinline__ void AwaitFull(const Position& at) { WaitBarrier(&barriers_.full[at.stage], at.phase); }
  __device__ __forceinline__ void Release(const Position& at) { Arrive(&barriers_.empty[at.stage]); }

 private:
  Barriers& barriers_;
};

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_DEVICE_RING_CUH_
