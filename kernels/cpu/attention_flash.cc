// Flash attention for many queries, fp32: o = softmax(scale * q k' + ..) v, tile by tile over the keys with an online
// softmax (Milakov and Gimelshein 2018; Dao et al. 2022). Lanes are queries:
//   S'[key, query]  = k[key, :] (broadcast, where the caller has it) * q'[:, query] (transposed once per block)
//   O'[c, query]   += v[key, c] (broadcast, where the caller has it) * P'[key, query],     P' = 2^(S' - maximum)
// so K and V are never packed, and maximum, sum and masks are vertical. Both products are one micro-kernel. Where a
// causal mask cuts a tile of keys, each vector of queries ends at its own diagonal.
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
constexpr size_t kTogether = 4;       // vectors of a softmax
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

// Some of the keys. Under a causal mask earlier queries see fewer of them: vector v of queries the first live[v], which
// do not decrease with v, and what lies beyond is not computed (1024 causal keys on Zen 4: 4%, 128: 13%).
struct Tile {
  size_t begin, keys;
  bool cut;  // by causal or window
  size_t live[kVectors];
};

// acc[r][v] += sum over begin <= t < end of a[r][t * step] * panel[t][v], for vectors v >= kFrom.
template <size_t kFrom, size_t M, size_t VV>
HWY_INLINE void Multiply(const float* const (&a)[M], ptrdiff_t step, size_t begin, size_t end,
                         const float* HWY_RESTRICT panel, V (&acc)[M][VV]) {
  const D d;
  const size_t N = hn::Lanes(d);
  ptrdiff_t at = static_cast<ptrdiff_t>(begin) * step;
  panel += (begin * VV + kFrom) * N;
  for (size_t t = begin; t < end; ++t, at += step, panel += VV * N) {
    V row[VV - kFrom];
    Unroll<VV - kFrom>([&](auto v) LAMINA_INLINE { row[v] = hn::Load(d, panel + v * N); });
    Unroll<M>([&](auto r) LAMINA_INLINE {
      const V x = hn::Set(d, a[r][at]);
      Unroll<VV - kFrom>([&](auto v) LAMINA_INLINE { acc[r][kFrom + v] = hn::MulAdd(x, row[v], acc[r][kFrom + v]); });
    });
  }
}

// Asks for M rows of K or V from row j on. The hardware's prefetcher stops at a page's end, and rows of 16 heads of 64
// lie in a page each: 9.0 instead of 10.3 ms for 512 x 512 of them (Emerald Rapids, AVX-512, 2026-11-23); dense rows
// gain nothing, and on Zen 4 they lose 2% (AVX-512) to 4% (AVX2).
template <size_t M>
HWY_INLINE void PrefetchRows(const float* from, ptrdiff_t stride, size_t j, size_t columns) {
  from += static_cast<ptrdiff_t>(j) * stride;
  for (size_t c = 0; c < columns; c += 16) {
    Unroll<M>([&](auto r) LAMINA_INLINE { hwy::Prefetch(from + static_cast<ptrdiff_t>(r) * stride + c); });
  }
}

// Where dense rows need none of it, a call that is not made costs nothing; inlined, it took registers (0.5%, Zen 4).
template <size_t M>
HWY_NOINLINE void PrefetchKeys(const AttentionBlock& b, size_t j) {
  PrefetchRows<M>(b.k, b.k_row, j + kPrefetchKeys, b.head_dim);
  PrefetchRows<M>(b.v, b.v_row, j, b.value_dim);
}

// S' of keys [begin, end) of the tile for vectors from kFrom on, and each query's maximum over them where these are all
// vectors. Rows of the last group beyond `end` repeat the last key.
template <size_t VV, size_t kFrom>
HWY_INLINE void ScoreKeys(const AttentionBlock& b, const Panels& p, size_t j0, size_t begin, size_t end) {
  constexpr size_t M = kTile<VV - kFrom>;
  const D d;
  const size_t N = hn::Lanes(d);
  const bool apart = static_cast<size_t>(b.k_row) != b.head_dim;
  V peak[VV];
  Unroll<VV>([&](auto v) LAMINA_INLINE { peak[v] = hn::Set(d, kLowest); });
  for (size_t j = begin; j < end; j += M) {
    const float* key[M];
    Unroll<M>([&](auto r)
                  LAMINA_INLINE { key[r] = b.k + static_cast<ptrdiff_t>(j0 + HWY_MIN(j + r, end - 1)) * b.k_row; });
    if (apart) PrefetchKeys<M>(b, j0 + j);
    V acc[M][VV];
    Unroll<M>([&](auto r) LAMINA_INLINE { Unroll<VV>([&](auto v) LAMINA_INLINE { acc[r][v] = hn::Zero(d); }); });
    Multiply<kFrom>(key, 1, 0, b.head_dim, p.q, acc);
    Unroll<M>([&](auto r) LAMINA_INLINE {
      Unroll<VV - kFrom>([&](auto i) LAMINA_INLINE {
        constexpr size_t v = kFrom + i;
        hn::Store(acc[r][v], d, p.s + ((j + r) * VV + v) * N);
        peak[v] = hn::Max(peak[v], acc[r][v]);
      });
    });
  }
  if constexpr (kFrom == 0) Unroll<VV>([&](auto v) LAMINA_INLINE { hn::Store(peak[v], d, p.peak + v * N); });
}

