// GEMM micro-kernels, fp32: C[r, j] = epilogue(bias[j] + sum over taps q and p < kc of A[r, q, p] * B[q, p, j]).
//
// A row's float is broadcast and multiplied with the vectors of a packed row of B; the sums of the whole tile stay in
// registers over all of k. One call runs many tiles, so that bias, pointers and code stay where they are.
//
// Registers: rows * vectors sums + vectors of B + 1 of A (+ 1 product where there is no FMA).
//   AVX-512  7 x 4: 28 + 4 + 1 = 33 of 32: one sum lives on the stack, at no cost (98 % of peak)
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
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {

#ifdef LAMINA_TILE_ROWS
inline constexpr size_t kRows = LAMINA_TILE_ROWS, kVectors = LAMINA_TILE_VECTORS;
#elif HWY_TARGET <= HWY_AVX3
inline constexpr size_t kRows = 7, kVectors = 4;
#else
inline constexpr size_t kRows = 6, kVectors = 2;
#endif
inline constexpr size_t kLineFloats = 16;  // of a cache line
static_assert(kRows <= kMaxTileRows && kVectors <= kMaxTileVectors, "the tables of GemmKernel are smaller");

// GCC turns a load that is used two or three times into as many memory operands, all of which miss L1 together.
HWY_INLINE void KeepInRegister([[maybe_unused]] V& v) {
#if HWY_TARGET <= HWY_AVX3
  __asm__("" : "+v"(v.raw));
#elif HWY_TARGET <= HWY_AVX2
  __asm__("" : "+x"(v.raw));
#endif
}

// acc[r][v] += sum over p < k of a[r][p] * b[p][v].
template <size_t kR, size_t kV>
HWY_INLINE void MultiplyRows(const float* const (&a)[kR], size_t k, const float* HWY_RESTRICT b, V (&acc)[kR][kV]) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t p = 0; p < k; ++p, b += kV * N) {
    V bv[kV];
    Unroll<kV>([&](auto v) LAMINA_INLINE { bv[v] = hn::Load(d, b + v * N); });
    Unroll<kR>([&](auto r) LAMINA_INLINE {
      const V ar = hn::Set(d, a[r][p]);
      Unroll<kV>([&](auto v) LAMINA_INLINE { acc[r][v] = hn::MulAdd(ar, bv[v], acc[r][v]); });
    });
  }
}

// The same without the rows that are null. The branches are the same for every p and so predicted.
template <size_t kR, size_t kV>
HWY_INLINE void MultiplySomeRows(const float* const (&a)[kR], size_t k, const float* HWY_RESTRICT b, V (&acc)[kR][kV]) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t p = 0; p < k; ++p, b += kV * N) {
    V bv[kV];
    Unroll<kV>([&](auto v) LAMINA_INLINE { bv[v] = hn::Load(d, b + v * N); });
    Unroll<kR>([&](auto r) LAMINA_INLINE {
      if (a[r] == nullptr) return;
      const V ar = hn::Set(d, a[r][p]);
      Unroll<kV>([&](auto v) LAMINA_INLINE { acc[r][v] = hn::MulAdd(ar, bv[v], acc[r][v]); });
    });
  }
}

// Partial sums of a tile whose last vector is not whole, into `sums` [rows][width].
HWY_NOINLINE void LoadPartial(const float* HWY_RESTRICT c, ptrdiff_t c_row, size_t columns, size_t rows, size_t width,
                              float* HWY_RESTRICT sums) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t r = 0; r < rows; ++r, c += c_row, sums += width) {
    for (size_t j = 0; j < columns; j += N) hn::Store(LoadUpTo(d, c + j, columns - j), d, sums + j);
  }
}

// The general end of a tile, for what the registers' own end in Finish leaves: sums [rows][width] -> residual,
// activation, residual -> c. The residual may be c itself, so c is written last.
HWY_NOINLINE void FinishStored(const GemmOutput& out, size_t tile, size_t rows, size_t width,
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
  if (e != nullptr && e->clamps()) {
    const V lo = hn::Set(d, e->lo), hi = hn::Set(d, e->hi);
    Unroll<kR>([&](auto r)
                   LAMINA_INLINE { Unroll<kV>([&](auto v) LAMINA_INLINE { acc[r][v] = Clamp(lo, hi, acc[r][v]); }); });
  }
  float* c = out.c + static_cast<ptrdiff_t>(tile) * out.tile;
  const ptrdiff_t row = out.row;  // a local: the stores to c could change `out`
  Unroll<kR>([&](auto r) LAMINA_INLINE {
    Unroll<kV>([&](auto v) LAMINA_INLINE { hn::StoreU(acc[r][v], d, c + v * N); });
    c += row;
  });
}

