// Flash attention for many queries, fp32: o = softmax(scale * q k' + ..) v, tile by tile over the keys with an online
// softmax (Milakov and Gimelshein 2018; Dao et al. 2022). Lanes are queries:
//   S'[key, query]  = k[key, :] (broadcast, where the caller has it) * q'[:, query] (transposed once per block)
//   O'[c, query]   += v[key, c] (broadcast, where the caller has it) * P'[key, query],     P' = 2^(S' - maximum)
// so K and V are never packed, and maximum, sum and masks are vertical. Both products are one micro-kernel.
//
// Registers: tile of M keys (or channels of v) x VV vectors of queries: M * VV accumulators + VV of the panel + 1
// broadcast: AVX-512 4x4: 16 + 4 + 1 = 21 of 32 (and 4 maxima); AVX2 4x3: 12 + 3 + 1 = 16 of 16. With fewer vectors the
// tile is higher, so that eight chains of FMAs or more are in flight. Memory for 64 queries, head_dim 64, 64 keys a
// block: q' 16 KiB, then S' 16 KiB and O' 16 KiB: L1 holds what a phase needs. head_dim, value_dim, keys, rows: any;
// rows up to vectors * lanes.
#include <algorithm>

#include "kernels/cpu/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_flash.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/attention-inl.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/exp2-inl.h"
#include "kernels/cpu/query_panel-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr size_t kKeys = 64;          // of a tile
constexpr size_t kPrefetchKeys = 16;  // how far ahead keys are asked for
constexpr size_t kMaxTile = 8;        // greatest M
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
constexpr size_t kVectors = 4;
template <size_t VV>
constexpr size_t kTile = VV <= 2 ? 8 : 4;
#else
constexpr size_t kVectors = 3;
template <size_t VV>
constexpr size_t kTile = VV == 1   ? 8
                         : VV == 2 ? 6
                                   : 4;
#endif

// One worker's scratch, all [..][pitch] with pitch = the rows rounded up to vectors.
struct Panels {
  Panels(const AttentionBlock& b, size_t pitch, float* scratch) {
    const auto take = [&](size_t columns) {
      float* const at = scratch;
      scratch += columns * pitch;
      return at;
    };
    q = take(b.head_dim);
    s = take(kKeys + kMaxTile);  // the last tile of keys may be padded
    o = take(b.value_dim + kMaxTile);
    maximum = take(1), sum = take(1), alpha = take(1), peak = take(1);
    addend = take(kKeys), keep = take(kKeys);
  }
  static size_t Columns(const AttentionBlock& b) {
    return b.head_dim + b.value_dim + kKeys + 2 * kMaxTile + 4 + (b.masked || b.biased ? 2 * kKeys : 0);
  }
  float *q, *s, *o;              // q' [head_dim], S' then P' [kKeys], O' [value_dim]
  float *maximum, *sum, *alpha;  // of the softmax so far; what the last maximum's change multiplies by
  float* peak;                   // the current tile's maximum
  float *addend, *keep;          // bias and mask of the tile, transposed and not
};

// acc[r][v] += sum over t < count of a[r][t * step] * panel[t][v]
template <size_t M, size_t VV>
HWY_INLINE void Multiply(const float* const (&a)[M], ptrdiff_t step, size_t count, const float* HWY_RESTRICT panel,
                         V (&acc)[M][VV]) {
  const D d;
  const size_t N = hn::Lanes(d);
  ptrdiff_t at = 0;
  for (size_t t = 0; t < count; ++t, at += step, panel += VV * N) {
    V row[VV];
    Unroll<VV>([&](auto v) LAMINA_INLINE { row[v] = hn::Load(d, panel + v * N); });
    Unroll<M>([&](auto r) LAMINA_INLINE {
      const V x = hn::Set(d, a[r][at]);
      Unroll<VV>([&](auto v) LAMINA_INLINE { acc[r][v] = hn::MulAdd(x, row[v], acc[r][v]); });
    });
  }
}

// Asks for M rows of K or V from row j on. The hardware's prefetcher stops at a page's end, and rows of 16 heads of 64
// lie in a page each: 9.0 instead of 10.3 ms for 512 x 512 of them (Emerald Rapids, AVX-512, 2026-11-23); dense rows
// gain nothing and lose nothing.
template <size_t M>
HWY_INLINE void PrefetchRows(const float* from, ptrdiff_t stride, size_t j, size_t columns) {
  from += static_cast<ptrdiff_t>(j) * stride;
  for (size_t c = 0; c < columns; c += 16) {
    Unroll<M>([&](auto r) LAMINA_INLINE { hwy::Prefetch(from + static_cast<ptrdiff_t>(r) * stride + c); });
  }
}

