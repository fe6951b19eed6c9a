// Instructions of sm_90a: asynchronous copies of tensors (TMA), barriers in shared memory that count their bytes, and
// products of four warps (wgmma). PTX ISA 9.0, sections 9.7.9.27, 9.7.13.15, 9.7.16. What is not NVIDIA's compiler gets
// the emulator's.
#ifndef LAMINA_KERNELS_CUDA_DEVICE_HOPPER_CUH_
#define LAMINA_KERNELS_CUDA_DEVICE_HOPPER_CUH_

#ifndef __CUDACC__
#include "kernels/cuda/emulator/hopper.h"
#else

#include <cstdint>

#include "kernels/cuda/core/descriptor.h"
#include "kernels/cuda/core/tensor_map.h"
#include "kernels/cuda/device/ptx.cuh"

namespace lamina::cuda {

// True in one lane of a warp, all of which must call it.
__device__ __forceinline__ bool ElectOne() {
  uint32_t elected;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}\n"
      : "=r"(elected));
  return elected != 0;
}

// Registers per thread of a warpgroup, all of whose warps must call it: given to, or taken from, the block's others.
template <int kCount>
__device__ __forceinline__ void DecreaseRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void IncreaseRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

// mbarriers. A phase ends after `arrivals` arrivals and all bytes that were announced with them.
__device__ __forceinline__ void InitBarrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals) : "memory");
}
// Makes the inits known to TMA; other threads need a __syncthreads beside it.
__device__ __forceinline__ void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void Arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}
__device__ __forceinline__ void ArriveExpecting(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(bytes)
               : "memory");
}
// Until the phase of this parity is over; the phase before the first has parity 1. A wait that nobody ends is an error
// of the launch, not a device that hangs: try_wait itself waits a while, so the bound is many seconds.
__device__ __forceinline__ void WaitBarrier(uint64_t* barrier, uint32_t parity) {
  const uint32_t address = SharedAddress(barrier);
  for (uint32_t tries = 0;; ++tries) {
    uint32_t passed;
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}\n"
        : "=r"(passed)
        : "r"(address), "r"(parity)
        : "memory");
    if (passed != 0) return;
    if (tries == 1u << 24) __trap();
  }
}

// TMA. The map is a kernel's __grid_constant__; coordinates count elements, the fastest dimension first. Whatever lies
// outside the tensor is zero, and the barrier hears of the whole box.
__device__ __forceinline__ void PrefetchMap(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
__device__ __forceinline__ void LoadTile(void* shared, const TensorMap& map, uint64_t* barrier, int c0, int c1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::
          "r"(SharedAddress(shared)),
      "l"(&map), "r"(c0), "r"(c1), "r"(SharedAddress(barrier))
      : "memory");
}
__device__ __forceinline__ void LoadTile(void* shared, const TensorMap& map, uint64_t* barrier, int c0, int c1,
                                         int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(SharedAddress(shared)),
      "l"(&map), "r"(c0), "r"(c1), "r"(c2), "r"(SharedAddress(barrier))
      : "memory");
}
__device__ __forceinline__ void LoadTile(void* shared, const TensorMap& map, uint64_t* barrier, int c0, int c1, int c2,
                                         int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(SharedAddress(shared)),
      "l"(&map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(SharedAddress(barrier))
      : "memory");
}
// From the window's origin at pixel w, h of image n on; the tap's offsets are added to every pixel's.
__device__ __forceinline__ void LoadIm2col(void* shared, const TensorMap& map, uint64_t* barrier, int c, int w, int h,
                                           int n, int tap_w, int tap_h) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4, %5}], [%6], {%7, %8};" ::"r"(SharedAddress(shared)),
      "l"(&map), "r"(c), "r"(w), "r"(h), "r"(n), "r"(SharedAddress(barrier)), "h"(static_cast<uint16_t>(tap_w)),
      "h"(static_cast<uint16_t>(tap_h))
      : "memory");
}

