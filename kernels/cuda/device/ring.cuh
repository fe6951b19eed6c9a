// A ring of stages in shared memory between one thread that fills them by TMA and warpgroups that read them.
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

  // By one thread, before a __syncthreads. `readers` let go of each stage.
  __device__ __forceinline__ void Init(int readers) {
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(&barriers_.full[i], 1);
      InitBarrier(&barriers_.empty[i], readers);
    }
    FenceBarrierInit();
  }

  // The writer: waits until the stage is empty, announces its bytes, and gives the barrier that the loads must name.
  __device__ __forceinline__ uint64_t* Fill(const Position& at, int bytes) {
    WaitBarrier(&barriers_.empty[at.stage], at.phase ^ 1);
    ArriveExpecting(&barriers_.full[at.stage], bytes);
    return &barriers_.full[at.stage];
  }
  // A reader: waits for the bytes; one thread lets go for all that have read.
  __device__ __forceinline__ void AwaitFull(const Position& at) { WaitBarrier(&barriers_.full[at.stage], at.phase); }
  __device__ __forceinline__ void Release(const Position& at) { Arrive(&barriers_.empty[at.stage]); }

 private:
  Barriers& barriers_;
};

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_DEVICE_RING_CUH_
