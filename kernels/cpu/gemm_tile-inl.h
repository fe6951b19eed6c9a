// How a tile of the GEMM micro-kernels begins and ends: sums from the bias or from partial sums, and residual,
// activation and stores. Read again for every target.
#if defined(LAMINA_KERNELS_CPU_GEMM_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_GEMM_TILE_INL_H_
#undef LAMINA_KERNELS_CPU_GEMM_TILE_INL_H_
#else
#define LAMINA_KERNELS_CPU_GEMM_TILE_INL_H_
#endif

#include <utility>

#include "hwy/highway.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

// The entries for no vectors, columns that are dot products (gemm_dots.cc): tiles whose rows are all evenly spaced, in
// A and in C, and an edge.
void DotTiles(const GemmTiles& t, size_t height);
void DotEdge(const GemmEdge& e, size_t height);

namespace {

// The tiles of gemm.cc and gemm_planes.cc where A is broadcast to a register.
#if HWY_TARGET <= HWY_AVX3
inline constexpr size_t kTileRows = 7, kTileVectors = 4;
#else
inline constexpr size_t kTileRows = 6, kTileVectors = 2;
#endif
static_assert(kTileRows <= kMaxTileRows && kTileVectors <= kMaxTileVectors, "the tables of GemmKernel are smaller");

// acc[v] += a * b[v]; kOperand: with a as a memory operand of each FMA, which compilers do not choose by themselves. It
// hides the load from AddressSanitizer, which therefore sees the plain form.
template <bool kOperand, size_t kV>
[[maybe_unused]] HWY_INLINE void MultiplyRow(const float& a, const V (&b)[kV], V (&acc)[kV]) {
#if HWY_TARGET <= HWY_AVX3 && !HWY_IS_ASAN
  if constexpr (kOperand) {
    Unroll<kV>([&](auto v) LAMINA_INLINE {
      __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(acc[v].raw) : "v"(b[v].raw), "m"(a));
    });
    return;
  }
#endif
  const V av = hn::Set(D(), a);
  Unroll<kV>([&](auto v) LAMINA_INLINE { acc[v] = hn::MulAdd(av, b[v], acc[v]); });
}

// Partial sums of a tile whose last vector is not whole, into `sums` [rows][width].
[[maybe_unused]] HWY_NOINLINE void LoadPartial(const float* HWY_RESTRICT c, ptrdiff_t c_row, size_t columns,
                                               size_t rows, size_t width, float* HWY_RESTRICT sums) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t r = 0; r < rows; ++r, c += c_row, sums += width) {
    for (size_t j = 0; j < columns; j += N) hn::Store(LoadUpTo(d, c + j, columns - j), d, sums + j);
  }
}

// The general end of a tile, for what the registers' own end in Finish leaves: sums [rows][width] -> residual,
// activation, residual -> c. The residual may be c itself, so c is written last.
[[maybe_unused]] HWY_NOINLINE void FinishStored(const GemmOutput& out, size_t tile, size_t rows, size_t width,
                                                float* HWY_RESTRICT sums) {
  const D d;
  const size_t N = hn::Lanes(d);
  static constexpr Epilogue kPartial;
  const Epilogue& e = out.epilogue != nullptr ? *out.epilogue : kPartial;
  const float* residual = nullptr;
  if (e.residual != Residual::kNone) residual = out.residual + static_cast<ptrdiff_t>(tile) * out.residual_tile;
  float* c = out.c + static_cast<ptrdiff_t>(tile) * out.tile;
  const V lo = hn::Set(d, e.lo), hi = hn::Set(d, e.hi);
  if (e.activate != nullptr) {
    if (e.residual == Residual::kBeforeActivation) {
      for (size_t r = 0; r < rows; ++r) {
        for (size_t j = 0; j < out.columns; j += N) {
          const V x = LoadUpTo(d, residual + static_cast<ptrdiff_t>(r) * out.residual_row + j, out.columns - j);
          hn::Store(hn::Add(hn::Load(d, sums + r * width + j), x), d, sums + r * width + j);
        }
      }
    }
    e.activate(e.activation, sums, nullptr, rows * width);
  }
  for (size_t r = 0; r < rows; ++r) {
    for (size_t j = 0; j < out.columns; j += N) {
      V y = hn::Load(d, sums + r * width + j), x = hn::Zero(d);
      if (e.residual != Residual::kNone) {
        x = LoadUpTo(d, residual + static_cast<ptrdiff_t>(r) * out.residual_row + j, out.columns - j);
      }
      if (e.residual == Residual::kBeforeActivation && e.activate == nullptr) y = hn::Add(y, x);
      y = Clamp(lo, hi, y);
      if (e.residual == Residual::kAfterActivation) y = hn::Add(y, x);
      StoreUpTo(y, d, c + static_cast<ptrdiff_t>(r) * out.row + j, out.columns - j);
    }
  }
}