// S' of the tile. Adjust takes the maximum of a tile that is cut.
template <size_t VV, bool kCut>
HWY_NOINLINE void Scores(const AttentionBlock& b, const Panels& p, const Tile& tile) {
  ScoreKeys<VV, 0>(b, p, tile.begin, 0, tile.live[0]);
  Unroll<kCut ? VV - 1 : 0>([&](auto v) LAMINA_INLINE {
    if (tile.live[v] < tile.live[v + 1]) ScoreKeys<VV, v + 1>(b, p, tile.begin, tile.live[v], tile.live[v + 1]);
  });
}

// O' = O' * alpha + V' P' over the tile; the first tile starts from nothing.
template <size_t VV, bool kCut>
HWY_NOINLINE void Values(const AttentionBlock& b, const Panels& p, const Tile& tile, bool first) {
  constexpr size_t M = kTile<VV>;
  const D d;
  const size_t N = hn::Lanes(d);
  const float* const v0 = b.v + static_cast<ptrdiff_t>(tile.begin) * b.v_row;
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
    Multiply<0>(column, b.v_row, 0, tile.live[0], p.s, acc);
    Unroll<kCut ? VV - 1 : 0>(
        [&](auto v) LAMINA_INLINE { Multiply<v + 1>(column, b.v_row, tile.live[v], tile.live[v + 1], p.s, acc); });
    Unroll<M>([&](auto r) LAMINA_INLINE {
      Unroll<VV>([&](auto v) LAMINA_INLINE { hn::Store(acc[r][v], d, o + (r * VV + v) * N); });
    });
  }
}

// Values for a tile with pairs that are not kept and a value that is not finite: those pairs, marked by a weight of -0,
// are skipped, since 0 * NaN would not be 0.
HWY_NOINLINE void ValuesOfKept(const AttentionBlock& b, const Panels& p, size_t pitch, const Tile& tile, bool first) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t c = 0; c < b.value_dim; ++c) {
    for (size_t r = 0; r < pitch; r += N) {
      float* const o = p.o + c * pitch + r;
      V acc = first ? hn::Zero(d) : hn::Mul(hn::Load(d, o), hn::Load(d, p.alpha + r));
      for (size_t j = 0; j < tile.live[r / N]; ++j) {
        const V weight = hn::Load(d, p.s + j * pitch + r);
        const V value = hn::Set(d, b.v[static_cast<ptrdiff_t>(tile.begin + j) * b.v_row + static_cast<ptrdiff_t>(c)]);
        acc = hn::IfThenElse(IsDropped(d, weight), acc, hn::MulAdd(weight, value, acc));
      }
      hn::Store(acc, d, o);
    }
  }
}

// Whether bias and mask change the tile's scores, and what is added then: -inf where a pair is not kept.
enum class Addend { kNone, kSome, kNothingKept };

