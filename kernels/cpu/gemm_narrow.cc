// GEMM micro-kernels one vector wide, fp32.
//
// Tall: as gemm.cc, with 14 or 12 rows: 7 sums of one vector wait for each other, 14 do not; and the end of a tile
// costs half as much a row, which a first layer's k of 27 shows (mbv1_stem with two vectors: 199 -> 167 us).
//   AVX-512  14 x 2: 28 sums + 2 of B + 1 of A = 31 of 32
//   AVX2, SSE4  12 + 1 + 1 (+ 1 product where there is no FMA) = 15 of 16
// Gather: C[r, l] = epilogue(bias[l] + sum over taps and p < kc of A[r, tap][index[p][l]] * B[tap, p, l]). k runs over
// kernel rows, p, then the taps of the row, in every tile alike. Where neighbouring rows of A read neighbouring taps
// (stride 1), three taps share each permuted vector: 70 % of the FMA peak, else 45 %, since a permutation and half of
// the FMAs compete for a port (Emerald Rapids, AVX-512, 2026-11-23).
//   AVX-512, AVX2, SSE4  8 sums + 3 of B + 1 index + 1 of A = 13 of 16
#include "kernels/cpu/gemm_narrow.h"

#include <algorithm>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm_narrow.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm_tile-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET <= HWY_AVX3
inline constexpr size_t kTallRows = 14, kTallVectors = 2;
#else
inline constexpr size_t kTallRows = 12, kTallVectors = 1;
#endif
inline constexpr size_t kGatherRows = 8;
static_assert(kTallRows <= kMaxTileRows && kGatherRows <= kMaxTileRows, "the tables of GemmKernel are smaller");

template <size_t kR, size_t kV>
void TallTiles(const GemmTiles& t) {
  const D d;
  const size_t N = hn::Lanes(d);
  const ptrdiff_t row = t.a_row;
  const float* tile_a = t.a;
  for (size_t i = 0; i < t.tiles; ++i, tile_a += t.a_tile) {
    V acc[kR][kV];
    Start(t.out, i, acc);
    const float* HWY_RESTRICT b = t.b;
    for (size_t q = 0; q < t.taps; ++q) {
      const float* HWY_RESTRICT a = tile_a + t.tap[q];
      for (size_t p = 0; p < t.kc; ++p, b += kV * N) {
        V bv[kV];
        Unroll<kV>([&](auto v) LAMINA_INLINE { bv[v] = hn::Load(d, b + v * N); });
        Unroll<kR>([&](auto r) LAMINA_INLINE {
          const V ar = hn::Set(d, a[static_cast<ptrdiff_t>(r) * row + static_cast<ptrdiff_t>(p)]);
          Unroll<kV>([&](auto v) LAMINA_INLINE { acc[r][v] = hn::MulAdd(ar, bv[v], acc[r][v]); });
        });
      }
    }
    Finish(t.out, i, acc);
  }
}

template <size_t kR, size_t kV>
void TallEdge(const GemmEdge& e) {
  const D d;
  const size_t N = hn::Lanes(d);
  V acc[kR][kV];
  Start(e.out, 0, acc);
  const float* HWY_RESTRICT b = e.b;
  const float* const* rows = e.rows;
  for (size_t q = 0; q < e.taps; ++q, rows += kR, b += e.kc * kV * N) {
    if (e.tap_mode[q] == kTapEmpty) continue;
    const bool whole = e.tap_mode[q] == kTapWhole;
    for (size_t p = 0; p < e.kc; ++p) {
      V bv[kV];
      Unroll<kV>([&](auto v) LAMINA_INLINE { bv[v] = hn::Load(d, b + (p * kV + v) * N); });
      Unroll<kR>([&](auto r) LAMINA_INLINE {
        if (!whole && rows[r] == nullptr) return;
        const V ar = hn::Set(d, rows[r][p]);
        Unroll<kV>([&](auto v) LAMINA_INLINE { acc[r][v] = hn::MulAdd(ar, bv[v], acc[r][v]); });
      });
    }
  }
  Finish(e.out, 0, acc);
}

// The channels of one pixel, one for each lane.
HWY_INLINE V GatherLanes(const float* HWY_RESTRICT a, size_t floats, const int32_t* HWY_RESTRICT index) {
  const D d;
  return hn::TableLookupLanes(LoadUpTo(d, a, floats), hn::SetTableIndices(d, index));
}

// One kernel row of three taps, whose pixels are those of the rows: tap j of row r is row r + j.
template <size_t kR>
HWY_INLINE void GatherShared(const float* HWY_RESTRICT a, ptrdiff_t row, const LaneGather& g, size_t kc,
                             const float* HWY_RESTRICT b, V (&acc)[kR][1]) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t p = 0; p < kc; ++p, b += 3 * N) {
    const V b0 = hn::Load(d, b), b1 = hn::Load(d, b + N), b2 = hn::Load(d, b + 2 * N);
    Unroll<kR + 2>([&](auto i) LAMINA_INLINE {
      const V x = GatherLanes(a + static_cast<ptrdiff_t>(i) * row, g.floats, g.index + p * N);
      if constexpr (i < kR) acc[i][0] = hn::MulAdd(x, b0, acc[i][0]);
      if constexpr (i >= 1 && i < kR + 1) acc[i - 1][0] = hn::MulAdd(x, b1, acc[i - 1][0]);
      if constexpr (i >= 2) acc[i - 2][0] = hn::MulAdd(x, b2, acc[i - 2][0]);
    });
  }
}

