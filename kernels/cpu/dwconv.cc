// Depthwise convolution of one vector of channels:
//   y[r, o] = clamp(bias + sum_{kh,kw} x[r * stride + kh, o * stride + kw - pad_left] * w[kh, kw] + residual)
//
// Slide: input columns are visited once, from left to right; column j adds to the T = ceil(K / S) outputs in flight of
// each of R rows, the oldest of which is then complete. Each x is loaded once for all of them, so L1 gives
// (R - 1) * S + K vectors for up to K * K * R multiply-adds.
//   registers, K = 3 S = 1 R = 4: 12 sums + 9 weights + 1 x + 2 limits = 24 of 32
//   K = 5 S = 1 R = 4: 20 sums + 8 x + 1 weight + 2 limits = 31 of 32; K = 7 R = 2: 14 + 8 + 1 + 2
//   with 16, K = 3 S = 1 R = 2 of a pair of vectors, a whole line: 12 sums + 1 x, weights from memory
//   K = 5 S = 1 R = 2: 10 sums + 6 x of 16
// Lag: a load whose address agrees with that of a store before it in the last twelve bits waits for that store. Stores
// can lag behind by a vector of channels or two, which the ring in L1 holds meanwhile (see DepthwiseStep::ChooseLag).
// Tile, with 16 registers: R rows of C outputs of one vector of channels, then of the next; a row of x is read once for
// each kh. R = 2 C = 4: 8 sums + K weights + 1 x + 2 limits, (K + R * (C + K - 1)) loads for R * C * K multiply-adds.
// Stride 2: R = 2 C = 2.
// Taps: 8 columns of one row, 8 sums + 1 weight, x as memory operands: 9 loads for 8 multiply-adds.
//
// Ahead: in a slide and in a tile neighbouring loads lie a pixel apart, which no prefetcher follows, so each asks for
// its share of the next rows in the order of their addresses. Empty caches: 28x28x120 5x5 178 -> 80 us, 112x112x64
// stride 2 346 -> 226, 56x56x128 256 -> 143, 7x7x1024 58 -> 38; warm ones: nothing (AVX-512, Zen 4, 2026-11-26). One
// line of two gains half as much.
//
// Of the FMA peak, Zen 4 (2026-11-26): AVX-512 88 to 93 % on 3x3 and 5x5, 66 % on 7x7 with 1024 channels, all of whose
// columns share one set of L1; AVX2 66 to 76 % on 3x3, 86 % on 5x5, 48 % on 7x7 with 1024 channels. Emerald Rapids
// (2026-11-23) a third to two thirds, 5x5 86 %. Rotating the sums by unrolling T columns instead of moving registers
// gained nothing on it. R = 7 gained nothing on Zen 4. There tiles of R x C = 1x7, 1x8, 2x2, 2x3, 2x5, 2x6, 3x3, 3x4,
// 4x2 and 4x3 are 3 to 40 % slower than 2x4 on 112x112x32 and 56x56x128 (AVX2), and all tried on AVX-512 slower than
// its slide, as is one offset for all rows in place of a pointer each (70 -> 73 us on 112x112x32).
#include "kernels/cpu/dwconv.h"

#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dwconv.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// AVX-512 masks loads and stores for nothing; the others get a copy of the last channels padded to a vector.
constexpr bool kTails = HWY_TARGET == HWY_AVX3;
constexpr int kRegisters = HWY_TARGET == HWY_AVX3 ? 32 : 16;

// Output rows at once.
template <int K, int S>
constexpr int kMaxRows = kRegisters == 32 && S == 1 && K < 7 ? 4 : 2;

// 5x5 and stride 2 read more between two stores and do not suffer (see DwConvRows::lag).
constexpr bool CanLag(int k, int stride) { return k == 3 && stride == 1; }

// Brings the lines of kFloats floats to L2, and goes on to the next ones.
template <size_t kFloats>
HWY_INLINE void FetchAhead(const float*& p) {
  constexpr size_t kLine = 64 / sizeof(float);
  Unroll<(kFloats + kLine - 1) / kLine>([&](auto i) LAMINA_INLINE { __builtin_prefetch(p + i * kLine, 0, 2); });
  p += kFloats;
}

