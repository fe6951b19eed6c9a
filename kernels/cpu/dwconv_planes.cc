// Depthwise convolution of some planes, one after the other:
//   y[h, w] = clamp(bias + sum_{kh,kw} x[h * S + kh - pad_top, w * S + kw - pad_left] * weight[kh, kw] + residual)
//
// R = 7 rows of one vector of outputs (image heights are often multiples of 7); column by column of the kernel, each
// row of x is read once and adds to all rows of outputs that it reaches. x is read where it lies: rows of padding are a
// row of zeros, at the left and right end loads are masked. With stride 2, pairs of vectors are parted into even and
// odd columns.
//   registers: 7 sums + K weights of the kernel's column + x, 11 of 16 for 3x3 and 13 for 5x5; stride 2 takes 3 columns
//
// A vector of 16 lanes of which no more than 8 are live is computed as one of 8, at half the cost on CPUs with one
// 512-bit FMA a cycle.
#include "kernels/cpu/dwconv_planes.h"

#include <algorithm>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dwconv_planes.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Lanes of a vector of N, from any of them on and around.
template <size_t N>
struct Around {
  constexpr Around() {
    for (size_t i = 0; i < 2 * N; ++i) lane[i] = static_cast<int32_t>(i % N);
  }
  int32_t lane[2 * N] = {};
};
template <size_t N>
constexpr Around<N> kAround;

// Lanes of a load that lie in [0, columns) of a row, when it starts at column `first`.
template <class DD>
struct Window {
  Window() = default;
  Window(DD d, int64_t first, int64_t columns) {
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    begin = std::clamp<int64_t>(-first, 0, lanes);
    end = std::clamp<int64_t>(columns - first, 0, lanes);
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
    mask = hn::AndNot(hn::FirstN(d, static_cast<size_t>(begin)), hn::FirstN(d, static_cast<size_t>(end)));
#endif
  }
  // The others are zero, and not read.
  HWY_INLINE hn::Vec<DD> Load(DD d, const float* p) const {
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
    return hn::MaskedLoad(mask, d, p);
#else
    HWY_ALIGN float buffer[hn::MaxLanes(d)] = {};
    for (int64_t i = begin; i < end; ++i) buffer[i] = p[i];
    return hn::Load(d, buffer);
#endif
  }
  // Of a window from lane 0 on.
  HWY_INLINE void Store(hn::Vec<DD> v, DD d, float* p) const {
#if HWY_TARGET == HWY_AVX2
    // Masked stores take 12 cycles on Zen 4: two of four floats that may overlap instead.
    const hn::Half<DD> half;
    if (end >= 8) return hn::StoreU(v, d, p);
    if (end >= 4) {
      const hn::Vec<DD> last = hn::TableLookupLanes(v, hn::SetTableIndices(d, kAround<8>.lane + end - 4));
      hn::StoreU(hn::LowerHalf(half, v), half, p);
      hn::StoreU(hn::LowerHalf(half, last), half, p + end - 4);
      return;
    }
#elif HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
    return hn::BlendedStore(v, mask, d, p);
#endif
    HWY_ALIGN float buffer[hn::MaxLanes(d)];
    hn::Store(v, d, buffer);
    for (int64_t i = 0; i < end; ++i) p[i] = buffer[i];
  }
  int64_t begin, end;
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
  hn::Mask<DD> mask;
#endif
};

// With stride 2, columns 1 and 2 of the kernel share two loads, 3 and 4 share two, and column 0 is 2 moved on by one
// lane.
template <int S>
constexpr bool kPairs = S == 2 && HWY_TARGET != HWY_SCALAR;

// The windows of a tile of which some columns are padding or beyond the row.
template <int K, int S, class DD>
struct Windows {
  Windows() = default;
  Windows(DD d, const DwConvPlanes& a, int64_t column) : out(d, 0, a.columns - column) {
    const int64_t first = column * S - a.pad_left, N = static_cast<int64_t>(hn::Lanes(d));
    for (int64_t i = 0; i < kLoads; ++i) in[i] = {d, kPairs<S> ? first + 1 + i / 2 * 2 + i % 2 * N : first + i, a.iw};
  }
  static constexpr int kLoads = kPairs<S> ? K - 1 : K;
  Window<DD> in[kLoads], out;
};

// Some rows of outputs. rows: those of x that they read. Each is loaded when it is needed (volatile): GCC would keep
// all of them, in vector registers where others are too few.
struct Group {
  const float* const volatile* rows;
  const float* w;
  float bias;
  float* y;
  const float* residual;
};