// S' of keys [j0, j0 + n) and each query's maximum over them. Rows of the last tile beyond n repeat key n - 1.
template <size_t VV>
HWY_NOINLINE void Scores(const AttentionBlock& b, const Panels& p, size_t j0, size_t n) {
  constexpr size_t M = kTile<VV>;
  const D d;
  const size_t N = hn::Lanes(d);
  V peak[VV];
  Unroll<VV>([&](auto v) LAMINA_INLINE { peak[v] = hn::Set(d, kLowest); });
  for (size_t j = 0; j < n; j += M) {
    const float* key[M];
    Unroll<M>([&](auto r)
                  LAMINA_INLINE { key[r] = b.k + static_cast<ptrdiff_t>(j0 + HWY_MIN(j + r, n - 1)) * b.k_row; });
    PrefetchRows<M>(b.k, b.k_row, j0 + j + kPrefetchKeys, b.head_dim);
    PrefetchRows<M>(b.v, b.v_row, j0 + j, b.value_dim);
    V acc[M][VV];
    Unroll<M>([&](auto r) LAMINA_INLINE { Unroll<VV>([&](auto v) LAMINA_INLINE { acc[r][v] = hn::Zero(d); }); });
    Multiply<M, VV>(key, 1, b.head_dim, p.q, acc);
    Unroll<M>([&](auto r) LAMINA_INLINE {
      Unroll<VV>([&](auto v) LAMINA_INLINE {
        hn::Store(acc[r][v], d, p.s + ((j + r) * VV + v) * N);
        peak[v] = hn::Max(peak[v], acc[r][v]);
      });
    });
  }
  Unroll<VV>([&](auto v) LAMINA_INLINE { hn::Store(peak[v], d, p.peak + v * N); });
}

// O' = O' * alpha + V' P' over the tile; the first tile starts from nothing.
template <size_t VV>
HWY_NOINLINE void Values(const AttentionBlock& b, const Panels& p, size_t j0, size_t n, bool first) {
  constexpr size_t M = kTile<VV>;
  const D d;
  const size_t N = hn::Lanes(d);
  const float* const v0 = b.v + static_cast<ptrdiff_t>(j0) * b.v_row;
  for (size_t c = 0; c < b.value_dim; c += M) {
    const float* column[M];
    Unroll<M>([&](auto r) LAMINA_INLINE { column[r] = v0 + HWY_MIN(c + r, b.value_dim - 1); });
    V acc[M][VV];
    float* const o = p.o + c * VV * N;
    if (first) {
      Unroll<M>([&](auto r) LAMINA_INLINE { Unroll<VV>([&](auto v) LAMINA_INLINE { acc[r][v] = hn::Zero(d); }); });
    } else {
      Unroll<VV>([&](auto v) LAMINA_INLINE {
        const V alpha = hn::Load(d, p.alpha + v * N);
        Unroll<M>([&](auto r) LAMINA_INLINE { acc[r][v] = hn::Mul(hn::Load(d, o + (r * VV + v) * N), alpha); });
      });
    }
    Multiply<M, VV>(column, b.v_row, n, p.s, acc);
    Unroll<M>([&](auto r) LAMINA_INLINE {
      Unroll<VV>([&](auto v) LAMINA_INLINE { hn::Store(acc[r][v], d, o + (r * VV + v) * N); });
    });
  }
}

// Values for a tile with pairs that are not kept and a value that is not finite: those pairs, marked by a weight of -0,
// are skipped, since 0 * NaN would not be 0.
HWY_NOINLINE void ValuesOfKept(const AttentionBlock& b, const Panels& p, size_t pitch, size_t j0, size_t n,
                               bool first) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t c = 0; c < b.value_dim; ++c) {
    for (size_t r = 0; r < pitch; r += N) {
      float* const o = p.o + c * pitch + r;
      V acc = first ? hn::Zero(d) : hn::Mul(hn::Load(d, o), hn::Load(d, p.alpha + r));
      for (size_t j = 0; j < n; ++j) {
        const V weight = hn::Load(d, p.s + j * pitch + r);
        const V value = hn::Set(d, b.v[static_cast<ptrdiff_t>(j0 + j) * b.v_row + static_cast<ptrdiff_t>(c)]);
        acc = hn::IfThenElse(IsDropped(d, weight), acc, hn::MulAdd(weight, value, acc));
      }
      hn::Store(acc, d, o);
    }
  }
}

// Whether bias and mask change the tile's scores, and what is added then: -inf where a pair is not kept.
enum class Addend { kNone, kSome, kNothingKept };