// The first `channels` lanes where the target can say so cheaply, else all.
struct ChannelMask {
#if HWY_TARGET == HWY_AVX3
  hn::Mask<D> mask;
  HWY_INLINE explicit ChannelMask(size_t channels) : mask(hn::FirstN(D(), channels)) {}
  HWY_INLINE V Load(const float* p) const { return hn::MaskedLoad(mask, D(), p); }
  HWY_INLINE void Store(V v, float* p) const { hn::BlendedStore(v, mask, D(), p); }
#else
  HWY_INLINE explicit ChannelMask(size_t) {}
  HWY_INLINE V Load(const float* p) const { return hn::LoadU(D(), p); }
  HWY_INLINE void Store(V v, float* p) const { hn::StoreU(v, D(), p); }
#endif
};

// VV vectors of channels side by side. kLags: what they write goes to `ring` ([columns][R][VV][N]) in place of what
// those `lag` steps before them left there, and that goes to y, where `y` is the place of those.
template <int K, int S, int R, int VV, bool kLags>
HWY_INLINE void SlideVectors(const DwConvRows& a, size_t vector, float* y, ptrdiff_t y_row, ptrdiff_t y_col,
                             [[maybe_unused]] float* ring) {
  const D d;
  const size_t N = hn::Lanes(d), channel = vector * N;
  constexpr int kInputRows = (R - 1) * S + K, T = (K + S - 1) / S, kTaps = K * K;
  static_assert(R <= kMaxDwConvRows && kInputRows <= kMaxDwConvInputRows, "the caller's arrays are that long");
  static_assert(K <= 3 || VV == 1, "one vector at a time has registers for the rows of a column");
  const ChannelMask lanes(a.channels);
  const DwConvOutput& out = a.out;
  const float* p[kInputRows];
  Unroll<kInputRows>([&](auto i) LAMINA_INLINE { p[i] = a.x[i] == nullptr ? nullptr : a.x[i] + channel; });
  const ptrdiff_t step = a.x_col;
  const float* const w = a.w + vector * (kTaps + 1) * N;
  const auto weight_at = [&](auto v, size_t tap) LAMINA_INLINE { return hn::Load(d, w + (v * (kTaps + 1) + tap) * N); };
  V weight[kTaps];  // in registers; pairs read them from memory
  if constexpr (K <= 3 && VV == 1) {
    Unroll<kTaps>([&](auto i) LAMINA_INLINE { weight[i] = hn::Load(d, w + i * N); });
  }
  V sum[VV][T][R];
  const auto start = [&](auto t) LAMINA_INLINE {  // from the bias, which lies behind the weights
    Unroll<VV>([&](auto v)
                   LAMINA_INLINE { Unroll<R>([&](auto r) LAMINA_INLINE { sum[v][t][r] = weight_at(v, kTaps); }); });
  };
  Unroll<T>([&](auto t) LAMINA_INLINE { start(t); });

  // Adds one input column to the outputs in flight; `phase` is its place in the step of S columns.
  const auto add_column = [&](auto phase) LAMINA_INLINE {
    // Output t in flight takes the column with kw = K - S + phase - t * S, if it has such a tap.
    if constexpr (K <= 3) {
      Unroll<kInputRows>([&](auto i) LAMINA_INLINE {
        if (p[i] == nullptr) return;
        Unroll<VV>([&](auto v) LAMINA_INLINE {
          const V x = lanes.Load(p[i] + v * N);
          Unroll<R>([&](auto r) LAMINA_INLINE {
            constexpr int kh = int(i) - int(r) * S;
            Unroll<T>([&](auto t) LAMINA_INLINE {
              constexpr int kw = K - S + int(phase) - int(t) * S;
              if constexpr (kh >= 0 && kh < K && kw >= 0 && kw < K) {
                if constexpr (VV == 1) {
                  sum[v][t][r] = hn::MulAdd(x, weight[kh * K + kw], sum[v][t][r]);
                } else {
                  sum[v][t][r] = hn::MulAdd(x, weight_at(v, kh * K + kw), sum[v][t][r]);
                }
              }
            });
          });
        });
        p[i] += step;
      });
    } else {
      V x[kInputRows];
      Unroll<kInputRows>([&](auto i) LAMINA_INLINE {
        x[i] = hn::Zero(d);
        if (p[i] == nullptr) return;
        x[i] = lanes.Load(p[i]);
        p[i] += step;
      });
      Unroll<K>([&](auto kh) LAMINA_INLINE {
        Unroll<T>([&](auto t) LAMINA_INLINE {
          constexpr int kw = K - S + int(phase) - int(t) * S;
          if constexpr (kw >= 0 && kw < K) {
            const V wv = weight_at(std::integral_constant<size_t, 0>(), kh * K + kw);
            Unroll<R>([&](auto r) LAMINA_INLINE { sum[0][t][r] = hn::MulAdd(x[r * S + kh], wv, sum[0][t][r]); });
          }
        });
      });
    }
  };

  const V lo = hn::Set(d, out.lo), hi = hn::Set(d, out.hi);
  const auto store = [&](auto r, auto v, V value) LAMINA_INLINE {
    float* const to = y + ptrdiff_t(r) * y_row + v * N;
    if constexpr (kLags) {
      float* const kept = ring + (r * VV + v) * N;
      lanes.Store(hn::Load(d, kept), to);
      hn::Store(value, d, kept);
    } else {
      lanes.Store(value, to);
    }
  };
  const float* residual = out.residual == nullptr ? nullptr : out.residual + channel;
  constexpr size_t kNewY = R * VV * hn::MaxLanes(D()), kNewX = kNewY * S * S;
  const float* ahead_x = a.ahead_x + vector / VV * out.columns * kNewX;
  const float* ahead_y = a.ahead_y + vector / VV * out.columns * kNewY;
  const uint64_t iw = static_cast<uint64_t>(a.iw);
  // The first column of the step that completes output 1 - T: outputs < 0 are not kept.
  int64_t column = K - T * S - a.pad_left;
  for (int64_t o = 1 - T; o < static_cast<int64_t>(out.columns); ++o) {
    Unroll<S>([&](auto phase) LAMINA_INLINE {
      if (static_cast<uint64_t>(column) < iw) add_column(phase);
      ++column;
    });
    if (o >= 0) {
      FetchAhead<kNewX>(ahead_x);
      FetchAhead<kNewY>(ahead_y);
      Unroll<R>([&](auto r) LAMINA_INLINE {
        Unroll<VV>([&](auto v) LAMINA_INLINE {
          V value = sum[v][0][r];
          if (residual == nullptr) {
            value = Clamp(lo, hi, value);
          } else {
            const V add = lanes.Load(residual + ptrdiff_t(r) * out.residual_row + v * N);
            value = out.residual_after ? hn::Add(Clamp(lo, hi, value), add) : Clamp(lo, hi, hn::Add(value, add));
          }
          store(r, v, value);
        });
      });
      if (residual != nullptr) residual += out.residual_col;
      y += y_col;
      if constexpr (kLags) ring += R * VV * N;
    }
    Unroll<VV>([&](auto v) LAMINA_INLINE {
      Unroll<T - 1>([&](auto t)
                        LAMINA_INLINE { Unroll<R>([&](auto r) LAMINA_INLINE { sum[v][t][r] = sum[v][t + 1][r]; }); });
    });
    start(std::integral_constant<size_t, T - 1>());
  }
}

