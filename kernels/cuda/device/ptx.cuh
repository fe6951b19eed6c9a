// Machine instructions that CUDA C++ has no word for, each as one function. What is not NVIDIA's compiler gets the
// emulator's (kernels/cuda/emulator/), in which tests run the same kernels on the CPU.
#ifndef LAMINA_KERNELS_CUDA_DEVICE_PTX_CUH_
#define LAMINA_KERNELS_CUDA_DEVICE_PTX_CUH_

#ifndef __CUDACC__
#include "kernels/cuda/emulator/ptx.h"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/core/element.h"

namespace lamina::cuda {

__device__ __forceinline__ uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Programmatic dependent launch (compute capability 9.0; elsewhere kernels follow each other whole): blocks of a kernel
// may start while earlier kernels of its stream are at their end, and wait here until those are over and what they
// wrote can be read. The next kernel's blocks may from here on do the same. The first thing that every thread of every
// kernel does: a kernel that did not wait could end, and let the next one read, before an earlier one has written.
__device__ __forceinline__ void AwaitEarlierKernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// cp.async: 16 bytes from global to shared memory, both aligned to 16; zeros where not `valid` (the address is then not
// read, but must be some address).
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)), "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CopyAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `kGroupsLeft` of the calling thread's committed groups are under way.
template <int kGroupsLeft>
__device__ __forceinline__ void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
}

// ldmatrix: four 8 x 16-byte matrices; matrix i's rows are at the addresses that lanes 8i..8i+7 give (aligned to 16).
// Lane l gets word l % 4 of row l / 4 of each.
__device__ __forceinline__ void LoadMatrix4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
// The same of 8 x 8 matrices of 16-bit elements, each transposed.
__device__ __forceinline__ void LoadMatrix4Transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}

// d[16, 8] += a[16, k] * b[k, 8] with 32 bytes along k: 16 elements of 16 bits, 8 of TF32 (whose low 13 bits are not
// read). Which lane holds what: core/fragment.h.
#define LAMINA_MMA(Name, shape, types)                                                               \
  __device__ __forceinline__ void Name(float(&d)[4], const uint32_t(&a)[4], const uint32_t(&b)[2]) { \
    asm volatile("mma.sync.aligned." shape ".row.col." types                                         \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                  \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                    \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                \
  }
LAMINA_MMA(MmaBf16, "m16n8k16", "f32.bf16.bf16.f32")
LAMINA_MMA(MmaF16, "m16n8k16", "f32.f16.f16.f32")
LAMINA_MMA(MmaTf32, "m16n8k8", "f32.tf32.tf32.f32")
#undef LAMINA_MMA

// To nearest, ties away from zero.
__device__ __forceinline__ uint32_t RoundTf32(float x) {
  uint32_t y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float ToFloat(Bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ __forceinline__ float ToFloat(F16 x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ __forceinline__ void FromFloat(float x, Bf16& y) { y.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
__device__ __forceinline__ void FromFloat(float x, F16& y) { y.bits = __half_as_ushort(__float2half_rn(x)); }
// `low` in the low half.
__device__ __forceinline__ uint32_t PackPair(float low, float high, Bf16) {
  uint32_t y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
__device__ __forceinline__ uint32_t PackPair(float low, float high, F16) {
  uint32_t y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}

// The larger and the smaller; NaN where either is.
__device__ __forceinline__ float MaxNan(float a, float b) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}
__device__ __forceinline__ float MinNan(float a, float b) {
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}

// 2^x to about 2 units in the last place; results below 2^-126 become 0.
__device__ __forceinline__ float FastExp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// 1 / x to 1 unit in the last place; subnormal numbers count as 0.
__device__ __forceinline__ float FastReciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// x, of which the compiler knows nothing: what follows from it is computed where it is used, and not before a loop, to
// lie in registers throughout.
__device__ __forceinline__ int Opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// The block's dynamic shared memory, which begins at a multiple of 1024 bytes.
template <class T>
__device__ __forceinline__ T& SharedMemory() {
  extern __shared__ __align__(1024) unsigned char lamina_shared_memory[];
  return *reinterpret_cast<T*>(lamina_shared_memory);
}

}  // namespace lamina::cuda

#endif  // __CUDACC__
#endif  // LAMINA_KERNELS_CUDA_DEVICE_PTX_CUH_