template <size_t kR, size_t kV>
HWY_INLINE void Start(const GemmOutput& out, size_t tile, V (&acc)[kR][kV]) {
  const D d;
  const size_t N = hn::Lanes(d);
  if (!out.accumulate) {
    Unroll<kV>([&](auto v) LAMINA_INLINE { acc[0][v] = hn::LoadU(d, out.bias + v * N); });
    Unroll<kR>([&](auto r) LAMINA_INLINE { Unroll<kV>([&](auto v) LAMINA_INLINE { acc[r][v] = acc[0][v]; }); });
    return;
  }
  const float* c = out.c + static_cast<ptrdiff_t>(tile) * out.tile;
  if (out.columns < kV * N) {
    HWY_ALIGN float sums[kR * kV * hn::MaxLanes(D())] = {};
    LoadPartial(c, out.row, out.columns, kR, kV * N, sums);
    Unroll<kR>([&](auto r) LAMINA_INLINE {
      Unroll<kV>([&](auto v) LAMINA_INLINE { acc[r][v] = hn::Load(d, sums + (r * kV + v) * N); });
    });
    return;
  }
  Unroll<kR>([&](auto r) LAMINA_INLINE {
    Unroll<kV>([&](auto v) LAMINA_INLINE { acc[r][v] = hn::LoadU(d, c + v * N); });
    c += out.row;
  });
}

template <size_t kR, size_t kV>
HWY_INLINE void Finish(const GemmOutput& out, size_t tile, V (&acc)[kR][kV]) {
  const D d;
  const size_t N = hn::Lanes(d);
  const Epilogue* e = out.epilogue;
  if (out.columns < kV * N || (e != nullptr && !e->in_registers())) {
    HWY_ALIGN float sums[kR * kV * hn::MaxLanes(D())];
    Unroll<kR>([&](auto r) LAMINA_INLINE {
      Unroll<kV>([&](auto v) LAMINA_INLINE { hn::Store(acc[r][v], d, sums + (r * kV + v) * N); });
    });
    FinishStored(out, tile, kR, kV * N, sums);
    return;
  }
  float* c = out.c + static_cast<ptrdiff_t>(tile) * out.tile;
  const ptrdiff_t row = out.row;  // a local: the stores to c could change `out`
  // Each sum is stored as soon as it is clamped. All clamps, then all stores in a row took 220 instead of 210 us of a
  // first layer's 27 steps of k (AVX2, Zen 4, 2026-11-26; AVX-512 196 instead of 193).
  const auto store = [&](auto&& finish) LAMINA_INLINE {
    Unroll<kR>([&](auto r) LAMINA_INLINE {
      Unroll<kV>([&](auto v) LAMINA_INLINE { hn::StoreU(finish(acc[r][v]), d, c + v * N); });
      c += row;
    });
  };
  if (e != nullptr && e->clamps()) {
    const V lo = hn::Set(d, e->lo), hi = hn::Set(d, e->hi);
    store([&](V y) LAMINA_INLINE { return Clamp(lo, hi, y); });
  } else {
    store([](V y) LAMINA_INLINE { return y; });
  }
}

template <size_t... kI>
constexpr void AddDots([[maybe_unused]] GemmKernel& kernel, std::index_sequence<kI...>) {
#if HWY_TARGET != HWY_SCALAR
  ((kernel.tiles[kI + 1][0] = [](const GemmTiles& t) { DotTiles(t, kI + 1); }), ...);
  ((kernel.edge[kI + 1][0] = [](const GemmEdge& e) { DotEdge(e, kI + 1); }), ...);
#endif
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