// R rows of C columns of outputs from column `o` on, of all vectors of channels from the first one named in turn.
// kInside: none of its taps is padding and none of its outputs beyond the last column.
template <int K, int S, int R, int C, bool kInside>
HWY_INLINE void TileVectors(const DwConvRows& a, size_t first_vector, size_t o) {
  const D d;
  const size_t N = hn::Lanes(d), vectors = a.vectors, columns = HWY_MIN(a.out.columns - o, size_t{C});
  constexpr int kInputRows = (R - 1) * S + K, kInputColumns = (C - 1) * S + K;
  // Columns [begin, end) of the tile's input are there and wanted.
  const int64_t left = static_cast<int64_t>(o) * S - a.pad_left, begin = HWY_MAX(-left, int64_t{0}),
                end = HWY_MIN(static_cast<int64_t>(columns - 1) * S + K, a.iw - left);
  const ptrdiff_t step = a.x_col, first_channel = static_cast<ptrdiff_t>(first_vector * N);
  const float* p[kInputRows];
  Unroll<kInputRows>([&](auto i) LAMINA_INLINE {
    p[i] = !kInside && a.x[i] == nullptr ? nullptr : a.x[i] + left * step + first_channel;
  });
  // In variables: the compiler must suppose that a vector's store changes whatever lies in memory.
  const DwConvOutput out = a.out;
  const ptrdiff_t column = static_cast<ptrdiff_t>(o);
  float* y = out.y + column * out.y_col + first_channel;
  const float* residual = out.residual;
  if (residual != nullptr) residual += column * out.residual_col + first_channel;
  const V lo = hn::Set(d, out.lo), hi = hn::Set(d, out.hi);
  constexpr size_t kNewY = R * C * hn::MaxLanes(D()), kNewX = kNewY * S * S;
  const float* ahead_x = a.ahead_x + o / C * vectors * kNewX;
  const float* ahead_y = a.ahead_y + o / C * vectors * kNewY;
  const float* w = a.w + first_vector * (K * K + 1) * N;
  for (size_t v = first_vector; v < vectors; ++v) {
    FetchAhead<kNewX>(ahead_x);
    FetchAhead<kNewY>(ahead_y);
    V sum[R][C];
    const auto each = [&](auto&& f) LAMINA_INLINE {  // of the outputs that there are
      Unroll<R>([&](auto r) LAMINA_INLINE {
        Unroll<C>([&](auto c) LAMINA_INLINE {
          if (kInside || c < columns) f(sum[r][c], ptrdiff_t(r), ptrdiff_t(c));
        });
      });
    };
    const V bias = hn::Load(d, w + K * K * N);
    Unroll<R>([&](auto r) LAMINA_INLINE { Unroll<C>([&](auto c) LAMINA_INLINE { sum[r][c] = bias; }); });
    Unroll<K>([&](auto kh) LAMINA_INLINE {
      V weight[K];
      Unroll<K>([&](auto kw) LAMINA_INLINE { weight[kw] = hn::Load(d, w + (kh * K + kw) * N); });
      Unroll<R>([&](auto r) LAMINA_INLINE {
        const float* x_at = p[r * S + kh];
        if (!kInside && x_at == nullptr) return;
        Unroll<kInputColumns>([&](auto j) LAMINA_INLINE {
          if (kInside || (int(j) >= begin && int(j) < end)) {
            const V x = hn::LoadU(d, x_at);
            Unroll<K>([&](auto kw) LAMINA_INLINE {
              constexpr int c = (int(j) - int(kw)) / S;
              if constexpr (j >= kw && (j - kw) % S == 0 && c < C) sum[r][c] = hn::MulAdd(x, weight[kw], sum[r][c]);
            });
          }
          x_at += step;
        });
      });
    });
    w += (K * K + 1) * N;
    Unroll<kInputRows>([&](auto i) LAMINA_INLINE {
      if (kInside || p[i] != nullptr) p[i] += N;
    });
    if (residual == nullptr) {
      each([&](V& value, ptrdiff_t, ptrdiff_t) LAMINA_INLINE { value = Clamp(lo, hi, value); });
    } else {
      each([&](V& value, ptrdiff_t r, ptrdiff_t c) LAMINA_INLINE {
        const V add = hn::LoadU(d, residual + r * out.residual_row + c * out.residual_col);
        value = out.residual_after ? hn::Add(Clamp(lo, hi, value), add) : Clamp(lo, hi, hn::Add(value, add));
      });
      residual += N;
    }
    each([&](V& value, ptrdiff_t r, ptrdiff_t c)
             LAMINA_INLINE { hn::StoreU(value, d, y + r * out.y_row + c * out.y_col); });
    y += N;
  }
}