HWY_NOINLINE Addend MakeAddend(const AttentionBlock& b, const Panels& p, size_t pitch, size_t j0, size_t n) {
  size_t kept = pitch * n;
  if (b.masked) {
    kept = 0;
    for (size_t r = 0; r < pitch; ++r) {
      for (size_t j = 0; j < n; ++j) kept += b.mask[r][j0 + j] != 0;
    }
    if (kept == 0) return Addend::kNothingKept;
  }
  if (kept == pitch * n) {
    if (!b.biased) return Addend::kNone;
    PackRows(b.bias, j0, n, kLog2E, p.addend, pitch);
    return Addend::kSome;
  }
  const float* rows[kMaxAttentionRows];
  for (size_t r = 0; r < pitch; ++r) {
    float* const row = p.keep + r * kKeys;
    rows[r] = row;
    for (size_t j = 0; j < n; ++j) row[j] = b.mask[r][j0 + j] ? 0.0f : kMinusInfinity;
    for (size_t j = 0; b.biased && j < n; ++j) row[j] = b.mask[r][j0 + j] ? b.bias[r][j0 + j] : row[j];
  }
  PackRows(rows, 0, n, kLog2E, p.addend, pitch);
  return Addend::kSome;
}

// Softcap, bias, alibi and masks on the tile's scores, whose maximum is taken anew: what is not kept becomes -inf
// whatever it was.
HWY_NOINLINE void Adjust(const AttentionBlock& b, const Panels& p, size_t pitch, size_t j0, size_t n, bool added,
                         bool cut) {
  const D d;
  const hn::RebindToSigned<D> di;
  const size_t N = hn::Lanes(d);
  const V nothing = hn::Set(d, kMinusInfinity);
  for (size_t r = 0; r < pitch; r += N) {
    const auto first = hn::LoadU(di, b.first + r), last = hn::LoadU(di, b.last + r);
    V peak = hn::Set(d, kLowest);
    for (size_t j = 0; j < n; ++j) {
      const auto key = hn::Set(di, static_cast<int32_t>(j0 + j));
      float* const at = p.s + j * pitch + r;
      V s = hn::Load(d, at);
      if (b.softcap > 0) s = SoftCap(d, b.softcap, s);
      if (b.alibi) {
        const V distance = hn::ConvertTo(d, hn::Sub(key, hn::LoadU(di, b.origin + r)));
        s = hn::MulAdd(hn::LoadU(d, b.slope + r), distance, s);
      }
      if (added) {
        const V a = hn::Load(d, p.addend + j * pitch + r);
        s = hn::IfThenElse(hn::Eq(a, nothing), nothing, hn::Add(s, a));
      }
      if (cut) {
        const auto kept = hn::AndNot(hn::Lt(key, first), hn::Lt(key, last));
        s = hn::IfThenElse(hn::RebindMask(d, kept), s, nothing);
      }
      hn::Store(s, d, at);
      peak = hn::Max(peak, s);
    }
    hn::Store(peak, d, p.peak + r);
  }
}

// P' = 2^(S' - maximum), in S' place, after taking the tile's maximum into the running one. `marked`: what is not kept
// gets -0.
HWY_NOINLINE void Softmax(const Panels& p, size_t pitch, size_t n, bool marked) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t r = 0; r < pitch; r += N) {
    const V before = hn::Load(d, p.maximum + r), maximum = hn::Max(before, hn::Load(d, p.peak + r));
    const V alpha = Exp2(d, hn::Sub(before, maximum));
    V sum[2] = {hn::Mul(hn::Load(d, p.sum + r), alpha), hn::Zero(d)};
    const auto weight = [&](size_t j) LAMINA_INLINE {
      float* const at = p.s + j * pitch + r;
      const V s = hn::Load(d, at);
      const V weight = marked ? MarkedWeight(d, s, maximum) : Exp2(d, hn::Sub(s, maximum));
      hn::Store(weight, d, at);
      return weight;
    };
    size_t j = 0;
    for (; j + 2 <= n; j += 2) {
      sum[0] = hn::Add(sum[0], weight(j));
      sum[1] = hn::Add(sum[1], weight(j + 1));
    }
    if (j < n) sum[0] = hn::Add(sum[0], weight(j));
    hn::Store(maximum, d, p.maximum + r);
    hn::Store(alpha, d, p.alpha + r);
    hn::Store(hn::Add(sum[0], sum[1]), d, p.sum + r);
  }
}

// Scores to final weights in place, 0 where a pair is not kept.
HWY_NOINLINE void FinalWeights(const Panels& p, size_t pitch, size_t n, const float* factor) {
  const D d;
  for (size_t r = 0; r < pitch; r += hn::Lanes(d)) {
    const V maximum = hn::Load(d, p.maximum + r), f = hn::Load(d, factor + r);
    for (size_t j = 0; j < n; ++j) {
      float* const at = p.s + j * pitch + r;
      const V s = hn::Load(d, at), weight = hn::Mul(Exp2(d, hn::Sub(s, maximum)), f);
      hn::Store(hn::IfThenZeroElse(hn::Eq(s, hn::Set(d, kMinusInfinity)), weight), d, at);
    }
  }
}