// One vector of R rows of outputs. kBorder: some of the columns that they read are padding, or they are the last ones.
template <int K, int S, int R, bool kBorder, class DD>
HWY_INLINE void Tile(DD d, const DwConvPlanes& a, const Group& g, int64_t column, const Windows<K, S, DD>* windows) {
  using VV = hn::Vec<DD>;
  constexpr int kRows = (R - 1) * S + K;
  const int64_t first = column * S - a.pad_left;
  VV sum[R];
  Unroll<R>([&](auto r) LAMINA_INLINE { sum[r] = hn::Set(d, g.bias); });
  // x, of the i-th row that is read, times a column of the kernel.
  const auto add = [&](auto i, VV x, const VV(&weight)[K]) LAMINA_INLINE {
    Unroll<R>([&](auto r) LAMINA_INLINE {
      constexpr int kh = int(i) - int(r) * S;
      if constexpr (kh >= 0 && kh < K) sum[r] = hn::MulAdd(x, weight[kh], sum[r]);
    });
  };
  const auto load_weights = [&](int64_t kw, VV(&weight)[K]) LAMINA_INLINE {
    Unroll<K>([&](auto kh) LAMINA_INLINE { weight[kh] = hn::Set(d, g.w[kh * K + kw]); });
  };
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kPairs<S>) {
    const int64_t N = static_cast<int64_t>(hn::Lanes(d));
    const auto rotate = hn::SetTableIndices(d, kAround<hn::MaxLanes(d)>.lane + N - 1);
    const auto lowest = hn::FirstN(d, 1);
    Unroll<(K - 1) / 2>([&](auto pair) LAMINA_INLINE {
      constexpr int kw = 2 * int(pair) + 1;
      VV left[K], even[K], odd[K];
      load_weights(0, left), load_weights(kw, even), load_weights(kw + 1, odd);
      const Window<DD> low = windows->in[2 * pair], high = windows->in[2 * pair + 1];
      Unroll<kRows>([&](auto i) LAMINA_INLINE {
        const float* const from = g.rows[i] + first + kw;
        const VV l = kBorder ? low.Load(d, from) : hn::LoadU(d, from);
        const VV h = kBorder ? high.Load(d, from + N) : hn::LoadU(d, from + N);
        const VV x = hn::ConcatOdd(d, h, l);
        if constexpr (kw == 1) {
          const VV before = hn::Set(d, kBorder && (first < 0 || first >= a.iw) ? 0.0f : from[-1]);
          add(i, hn::IfThenElse(lowest, before, hn::TableLookupLanes(x, rotate)), left);
        }
        add(i, hn::ConcatEven(d, h, l), even);
        add(i, x, odd);
      });
    });
  } else
#endif
  {
    // No unrolled loop: GCC would keep a pointer for each row, more than there are registers.
    for (int64_t kw = 0; kw < K; ++kw) {
      VV weight[K];
      load_weights(kw, weight);
      const Window<DD> window = windows->in[kw];
      Unroll<kRows>([&](auto i) LAMINA_INLINE {
        const float* const from = g.rows[i] + first + kw;
        add(i, InRegister(kBorder ? window.Load(d, from) : hn::LoadU(d, from)), weight);
      });
    }
  }
  const VV lo = hn::Set(d, a.lo), hi = hn::Set(d, a.hi);
  const auto clamped = [&](VV v) LAMINA_INLINE {
    if constexpr (std::is_same_v<DD, D>) {
      return Clamp(lo, hi, v);
    } else {
      return hn::Min(hi, hn::Max(lo, v));  // half a vector of AVX-512, whose min and max let NaN through
    }
  };
  const int64_t columns = a.columns;
  const Window<DD> out = windows->out;
  if (g.residual == nullptr) {
    Unroll<R>([&](auto r) LAMINA_INLINE { sum[r] = clamped(sum[r]); });
  } else {
    const bool after = a.residual_after;
    Unroll<R>([&](auto r) LAMINA_INLINE {
      const float* const more = g.residual + column + int64_t(r) * columns;
      const VV v = kBorder ? out.Load(d, more) : hn::LoadU(d, more);
      sum[r] = after ? hn::Add(clamped(sum[r]), v) : clamped(hn::Add(sum[r], v));
    });
  }
  float* y = g.y + column;
  Unroll<R>([&](auto r) LAMINA_INLINE {
    if constexpr (kBorder) {
      out.Store(sum[r], d, y);
    } else {
      hn::StoreU(sum[r], d, y);
    }
    y += columns;
  });
}