template <int K, int S, int R>
HWY_INLINE void Tiles(const DwConvRows& a, size_t first_vector) {
  constexpr int kColumns = S == 1 ? 4 : 2;
  bool rows_inside = true;
  for (int i = 0; i < (R - 1) * S + K; ++i) rows_inside &= a.x[i] != nullptr;
  for (size_t o = 0; o < a.out.columns; o += kColumns) {
    const int64_t left = static_cast<int64_t>(o) * S - a.pad_left;
    if (rows_inside && left >= 0 && left + (kColumns - 1) * S + K <= a.iw && o + kColumns <= a.out.columns) {
      TileVectors<K, S, R, kColumns, true>(a, first_vector, o);
    } else {
      TileVectors<K, S, R, kColumns, false>(a, first_vector, o);
    }
  }
}

template <int K, int S, int R, int VV>
HWY_INLINE void SlideAll(const DwConvRows& a) {
  const size_t N = hn::Lanes(D()), width = VV * N;  // a step's channels
  const DwConvOutput& out = a.out;
  if constexpr (CanLag(K, S)) {
    if (a.lag > 0) {
      const size_t steps = a.vectors / VV, slot = out.columns * R * width;  // one step's floats in the ring
      for (size_t i = 0; i < a.lag; ++i) {
        SlideVectors<K, S, R, VV, false>(a, i * VV, a.ring + i * slot, width, R * width, nullptr);
      }
      for (size_t i = a.lag; i < steps; ++i) {
        SlideVectors<K, S, R, VV, true>(a, i * VV, out.y + (i - a.lag) * width, out.y_row, out.y_col,
                                        a.ring + i % a.lag * slot);
      }
      for (size_t i = steps - a.lag; i < steps; ++i) {
        const float* from = a.ring + i % a.lag * slot;
        for (size_t o = 0; o < out.columns; ++o) {
          float* const y = out.y + i * width + ptrdiff_t(o) * out.y_col;
          Unroll<R>([&](auto r) LAMINA_INLINE {
            Unroll<VV>([&](auto v) LAMINA_INLINE {
              hn::StoreU(hn::Load(D(), from), D(), y + ptrdiff_t(r) * out.y_row + v * N);
              from += N;
            });
          });
        }
      }
      return;
    }
  }
  size_t v = 0;
  for (; v + VV <= a.vectors; v += VV) {
    SlideVectors<K, S, R, VV, false>(a, v, out.y + v * N, out.y_row, out.y_col, nullptr);
  }
  if constexpr (VV > 1) {
    if (v < a.vectors) Tiles<K, S, R>(a, v);
  }
}

