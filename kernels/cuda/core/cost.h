// What a kernel will take, for choosing among candidates: the larger of arithmetic and memory traffic over what the
// device offers, plus a launch. Figures per multiprocessor and clock: NVIDIA's tables for 8.0, 8.6, 8.9 and 9.0
// (CUDA C++ Programming Guide, "Arithmetic Instructions"; A100 and H100 white papers).
#ifndef LAMINA_KERNELS_CUDA_CORE_COST_H_
#define LAMINA_KERNELS_CUDA_CORE_COST_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/core/gemm.h"

namespace lamina::cuda {

inline constexpr double kLaunchNs = 2500;

// What a multiprocessor has of L2 while all of them read, in a clock: half of what its port is made for, which is about
// what has been measured of an H100 (5.6 TB/s; Chips and Cheese, 2023).
inline constexpr int kL2BytesPerClock = 32;

// Floating-point operations per multiprocessor and clock that mma.sync (or fused multiply-adds) reach, about: on an
// H100 40 % of what wgmma is made for (FlashAttention-2; Shah et al., "FlashAttention-3", 2024).
constexpr double PortableFlopsPerClock(int capability, Math math) {
  if (math == Math::kF32) return capability == 80 ? 128 : 256;
  const bool large = capability == 80 || capability >= 90;  // data-centre chips
  const double half = capability >= 90 ? 1700 : large ? 1800 : 900;
  switch (math) {
    case Math::kTf32: return half / 2;
    case Math::kTf32x3: return half / 6;
    default: return half;
  }
}

// The same of wgmma: what it reaches where it is fed, of 4096 for 16-bit elements, half of it for TF32.
constexpr double WgmmaFlopsPerClock(Math math) {
  switch (math) {
    case Math::kTf32: return 1650;
    case Math::kTf32x3: return 550;
    default: return 3300;
  }
}

struct DeviceFigures {
  double multiprocessors, clock_hz, bytes_per_second;
};

// `blocks` equal blocks of `flops` in all, `per_multiprocessor` of them at a time on each.
constexpr double PredictNs(const DeviceFigures& d, double flops, double flops_per_clock, double bytes, double blocks,
                           double per_multiprocessor) {
  const double slots = d.multiprocessors * per_multiprocessor;
  const auto waves = static_cast<double>(DivUp(static_cast<int64_t>(blocks), static_cast<int64_t>(slots)));
  const double filled = blocks > 0 ? blocks / (waves * slots) : 1;
  const double arithmetic = flops / (flops_per_clock * d.multiprocessors * d.clock_hz * filled);
  return kLaunchNs + 1e9 * std::max(arithmetic, bytes / d.bytes_per_second);
}

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_COST_H_
