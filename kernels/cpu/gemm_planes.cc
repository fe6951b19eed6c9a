// GEMM micro-kernels over planes, fp32: C[r, j] = epilogue(bias[r] + sum over p < kc of A[r, p] * b[b_step[p] + j]).
//
// gemm.cc's tiles and budget of registers; a step's vectors of B are loaded from where they lie, aligned or not, each
// for all rows of the tile, so that crossing cache lines costs nothing. With A as memory operands tiles are 7 x 3, 21 +
// 3 of 32 registers (Zen 4, 2026-11-26, least us: 224x224x3 to 32 channels by 3x3 of stride 2, and 112x112x32 to 64 by
// 1x1: 221 and 472; 7 x 2 225 and 479, 7 x 4 220 and 476, 8 x 3 222 and 475, 12 x 2 237 and 506). The 7 x 4 tiles of
// CPUs with two such FMAs a cycle have not been timed. Any number of rows up to the tile's, of columns up to its
// vectors, any kc.
#include "kernels/cpu/gemm_planes.h"

#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm_planes.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm_tile-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

#if HWY_TARGET <= HWY_AVX3
inline constexpr size_t kOperandVectors = 3;  // of tiles with A as a memory operand
#endif

template <bool kOperand, size_t kR, size_t kV>
void PlanesTiles(const GemmTiles& t) {
  const D d;
  const size_t N = hn::Lanes(d), kc = t.kc;
  const ptrdiff_t row = t.a_row;
  const ptrdiff_t* HWY_RESTRICT step = t.b_step;
  const float* HWY_RESTRICT a = t.a;
  const float* bias = t.out.bias;
  for (size_t i = 0; i < t.tiles; ++i, a += t.a_tile, bias += kR) {
    V acc[kR][kV];
    Unroll<kR>([&](auto r) LAMINA_INLINE {
      acc[r][0] = hn::Set(d, bias[r]);
      Unroll<kV>([&](auto v) LAMINA_INLINE { acc[r][v] = acc[r][0]; });
    });
    for (size_t p = 0; p < kc; ++p) {
      const float* HWY_RESTRICT b = t.b + step[p];
      V bv[kV];
      Unroll<kV>([&](auto v) LAMINA_INLINE { bv[v] = InRegister(hn::LoadU(d, b + v * N)); });
      Unroll<kR>([&](auto r) LAMINA_INLINE {
        MultiplyRow<kOperand>(a[static_cast<ptrdiff_t>(r) * row + static_cast<ptrdiff_t>(p)], bv, acc[r]);
      });
    }
    Finish(t.out, i, acc);
  }
}

template <bool kOperand, size_t kR, size_t... kI>
constexpr void AddHeight(GemmKernel& kernel, std::index_sequence<kI...>) {
  ((kernel.tiles[kR][kI + 1] = &PlanesTiles<kOperand, kR, kI + 1>), ...);
}
template <bool kOperand, size_t kV, size_t... kI>
constexpr GemmKernel MakePlanesKernel(std::index_sequence<kI...>) {
  GemmKernel kernel = {hn::MaxLanes(D()), sizeof...(kI), kV, {}, {}, nullptr, kOperand ? 1 : 2};
  (AddHeight<kOperand, kI + 1>(kernel, std::make_index_sequence<kV>()), ...);
  return kernel;
}

const GemmKernel* ChoosePlanes([[maybe_unused]] bool operand) {
  static constexpr GemmKernel kWide = MakePlanesKernel<false, kTileVectors>(std::make_index_sequence<kTileRows>());
#if HWY_TARGET <= HWY_AVX3
  static constexpr GemmKernel kOperand = MakePlanesKernel<true, kOperandVectors>(std::make_index_sequence<kTileRows>());
  if (operand) return &kOperand;
#endif
  return &kWide;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {

HWY_EXPORT(ChoosePlanes);
const GemmKernel& GetPlanesKernel(Isa isa) {
  return *LAMINA_DISPATCH(ChoosePlanes, isa)(GetGemmKernel(isa).fmas_per_cycle == 1);
}
const GemmKernel& GetWidePlanesKernel(Isa isa) { return *LAMINA_DISPATCH(ChoosePlanes, isa)(false); }

}  // namespace lamina::cpu
#endif