// The tiles, with kLines lines of t.ahead prefetched at each step of k.
template <size_t kR, size_t kV, size_t kLines>
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
          if constexpr (kR == 2 || kR == 3) KeepInRegister(bv[v]);
        });
        Unroll<kR>([&](auto r) LAMINA_INLINE {
          const V ar = hn::Set(d, a[static_cast<ptrdiff_t>(r) * row + static_cast<ptrdiff_t>(p)]);
          Unroll<kV>([&](auto v) LAMINA_INLINE { acc[r][v] = hn::MulAdd(ar, bv[v], acc[r][v]); });
        });
      }
    }
    Finish(t.out, i, acc);
  }
}

// A row of B is kV vectors: where the tiles are too few to fetch as much at a line a step, all its lines are.
template <size_t kR, size_t kV>
void Tiles(const GemmTiles& t) {
  constexpr size_t kWidth = kV * hn::MaxLanes(D());
  if (kWidth > kLineFloats && t.ahead_step > kLineFloats) {
    RunTiles<kR, kV, kWidth / kLineFloats>(t);
  } else {
    RunTiles<kR, kV, 1>(t);
  }
}

// kP panels at once; the remaining ones by fewer.
template <size_t kP>
void RowPanels(const GemmRow& row, size_t panel) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (; panel + kP <= row.panels; panel += kP) {
    V acc[kP][1][kVectors];
    const float* b[kP];
    Unroll<kP>([&](auto i) LAMINA_INLINE {
      b[i] = row.b + (panel + i) * row.b_panel;
      const float* bias = row.out.bias + (panel + i) * kVectors * N;
      Unroll<kVectors>([&](auto v) LAMINA_INLINE { acc[i][0][v] = hn::LoadU(d, bias + v * N); });
    });
    for (size_t p = 0; p < row.kc; ++p) {
      const V a = hn::Set(d, row.a[p]);
      Unroll<kP>([&](auto i) LAMINA_INLINE {
        Unroll<kVectors>([&](auto v)
                             LAMINA_INLINE { acc[i][0][v] = hn::MulAdd(a, hn::Load(d, b[i] + v * N), acc[i][0][v]); });
        b[i] += kVectors * N;
      });
    }
    Unroll<kP>([&](auto i) LAMINA_INLINE { Finish(row.out, panel + i, acc[i]); });
  }
  if constexpr (kP > 1) RowPanels<kP / 2>(row, panel);
}
// Eight sums at least, which hide the latency of the FMAs too.
void Row(const GemmRow& row) { RowPanels<8 / kVectors>(row, 0); }

template <size_t kR, size_t kV>
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
      MultiplyRows(a, e.kc, b, acc);
    } else {
      MultiplySomeRows(a, e.kc, b, acc);
    }
  }
  Finish(e.out, 0, acc);
}

template <size_t kR, size_t... kI>
constexpr void AddHeight(GemmKernel& kernel, std::index_sequence<kI...>) {
  ((kernel.tiles[kR][kI + 1] = &Tiles<kR, kI + 1>, kernel.edge[kR][kI + 1] = &Edge<kR, kI + 1>), ...);
}
template <size_t... kI>
constexpr GemmKernel MakeKernel(std::index_sequence<kI...>) {
  GemmKernel kernel = {hn::MaxLanes(D()), kRows, kVectors, {}, {}, &Row};
  (AddHeight<kI + 1>(kernel, std::make_index_sequence<kVectors>()), ...);
  return kernel;
}

const GemmKernel* ChooseGemm() {
  static constexpr GemmKernel kKernel = MakeKernel(std::make_index_sequence<kRows>());
  return &kKernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {

HWY_EXPORT(ChooseGemm);
const GemmKernel& GetGemmKernel(Isa isa) { return *LAMINA_DISPATCH(ChooseGemm, isa)(); }

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