// With 16 registers. A cache line is two vectors of AVX2, and of 3x3 there are registers for both.
constexpr bool kHasTiles = kRegisters == 16;
template <int K>
constexpr bool kSlides = !kHasTiles || K == 3 || K == 5;  // the rest is always tiles
template <int K>
constexpr int kStep = K == 3 && kHasTiles ? 2 : 1;

template <int K, int S, int R>
void Slide(const DwConvRows& a) {
  if constexpr (kHasTiles) {
    if (a.tiles || !kSlides<K>) return Tiles<K, S, R>(a, 0);
  }
  if constexpr (kSlides<K>) SlideAll<K, S, R, kStep<K>>(a);
}

// Slides of one row, two rows ..
template <int K, int S, int... R>
constexpr DwConvSlide MakeSlide(std::integer_sequence<int, R...>) {
  return {K, S, kStep<K>, kHasTiles, CanLag(K, S), sizeof...(R), {nullptr, &Slide<K, S, R + 1>...}};
}
template <int K, int S>
constexpr DwConvSlide MakeSlide() {
  return MakeSlide<K, S>(std::make_integer_sequence<int, kMaxRows<K, S>>());
}

void DwConvTapsOf(const DwConvTaps& a) {
  const D d;
  const size_t N = hn::Lanes(d);
  constexpr size_t kColumns = kDwConvTapColumns;
  const DwConvOutput& out = a.out;
  const float* const bias = a.w + a.kh * a.kw * N;
  const V lo = hn::Set(d, out.lo), hi = hn::Set(d, out.hi);
  for (size_t row = 0; row < out.rows; ++row) {
    for (size_t o = 0; o < out.columns; o += kColumns) {
      V sum[kColumns];
      Unroll<kColumns>([&](auto j) LAMINA_INLINE { sum[j] = hn::Load(d, bias); });
      const float* x_row = a.x + ptrdiff_t(row) * a.x_row + ptrdiff_t(o) * a.x_col;
      const float* w = a.w;
      for (size_t kh = 0; kh < a.kh; ++kh, x_row += a.tap_row) {
        const float* x = x_row;
        for (size_t kw = 0; kw < a.kw; ++kw, x += a.tap_col, w += N) {
          const V wv = hn::Load(d, w);
          Unroll<kColumns>(
              [&](auto j) LAMINA_INLINE { sum[j] = hn::MulAdd(wv, hn::Load(d, x + ptrdiff_t(j) * a.x_col), sum[j]); });
        }
      }
      float* y = out.y + ptrdiff_t(row) * out.y_row + ptrdiff_t(o) * out.y_col;
      const float* residual = out.residual;
      if (residual != nullptr) residual += ptrdiff_t(row) * out.residual_row + ptrdiff_t(o) * out.residual_col;
      const size_t columns = out.columns - o;
      Unroll<kColumns>([&](auto j) LAMINA_INLINE {
        if (j < columns) {
          V v = sum[j];
          if (residual == nullptr) {
            v = Clamp(lo, hi, v);
          } else {
            const V add = hn::LoadU(d, residual + ptrdiff_t(j) * out.residual_col);
            v = out.residual_after ? hn::Add(Clamp(lo, hi, v), add) : Clamp(lo, hi, hn::Add(v, add));
          }
          hn::StoreU(v, d, y + ptrdiff_t(j) * out.y_col);
        }
      });
    }
  }
}

