// GEMM micro-kernels, fp32: C[r, j] = epilogue(bias[j] + sum over taps q and p < kc of A[r, q, p] * B[q, p, j]).
//
// A row's float is broadcast and multiplied with the vectors of a packed row of B; the sums of the whole tile stay in
// registers over all of k. One call runs many tiles, so that bias, pointers and code stay where they are.
//
// Registers: rows * vectors sums + vectors of B + 1 of A (+ 1 product where there is no FMA).
//   AVX-512  7 x 4: 28 + 4 + 1 = 33 of 32: one sum lives on the stack, at no cost (98 % of peak)
//            7 x 2 with A as the FMAs' memory operand: 14 + 2 = 16 of 32, 16 loads for 14 FMAs, which only a CPU with
//            one 512-bit FMA a cycle has ports for. On Zen 4 a broadcast that is an instruction of its own costs FMAs
//            (12 FMAs take 12 cycles, with 8 such broadcasts beside them 13.3; 2026-11-26)
//   AVX2     6 x 2: 12 + 2 + 1 = 15 of 16
//   SSE4     6 x 2: 12 + 2 + 1 + 1 = 16 of 16
// Any number of rows up to the tile's, of columns up to the panel's, any k; nothing outside is read or written.
#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gemm_tile-inl.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

inline constexpr size_t kLineFloats = 16;  // of a cache line
#if HWY_TARGET <= HWY_AVX3
inline constexpr size_t kOperandVectors = 2;  // of tiles with A as a memory operand
#endif

// acc[r][v] += sum over p < k of a[r][p] * b[p][v].
template <bool kOperand, size_t kR, size_t kV>
HWY_INLINE void MultiplyRows(const float* const (&a)[kR], size_t k, const float* HWY_RESTRICT b, V (&acc)[kR][kV]) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t p = 0; p < k; ++p, b += kV * N) {
    V bv[kV];
    Unroll<kV>([&](auto v) LAMINA_INLINE { bv[v] = hn::Load(d, b + v * N); });
    Unroll<kR>([&](auto r) LAMINA_INLINE { MultiplyRow<kOperand>(a[r][p], bv, acc[r]); });
  }
}

// The same without the rows that are null. The branches are the same for every p and so predicted.
template <bool kOperand, size_t kR, size_t kV>
HWY_INLINE void MultiplySomeRows(const float* const (&a)[kR], size_t k, const float* HWY_RESTRICT b, V (&acc)[kR][kV]) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t p = 0; p < k; ++p, b += kV * N) {
    V bv[kV];
    Unroll<kV>([&](auto v) LAMINA_INLINE { bv[v] = hn::Load(d, b + v * N); });
    Unroll<kR>([&](auto r) LAMINA_INLINE {
      if (a[r] != nullptr) MultiplyRow<kOperand>(a[r][p], bv, acc[r]);
    });
  }
}

// The tiles, with kLines lines of t.ahead prefetched at each step of k.
template <bool kOperand, size_t kR, size_t kV, size_t kLines>
HWY_INLINE void RunTiles(const GemmTiles& t) {
  const D d;
  const size_t N = hn::Lanes(d), taps = t.taps, kc = t.kc;
  const ptrdiff_t row = t.a_row;
  const float *tile_a = t.a, *ahead = t.ahead;
  for (size_t i = 0; i < t.tiles; ++i, tile_a += t.a_tile) {
    if (ahead >= t.ahead_end) ahead = t.b;  // nothing left: a line that is near anyway, again and again
    const size_t ahead_step = ahead == t.b ? 0 : t.ahead_step;
    V acc[kR][kV];
    Start(t.out, i, acc);
    const float* HWY_RESTRICT b = t.b;
    for (size_t q = 0; q < taps; ++q) {
      // One pointer and a stride, no pointer per row: with 9 floats a tap the pointers cost a tenth of the time.
      const float* HWY_RESTRICT a = tile_a + t.tap[q];
      for (size_t p = 0; p < kc; ++p, b += kV * N, ahead += ahead_step) {
        Unroll<kLines>([&](auto l) LAMINA_INLINE { __builtin_prefetch(ahead + l * kLineFloats, 0, 2); });
        V bv[kV];
        Unroll<kV>([&](auto v) LAMINA_INLINE {
          bv[v] = hn::Load(d, b + v * N);
          if constexpr (kR == 2 || kR == 3) bv[v] = InRegister(bv[v]);
        });
        Unroll<kR>([&](auto r) LAMINA_INLINE {
          MultiplyRow<kOperand>(a[static_cast<ptrdiff_t>(r) * row + static_cast<ptrdiff_t>(p)], bv, acc[r]);
        });
      }
    }
    Finish(t.out, i, acc);
  }
}