HWY_NOINLINE Addend MakeAddend(const AttentionBlock& b, const Panels& p, size_t pitch, const Tile& tile) {
  const size_t j0 = tile.begin, n = tile.keys;
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
HWY_NOINLINE void Adjust(const AttentionBlock& b, const Panels& p, size_t pitch, const Tile& tile, bool added) {
  const D d;
  const hn::RebindToSigned<D> di;
  const size_t N = hn::Lanes(d);
  const V nothing = hn::Set(d, kMinusInfinity);
  for (size_t r = 0; r < pitch; r += N) {
    const auto first = hn::LoadU(di, b.first + r), last = hn::LoadU(di, b.last + r);
    V peak = hn::Set(d, kLowest);
    for (size_t j = 0; j < tile.live[r / N]; ++j) {
      const auto key = hn::Set(di, static_cast<int32_t>(tile.begin + j));
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
      if (tile.cut) {
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
HWY_NOINLINE void Softmax(const Panels& p, size_t pitch, const Tile& tile, bool marked) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t r = 0; r < pitch; r += N) {
    const V before = hn::Load(d, p.maximum + r), maximum = hn::Max(before, hn::Load(d, p.peak + r));
    const V alpha = Exp2(d, hn::Sub(before, maximum));
    V sum = hn::Mul(hn::Load(d, p.sum + r), alpha);
    const size_t n = tile.live[r / N];
    float* at = p.s + r;
    size_t j = 0;
    for (; !marked && j + kTogether <= n; j += kTogether, at += kTogether * pitch) {
      V x[kTogether];
      Unroll<kTogether>([&](auto i) LAMINA_INLINE { x[i] = hn::Sub(hn::Load(d, at + i * pitch), maximum); });
      Exp2(d, x);
      Unroll<kTogether>([&](auto i) LAMINA_INLINE {
        hn::Store(x[i], d, at + i * pitch);
        sum = hn::Add(sum, x[i]);
      });
    }
    for (; j < n; ++j, at += pitch) {
      const V s = hn::Load(d, at), weight = marked ? MarkedWeight(d, s, maximum) : Exp2(d, hn::Sub(s, maximum));
      hn::Store(weight, d, at);
      sum = hn::Add(sum, weight);
    }
    hn::Store(maximum, d, p.maximum + r);
    hn::Store(alpha, d, p.alpha + r);
    hn::Store(sum, d, p.sum + r);
  }
}

// Scores to final weights in place, 0 where a pair is not kept.
HWY_NOINLINE void FinalWeights(const Panels& p, size_t pitch, const Tile& tile, const float* factor) {
  const D d;
  const size_t N = hn::Lanes(d);
  for (size_t r = 0; r < pitch; r += N) {
    const V maximum = hn::Load(d, p.maximum + r), f = hn::Load(d, factor + r);
    for (size_t j = tile.live[r / N]; j < tile.keys; ++j) hn::Store(hn::Zero(d), d, p.s + j * pitch + r);
    for (size_t j = 0; j < tile.live[r / N]; ++j) {
      float* const at = p.s + j * pitch + r;
      const V s = hn::Load(d, at), weight = hn::Mul(Exp2(d, hn::Sub(s, maximum)), f);
      hn::Store(hn::IfThenZeroElse(hn::Eq(s, hn::Set(d, kMinusInfinity)), weight), d, at);
    }
  }
}

// Calls f(tile, some_dropped) for each tile of keys that has a kept pair, its scores in S'. Tiles end where causal and
// window begin to cut, so that most need no masks.
template <size_t VV, class F>
HWY_INLINE void ForEachTile(const AttentionBlock& b, const Panels& p, const F& f) {
  const size_t N = hn::Lanes(D()), pitch = VV * N;
  size_t last[VV];  // the first key that no query up to this vector keeps
  for (size_t v = 0; v < VV; ++v) {
    last[v] = static_cast<size_t>(*std::max_element(b.last, b.last + (v + 1) * N));
  }
  Tile tile;
  for (tile.begin = b.begin; tile.begin < b.end; tile.begin += tile.keys) {
    const size_t j0 = tile.begin;
    const size_t limit = j0 < b.whole_begin ? b.whole_begin : j0 < b.whole_end ? b.whole_end : b.end;
    tile.keys = HWY_MIN(kKeys, limit - j0);
    tile.cut = j0 < b.whole_begin || j0 >= b.whole_end;
    for (size_t v = 0; v < VV; ++v) {
      tile.live[v] = HWY_MIN(tile.keys, HWY_MAX(last[v], j0) - j0);
    }
    const Addend addend = b.masked || b.biased ? MakeAddend(b, p, pitch, tile) : Addend::kNone;
    if (addend == Addend::kNothingKept) continue;
    tile.cut ? Scores<VV, true>(b, p, tile) : Scores<VV, false>(b, p, tile);
    const bool added = addend == Addend::kSome;
    if (tile.cut || added || b.alibi || b.softcap > 0) Adjust(b, p, pitch, tile, added);
    f(tile, tile.cut || added);
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
  ForEachTile<VV>(b, p, [&](const Tile& tile, bool some_dropped) {
    const float* const v = b.v + static_cast<ptrdiff_t>(tile.begin) * b.v_row;
    const bool marked = some_dropped && !AllFinite(v, b.v_row, tile.keys, b.value_dim);
    Softmax(p, pitch, tile, marked);
    if (marked) {
      ValuesOfKept(b, p, pitch, tile, first);
    } else {
      tile.cut ? Values<VV, true>(b, p, tile, first) : Values<VV, false>(b, p, tile, first);
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
  ForEachTile<VV>(b, p, [&](const Tile& tile, bool) {
    FinalWeights(p, pitch, tile, factor);
    std::fill_n(p.peak, pitch, 1.0f);
    UnpackRows(p.s, pitch, tile.keys, p.peak, rows, tile.begin, b.rows);
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
