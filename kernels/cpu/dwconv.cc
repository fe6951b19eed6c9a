// Depthwise convolution of one vector of channels:
//   y[r, o] = clamp(bias + sum_{kh,kw} x[r * stride + kh, o * stride + kw - pad_left] * w[kh, kw] + residual)
//
// Slide: input columns are visited once, from left to right; column j adds to the T = ceil(K / S) outputs in flight of
// each of R rows, the oldest of which is then complete. Each x is loaded once for all of them, so L1 gives
// (R - 1) * S + K vectors for up to K * K * R multiply-adds.
//   registers, K = 3 S = 1 R = 4: 12 sums + 9 weights + 1 x + 2 limits = 24 of 32; R = 2: 6 + 9 + 1 = 16 of 16, for a
//   pair of vectors 12 + 1 x, weights from memory
//   K = 5 S = 1 R = 4: 20 sums + 8 x + 1 weight + 2 limits = 31 of 32; R = 2: 10 + 6 + 1 of 16
// Lag: a load whose address agrees with that of a store before it in the last twelve bits waits for that store. Stores
// can lag behind by a vector of channels or two, which the ring in L1 holds meanwhile (see DepthwiseStep::ChooseLag).
// Taps: 8 columns of one row, 8 sums + 1 weight, x as memory operands: 9 loads for 8 multiply-adds.
//
// Of the FMA peak, AVX-512: Zen 4 (2026-11-26) 86 to 90 % on 3x3 and 5x5, 59 to 65 % on 7x7 with 1024 channels, all of
// whose columns share one set of L1. Emerald Rapids (2026-11-23) a third to two thirds, 5x5 86 %. Rotating the sums by
// unrolling T columns instead of moving registers gained nothing on it. R = 7 and prefetching y gained nothing on
// Zen 4.
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

// 5x5 and stride 2 read more between two stores and do not suffer (see DwConvRows::lag).
constexpr bool CanLag(int k, int stride) { return k == 3 && stride == 1; }

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
  ptrdiff_t step[kInputRows];
  Unroll<kInputRows>([&](auto i) LAMINA_INLINE {
    step[i] = a.x_col[i];
    p[i] = a.x[i] + (step[i] == 0 ? 0 : channel);
  });
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
        p[i] += step[i];
      });
    } else {
      V x[kInputRows];
      Unroll<kInputRows>([&](auto i) LAMINA_INLINE {
        x[i] = lanes.Load(p[i]);
        p[i] += step[i];
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
  const uint64_t iw = static_cast<uint64_t>(a.iw);
  // The first column of the step that completes output 1 - T: outputs < 0 are not kept.
  int64_t column = K - T * S - a.pad_left;
  for (int64_t o = 1 - T; o < static_cast<int64_t>(out.columns); ++o) {
    Unroll<S>([&](auto phase) LAMINA_INLINE {
      if (static_cast<uint64_t>(column) < iw) add_column(phase);
      ++column;
    });
    if (o >= 0) {
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
    for (; v < a.vectors; ++v) SlideVectors<K, S, R, 1, false>(a, v, out.y + v * N, out.y_row, out.y_col, nullptr);
  }
}

template <int K, int S, int R, bool kPairs>
void Slide(const DwConvRows& a) {
  if constexpr (kPairs) {
    if (a.pairs) return SlideAll<K, S, R, 2>(a);
  }
  SlideAll<K, S, R, 1>(a);
}

// Slides of one row, two rows ..
template <int K, int S, bool kPairs, int... R>
constexpr DwConvSlide MakeSlide(std::integer_sequence<int, R...>) {
  return {K, S, kPairs, CanLag(K, S), sizeof...(R), {nullptr, &Slide<K, S, R + 1, kPairs>...}};
}
template <int K, int S, int kRows>
constexpr DwConvSlide MakeSlide() {
  // A cache line is two vectors of AVX2, and of 3x3 there are registers for both.
  return MakeSlide < K, S, kRegisters == 16 && K == 3 > (std::make_integer_sequence<int, kRows>());
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
  constexpr int kRows = kRegisters == 32 ? 4 : 2;
  static const DwConvKernel kernel{
      hn::Lanes(D()),
      kTails,
      {MakeSlide<3, 1, kRows>(), MakeSlide<3, 2, 2>(), MakeSlide<5, 1, kRows>(), MakeSlide<5, 2, 2>()},
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