// Calls f(j0, n, marked) for each tile of keys that has a kept pair, its scores in S'. Tiles end where causal and
// window begin to cut, so that most need no masks.
template <size_t VV, class F>
HWY_INLINE void ForEachTile(const AttentionBlock& b, const Panels& p, const F& f) {
  const size_t pitch = VV * hn::Lanes(D());
  for (size_t j0 = b.begin, n; j0 < b.end; j0 += n) {
    const size_t limit = j0 < b.whole_begin ? b.whole_begin : j0 < b.whole_end ? b.whole_end : b.end;
    n = HWY_MIN(kKeys, limit - j0);
    const bool cut = j0 < b.whole_begin || j0 >= b.whole_end;
    const Addend addend = b.masked || b.biased ? MakeAddend(b, p, pitch, j0, n) : Addend::kNone;
    if (addend == Addend::kNothingKept) continue;
    Scores<VV>(b, p, j0, n);
    const bool added = addend == Addend::kSome;
    if (cut || added || b.alibi || b.softcap > 0) Adjust(b, p, pitch, j0, n, added, cut);
    f(j0, n, cut || added);
  }
}

template <size_t VV>
void Flash(const AttentionBlock& b, float* scratch) {
  const D d;
  const size_t pitch = VV * hn::Lanes(d);
  const Panels p(b, pitch, scratch);
  PackRows(b.q, 0, b.head_dim, b.scale, p.q, pitch);
  // Finite, so that a row without any key so far has S' - maximum = -inf and not NaN.
  std::fill_n(p.maximum, pitch, kLowest);
  std::fill_n(p.sum, pitch, 0.0f);
  // The output's lines come while the scores are computed: 2 to 4% where they lie beyond the L2 cache.
  for (size_t r = 0; r < b.rows; ++r) PrefetchRows<1>(b.o[r], 0, 0, b.value_dim);
  bool first = true;
  ForEachTile<VV>(b, p, [&](size_t j0, size_t n, bool marked) {
    Softmax(p, pitch, n, marked);
    if (marked && !AllFinite(b.v + static_cast<ptrdiff_t>(j0) * b.v_row, b.v_row, n, b.value_dim)) {
      ValuesOfKept(b, p, pitch, j0, n, first);
    } else {
      Values<VV>(b, p, j0, n, first);
    }
    first = false;
  });
  if (first) std::fill_n(p.o, pitch * b.value_dim, 0.0f);

  float* const factor = p.alpha;
  for (size_t r = 0; r < pitch; ++r) factor[r] = p.sum[r] == 0 ? 0.0f : 1 / p.sum[r];
  UnpackRows(p.o, pitch, b.value_dim, factor, b.o, 0, b.rows);
  for (size_t r = 0; b.lse != nullptr && r < b.rows; ++r) b.lse[r] = LogSumExp(p.maximum[r], p.sum[r]);
  if (b.weights == nullptr) return;

  // A second pass over the keys, now that maximum and sum are known.
  float* rows[kMaxAttentionRows];
  for (size_t r = 0; r < b.rows; ++r) {
    rows[r] = b.weights + r * b.seqlen_kv;
    std::fill_n(rows[r], b.seqlen_kv, 0.0f);
  }
  ForEachTile<VV>(b, p, [&](size_t j0, size_t n, bool) {
    FinalWeights(p, pitch, n, factor);
    std::fill_n(p.peak, pitch, 1.0f);
    UnpackRows(p.s, pitch, n, p.peak, rows, j0, b.rows);
  });
}

size_t ScratchFloats(const AttentionBlock& b) { return Panels::Columns(b) * kVectors * hn::Lanes(D()); }

void Run(const AttentionBlock& b, float* scratch) {
  const size_t vectors = (b.rows + hn::Lanes(D()) - 1) / hn::Lanes(D());
  if (vectors == 1) return Flash<1>(b, scratch);
  if (vectors == 2) return Flash<2>(b, scratch);
  if (vectors == 3) return Flash<3>(b, scratch);
  if constexpr (kVectors >= 4) return Flash<4>(b, scratch);
}

}  // namespace

const FlashKernel& ChooseFlash() {
  static const FlashKernel kernel = {hn::Lanes(D()), kVectors, &ScratchFloats, &Run};
  return kernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {
HWY_EXPORT(ChooseFlash);
const FlashKernel& GetFlashKernel(Isa isa) { return LAMINA_DISPATCH(ChooseFlash, isa)(); }
}  // namespace lamina::cpu
#endif