template <size_t kR>
void GatherTiles(const GemmTiles& t) {
  const D d;
  const size_t N = hn::Lanes(d);
  const LaneGather& g = *t.gather;
  const bool shared = g.kw == 3 && t.taps >= 3 && t.tap[1] - t.tap[0] == t.a_row;
  const float* tile_a = t.a;
  for (size_t i = 0; i < t.tiles; ++i, tile_a += t.a_tile) {
    V acc[kR][1];
    Start(t.out, i, acc);
    const float* HWY_RESTRICT b = t.b;
    for (size_t q = 0; q < t.taps; q += g.kw) {
      if (shared) {
        GatherShared(tile_a + t.tap[q], t.a_row, g, t.kc, b, acc);
        b += t.kc * 3 * N;
        continue;
      }
      for (size_t p = 0; p < t.kc; ++p) {
        for (size_t j = 0; j < g.kw; ++j, b += N) {
          const float* a = tile_a + t.tap[q + j];
          const V bv = hn::Load(d, b);
          Unroll<kR>([&](auto r) LAMINA_INLINE {
            const V x = GatherLanes(a + static_cast<ptrdiff_t>(r) * t.a_row, g.floats, g.index + p * N);
            acc[r][0] = hn::MulAdd(x, bv, acc[r][0]);
          });
        }
      }
    }
    Finish(t.out, i, acc);
  }
}

template <size_t kR>
void GatherEdge(const GemmEdge& e) {
  const D d;
  const size_t N = hn::Lanes(d);
  const LaneGather& g = *e.gather;
  V acc[kR][1];
  Start(e.out, 0, acc);
  const float* HWY_RESTRICT b = e.b;
  for (size_t q = 0; q < e.taps; q += g.kw) {
    for (size_t p = 0; p < e.kc; ++p) {
      for (size_t j = 0; j < g.kw; ++j, b += N) {
        if (e.tap_mode[q + j] == kTapEmpty) continue;
        const float* const* rows = e.rows + (q + j) * kR;
        const V bv = hn::Load(d, b);
        if (e.tap_mode[q + j] == kTapWhole) {
          Unroll<kR>([&](auto r) LAMINA_INLINE {
            acc[r][0] = hn::MulAdd(GatherLanes(rows[r], g.floats, g.index + p * N), bv, acc[r][0]);
          });
          continue;
        }
        Unroll<kR>([&](auto r) LAMINA_INLINE {
          if (rows[r] == nullptr) return;
          acc[r][0] = hn::MulAdd(GatherLanes(rows[r], g.floats, g.index + p * N), bv, acc[r][0]);
        });
      }
    }
  }
  Finish(e.out, 0, acc);
}

template <size_t kV, size_t... kI>
constexpr void AddTall(GemmKernel& kernel, std::index_sequence<kI...>) {
  ((kernel.tiles[kI + 1][kV] = &TallTiles<kI + 1, kV>, kernel.edge[kI + 1][kV] = &TallEdge<kI + 1, kV>), ...);
}
template <size_t... kV>
constexpr GemmKernel MakeTall(std::index_sequence<kV...>) {
  GemmKernel kernel = {hn::MaxLanes(D()), kTallRows, kTallVectors, {}, {}, nullptr, 2};
  (AddTall<kV + 1>(kernel, std::make_index_sequence<kTallRows>()), ...);
  AddDots(kernel, std::make_index_sequence<kTallRows>());
  return kernel;
}
template <size_t... kI>
constexpr GemmKernel MakeGather(std::index_sequence<kI...>) {
  GemmKernel kernel = {hn::MaxLanes(D()), kGatherRows, 1, {}, {}, nullptr, 2};
  ((kernel.tiles[kI + 1][1] = &GatherTiles<kI + 1>, kernel.edge[kI + 1][1] = &GatherEdge<kI + 1>), ...);
  return kernel;
}

}  // namespace

const GemmKernel* ChooseTall() {
  static constexpr GemmKernel kKernel = MakeTall(std::make_index_sequence<kTallVectors>());
  return &kKernel;
}
const GemmKernel* ChooseGather() {
  static constexpr GemmKernel kKernel = MakeGather(std::make_index_sequence<kGatherRows>());
  return &kKernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {

HWY_EXPORT(ChooseTall);
HWY_EXPORT(ChooseGather);
const GemmKernel& GetTallKernel(Isa isa) {
  const GemmKernel& kernel = GetGemmKernel(isa);
  return kernel.fmas_per_cycle == 1 ? kernel : *LAMINA_DISPATCH(ChooseTall, isa)();
}
const GemmKernel& GetGatherKernel(Isa isa) { return *LAMINA_DISPATCH(ChooseGather, isa)(); }

}  // namespace lamina::cpu
#endif