// A row of B is kV vectors: where the tiles are too few to fetch as much at a line a step, all its lines are.
template <bool kOperand, size_t kR, size_t kV>
void Tiles(const GemmTiles& t) {
  constexpr size_t kWidth = kV * hn::MaxLanes(D());
  if (kWidth > kLineFloats && t.ahead_step > kLineFloats) {
    RunTiles<kOperand, kR, kV, kWidth / kLineFloats>(t);
  } else {
    RunTiles<kOperand, kR, kV, 1>(t);
  }
}

// kP panels of kV vectors at once; the remaining ones by fewer.
template <size_t kV, size_t kP>
void RowPanels(const GemmRow& row, size_t panel) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (; panel + kP <= row.panels; panel += kP) {
    V acc[kP][1][kV];
    const float* b[kP];
    Unroll<kP>([&](auto i) LAMINA_INLINE {
      b[i] = row.b + (panel + i) * row.b_panel;
      const float* bias = row.out.bias + (panel + i) * kV * N;
      Unroll<kV>([&](auto v) LAMINA_INLINE { acc[i][0][v] = hn::LoadU(d, bias + v * N); });
    });
    for (size_t p = 0; p < row.kc; ++p) {
      const V a = hn::Set(d, row.a[p]);
      Unroll<kP>([&](auto i) LAMINA_INLINE {
        Unroll<kV>([&](auto v)
                       LAMINA_INLINE { acc[i][0][v] = hn::MulAdd(a, hn::Load(d, b[i] + v * N), acc[i][0][v]); });
        b[i] += kV * N;
      });
    }
    Unroll<kP>([&](auto i) LAMINA_INLINE { Finish(row.out, panel + i, acc[i]); });
  }
  if constexpr (kP > 1) RowPanels<kV, kP / 2>(row, panel);
}
// Eight sums at least, which hide the latency of the FMAs too.
template <size_t kV>
void Row(const GemmRow& row) {
  RowPanels<kV, 8 / kV>(row, 0);
}

template <bool kOperand, size_t kR, size_t kV>
void Edge(const GemmEdge& e) {
  const size_t step = e.kc * kV * hn::Lanes(D());
  V acc[kR][kV];
  Start(e.out, 0, acc);
  const float* b = e.b;
  const float* const* rows = e.rows;
  for (size_t q = 0; q < e.taps; ++q, b += step, rows += kR) {
    if (e.tap_mode[q] == kTapEmpty) continue;
    const float* a[kR];
    Unroll<kR>([&](auto r) LAMINA_INLINE { a[r] = rows[r]; });
    if (e.tap_mode[q] == kTapWhole) {
      MultiplyRows<kOperand>(a, e.kc, b, acc);
    } else {
      MultiplySomeRows<kOperand>(a, e.kc, b, acc);
    }
  }
  Finish(e.out, 0, acc);
}

template <bool kOperand, size_t kR, size_t... kI>
constexpr void AddHeight(GemmKernel& kernel, std::index_sequence<kI...>) {
  ((kernel.tiles[kR][kI + 1] = &Tiles<kOperand, kR, kI + 1>, kernel.edge[kR][kI + 1] = &Edge<kOperand, kR, kI + 1>),
   ...);
}
template <bool kOperand, size_t kV, size_t... kI>
constexpr GemmKernel MakeKernel(std::index_sequence<kI...>) {
  GemmKernel kernel = {hn::MaxLanes(D()), sizeof...(kI), kV, {}, {}, &Row<kV>, kOperand ? 1 : 2};
  (AddHeight<kOperand, kI + 1>(kernel, std::make_index_sequence<kV>()), ...);
  AddDots(kernel, std::index_sequence<kI...>());
  return kernel;
}