void LoadBlock(const float* x, ptrdiff_t pixel, size_t pixels, size_t channels, const int32_t* lane, float* block) {
  const D d;
  const size_t N = hn::Lanes(d);
  const auto indices = hn::SetTableIndices(d, lane);
  for (size_t p = 0; p < pixels; ++p, x += pixel, block += N) {
    hn::StoreU(hn::TableLookupLanes(LoadUpTo(d, x, channels), indices), d, block);
  }
}

void StoreBlock(const float* block, size_t pixels, size_t channels, float* y, ptrdiff_t pixel) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t p = 0; p < pixels; ++p, y += pixel, block += N) StoreUpTo(hn::LoadU(d, block), d, y, channels);
}

const DwConvKernel& ChooseDwConv() {
  static_assert(hn::MaxLanes(D()) <= kMaxDwConvLanes, "callers' arrays are that long");
  static const DwConvKernel kernel{hn::Lanes(D()),
                                   kTails,
                                   {MakeSlide<3, 1>(), MakeSlide<3, 2>(), MakeSlide<5, 1>(), MakeSlide<5, 2>(),
                                    MakeSlide<2, 1>(), MakeSlide<4, 1>(), MakeSlide<7, 1>()},
                                   &DwConvTapsOf,
                                   &LoadBlock,
                                   &StoreBlock};
  return kernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {
HWY_EXPORT(ChooseDwConv);
const DwConvKernel& GetDwConvKernel(Isa isa) { return LAMINA_DISPATCH(ChooseDwConv, isa)(); }
}  // namespace lamina::cpu
#endif