// Makes a thread's own stores to shared memory known to wgmma and TMA; other threads' need a barrier behind it, too.
__device__ __forceinline__ void FenceSharedStores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Barrier `id`, 1 to 15, of `threads` threads in whole warps.
__device__ __forceinline__ void SyncNamed(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// wgmma. Fence: before the first product after other code has touched the sums. Wait: until at most `kGroupsLeft`
// committed groups are under way; until then nothing may touch the sums, nor what is read from registers.
__device__ __forceinline__ void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kGroupsLeft>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroupsLeft) : "memory");
}
// Keeps code that computes or reads these registers on its side: the compiler sees no order between it and the fences
// and waits of wgmma.
template <int kCount>
__device__ __forceinline__ void Pin(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(x[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void Pin(uint32_t (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(x[i])::"memory");
}

// The sums as operands: eight names, and sixteen eights of numbers.
#define LAMINA_D8(i)                                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define LAMINA_D32(i) LAMINA_D8(i), LAMINA_D8(i + 8), LAMINA_D8(i + 16), LAMINA_D8(i + 24)
#define LAMINA_D64(i) LAMINA_D32(i), LAMINA_D32(i + 32)
#define LAMINA_D128(i) LAMINA_D64(i), LAMINA_D64(i + 64)
#define LAMINA_R32                                                       \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LAMINA_R64                                                                   \
  LAMINA_R32                                                                         \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LAMINA_R128                                                                              \
  LAMINA_R64                                                                                     \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"             \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"             \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// Operands in their order: kN / 2 sums, a (one descriptor, or four words of registers), b, whether to add to what the
// sums hold; `..._at` are their numbers. The immediates are the signs of a and b and, of 16-bit elements that have a
// descriptor, whether they are MN-major.
// clang-format off
#define LAMINA_WGMMA(n, sums, a_text, b_at, flag_at, k, types, immediates, ...) \
  asm volatile(                                                                 \
      "{\n"                                                                     \
      ".reg .pred p;\n"                                                         \
      "setp.ne.b32 p, %" flag_at ", 0;\n"                                       \
      "wgmma.mma_async.sync.aligned.m64n" #n k ".f32." types                    \
      " {" LAMINA_R##sums "}, " a_text ", %" b_at ", p, " immediates ";\n"      \
      "}\n"                                                                     \
      : LAMINA_D##sums(0)                                                       \
      : __VA_ARGS__)
// clang-format on
#define LAMINA_WGMMA_TYPES(n, sums, a_text, b_at, flag_at, majors, ...)                                               \
  if constexpr (kMath == Math::kBf16) {                                                                               \
    LAMINA_WGMMA(n, sums, a_text, b_at, flag_at, "k16", "bf16.bf16", "1, 1, " majors, __VA_ARGS__, "n"(kTransposeB)); \
  } else if constexpr (kMath == Math::kF16) {                                                                         \
    LAMINA_WGMMA(n, sums, a_text, b_at, flag_at, "k16", "f16.f16", "1, 1, " majors, __VA_ARGS__, "n"(kTransposeB));   \
  } else {                                                                                                            \
    LAMINA_WGMMA(n, sums, a_text, b_at, flag_at, "k8", "tf32.tf32", "1, 1", __VA_ARGS__);                             \
  }

// d[64, kN] = (accumulate ? d : 0) + a[64, k] * b[k, kN] with 32 bytes of k, operands by descriptor. Which thread holds
// what: core/fragment.h.
template <Math kMath, int kN, Major kMajorB = Major::kK>
__device__ __forceinline__ void Wgmma(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(kN == 64 || kN == 128 || kN == 256);
  static_assert(kMath == Math::kBf16 || kMath == Math::kF16 || kMath == Math::kTf32);
  static_assert(kMajorB == Major::kK || kMath != Math::kTf32, "TF32 operands are K-major");
  [[maybe_unused]] constexpr int kTransposeB = kMajorB == Major::kMn;
#define LAMINA_INPUTS "l"(a), "l"(b), "r"(static_cast<int>(accumulate))
  if constexpr (kN == 64) {
    LAMINA_WGMMA_TYPES(64, 32, "%32", "33", "34", "0, %35", LAMINA_INPUTS)
  } else if constexpr (kN == 128) {
    LAMINA_WGMMA_TYPES(128, 64, "%64", "65", "66", "0, %67", LAMINA_INPUTS)
  } else {
    LAMINA_WGMMA_TYPES(256, 128, "%128", "129", "130", "0, %131", LAMINA_INPUTS)
  }
#undef LAMINA_INPUTS
}

// The same with a in registers, each warp's 16 rows as mma takes them (APosition).
template <Math kMath, int kN, Major kMajorB = Major::kK>
__device__ __forceinline__ void Wgmma(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  static_assert(kN == 64 || kN == 128 || kN == 256);
  static_assert(kMath == Math::kBf16 || kMath == Math::kF16 || kMath == Math::kTf32);
  static_assert(kMajorB == Major::kK || kMath != Math::kTf32, "TF32 operands are K-major");
  [[maybe_unused]] constexpr int kTransposeB = kMajorB == Major::kMn;
#define LAMINA_INPUTS "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate))
  if constexpr (kN == 64) {
    LAMINA_WGMMA_TYPES(64, 32, "{%32, %33, %34, %35}", "36", "37", "%38", LAMINA_INPUTS)
  } else if constexpr (kN == 128) {
    LAMINA_WGMMA_TYPES(128, 64, "{%64, %65, %66, %67}", "68", "69", "%70", LAMINA_INPUTS)
  } else {
    LAMINA_WGMMA_TYPES(256, 128, "{%128, %129, %130, %131}", "132", "133", "%134", LAMINA_INPUTS)
  }
#undef LAMINA_INPUTS
}
#undef LAMINA_WGMMA_TYPES
#undef LAMINA_WGMMA
#undef LAMINA_R128
#undef LAMINA_R64
#undef LAMINA_R32
#undef LAMINA_D128
#undef LAMINA_D64
#undef LAMINA_D32
#undef LAMINA_D8

}  // namespace lamina::cuda

#endif  // __CUDACC__
#endif  // LAMINA_KERNELS_CUDA_DEVICE_HOPPER_CUH_