const GemmKernel* ChooseWide() {
  static constexpr GemmKernel kKernel = MakeKernel<false, kTileVectors>(std::make_index_sequence<kTileRows>());
  return &kKernel;
}
const GemmKernel* ChooseOperand() {
#if HWY_TARGET <= HWY_AVX3
  static constexpr GemmKernel kKernel = MakeKernel<true, kOperandVectors>(std::make_index_sequence<kTileRows>());
  return &kKernel;
#else
  return ChooseWide();
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {

PanelCut::PanelCut(const GemmKernel& kernel, size_t n, size_t k, size_t taps)
    : lanes_(kernel.lanes), whole_(kernel.vectors * kernel.lanes), n_(n), k_(k) {
  const size_t run = k / taps, rest = n % lanes_;
  // Several taps that lie behind each other may be computed as one: every lane must then meet the same floats.
  const bool same_bits = taps == 1 || run % lanes_ == 0;
  // With k below two vectors adding up the lanes takes as long as the products (k = 16, 8 columns: 10.5 us against a
  // vector's 9.0; 4 columns 7.2; Zen 4, AVX-512, 28x28 pixels, 2026-11-26).
  const bool pays = run >= lanes_ && rest <= (k < 2 * lanes_ ? lanes_ / 4 : lanes_ / 2);
  if (kernel.tiles[1][0] != nullptr && same_bits && pays) dots_ = rest;
}

GemmPanel PanelCut::operator[](size_t panel) const {
  if (panel == vector_panels()) return {n_ - dots_, dots_, 0, dots_};
  const size_t first = panel * whole_, columns = std::min(whole_, n_ - dots_ - first);
  return {first, columns, DivUp(columns, lanes_), RoundUp(columns, lanes_)};
}

double PanelCut::work() const {
  if (dots_ == 0) return static_cast<double>(vector_columns());
  // Fitted to k = 16 to 512 (Zen 4, AVX-512 and AVX2, 2026-11-26): reading A, and at the end adding up the lanes.
  const double k = static_cast<double>(k_);
  return static_cast<double>(vector_columns()) + 1.5 + 100 / k + static_cast<double>(dots_) * (1 + 15 / k);
}

HWY_EXPORT(ChooseWide);
HWY_EXPORT(ChooseOperand);
const GemmKernel& GetWideKernel(Isa isa) { return *LAMINA_DISPATCH(ChooseWide, isa)(); }
const GemmKernel& GetOperandKernel(Isa isa) { return *LAMINA_DISPATCH(ChooseOperand, isa)(); }

const GemmKernel& GetGemmKernel(Isa isa) {
  // Whether AVX-512 has two FMAs a cycle (Intel's servers) or one shows in the peaks; the CPU's, not what `lamina roof`
  // measured, so that a figure near the border changes no layout.
  const Machine& machine = BuiltInMachine();
  const bool one = isa == Isa::kAvx3 && machine.Gflops(Isa::kAvx3, 1) < 1.5 * machine.Gflops(Isa::kAvx2, 1);
  return one ? GetOperandKernel(isa) : GetWideKernel(isa);
}

Epilogue MakeEpilogue(Isa isa, const Activation& activation, Residual residual) {
  Epilogue e;
  e.residual = residual;
  switch (activation.kind) {
    case ActivationKind::kNone: break;
    case ActivationKind::kRelu: e.lo = 0.0f; break;
    case ActivationKind::kRelu6:
      e.lo = 0.0f;
      e.hi = 6.0f;
      break;
    case ActivationKind::kClamp:
      e.lo = activation.alpha;
      e.hi = activation.beta;
      break;
    default:
      e.activation = activation;
      e.activate = GetActivate(isa);
      break;
  }
  return e;
}

}  // namespace lamina::cpu
#endif