// Windows at both ends of a row; narrow: at its end, where no more than half a vector is left.
template <int K, int S>
struct Ends {
  static constexpr bool kHalves = HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86;
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  using Narrow = hn::Half<D>;
#else
  using Narrow = D;
#endif
  explicit Ends(const DwConvPlanes& a) {
    const D d;
    const int64_t N = static_cast<int64_t>(hn::Lanes(d));
    last_column = (a.columns - 1) / N * N;
    is_narrow = kHalves && last_column + N / 2 >= a.columns;
    first = {d, a, 0};
    last = {d, a, last_column};
    narrow = {Narrow(), a, last_column};
  }
  int64_t last_column;
  bool is_narrow;
  Windows<K, S, D> first, last;
  Windows<K, S, Narrow> narrow;
};

// What the next rows of wide images read at stride 2, in equal shares for the tiles of these: those of one tile lie too
// far apart for prefetchers. Any address will do.
struct Ahead {
  Ahead(const float* from, int64_t floats, int64_t tiles)
      : begin(reinterpret_cast<uintptr_t>(from)), share((floats * 4 + tiles * 64 - 1) / (tiles * 64)) {}
  HWY_INLINE void Fetch(int64_t tile) const {
    for (int64_t i = tile * share; i < (tile + 1) * share; ++i) {
      __builtin_prefetch(reinterpret_cast<const void*>(begin + static_cast<uintptr_t>(i) * 64), 0, 2);
    }
  }
  uintptr_t begin;
  int64_t share;  // lines
};

// Pads are wider than a vector.
template <int K, int S, int R>
HWY_NOINLINE void TileInWidePads(const DwConvPlanes& a, const Group& g, int64_t column) {
  const Windows<K, S, D> windows(D(), a, column);
  Tile<K, S, R, true>(D(), a, g, column, &windows);
}

// R rows of outputs of a plane, from `row` of the block on.
template <int K, int S, int R>
void RowsOf(const DwConvPlanes& a, const Ends<K, S>& ends, int64_t plane, int64_t row) {
  const D d;
  const int64_t N = static_cast<int64_t>(hn::Lanes(d)), top = (a.first_row + row) * S - a.pad_top;
  const float* const x = a.x + plane / a.multiplier * a.ih * a.iw;
  const float* rows[(R - 1) * S + K];
  for (int64_t i = 0; i < (R - 1) * S + K; ++i) {
    const bool live = static_cast<uint64_t>(top + i) < static_cast<uint64_t>(a.ih);
    rows[i] = live ? x + (top + i) * a.iw : a.zeros;
  }
  Group g;
  g.rows = rows;
  g.w = a.w + plane * K * K;
  g.bias = a.bias[plane];
  g.y = a.y + plane * a.y_plane + row * a.columns;
  g.residual = a.residual == nullptr ? nullptr : a.residual + plane * a.residual_plane + row * a.columns;
  const Ahead ahead(x + (top + (R - 1) * S + K) * a.iw, R * S * a.iw, (a.columns + N - 1) / N);
  for (int64_t column = 0, tile = 0; column < a.columns; column += N, ++tile) {
    if (S == 2 && a.iw >= 64) ahead.Fetch(tile);
    const int64_t first = column * S - a.pad_left;
    if (first >= 0 && first + (N - 1) * S + K <= a.iw && column + N <= a.columns) {
      Tile<K, S, R, false>(d, a, g, column, &ends.first);
    } else if (column == ends.last_column && ends.is_narrow) {
      Tile<K, S, R, true>(typename Ends<K, S>::Narrow(), a, g, column, &ends.narrow);
    } else if (column == 0 || column == ends.last_column) {
      Tile<K, S, R, true>(d, a, g, column, column == 0 ? &ends.first : &ends.last);
    } else {
      TileInWidePads<K, S, R>(a, g, column);
    }
  }
}

template <int K, int S>
void PlanesOf(const DwConvPlanes& a) {
  const Ends<K, S> ends(a);
  for (int64_t plane = a.first; plane < a.last; ++plane) {
    int64_t row = 0;
    for (; row + kPlaneRows <= a.rows; row += kPlaneRows) RowsOf<K, S, kPlaneRows>(a, ends, plane, row);
    for (; row + 3 <= a.rows; row += 3) RowsOf<K, S, 3>(a, ends, plane, row);
    for (; row < a.rows; ++row) RowsOf<K, S, 1>(a, ends, plane, row);
  }
}

const DwConvPlaneKernel& ChooseDwConvPlane() {
  static const DwConvPlaneKernel kernel{
      hn::Lanes(D()),
      {{3, 1, &PlanesOf<3, 1>}, {3, 2, &PlanesOf<3, 2>}, {5, 1, &PlanesOf<5, 1>}, {5, 2, &PlanesOf<5, 2>}}};
  return kernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {
HWY_EXPORT(ChooseDwConvPlane);
const DwConvPlaneKernel& GetDwConvPlaneKernel(Isa isa) { return LAMINA_DISPATCH(ChooseDwConvPlane, isa)(); }
}  // namespace lamina::cpu
#endif
