// Attention of few queries over a part of the keys, fp32, as in decoding with a cache of keys and values:
//   partial = (sum_j 2^(s_j - maximum) v_j, maximum, sum_j 2^(s_j - maximum)),     s_j = scale * q . k_j + ..
// Keys and values are streamed once, in rows as they lie: dot products along head_dim for four keys at a time, one
// transposing reduction for the four sums, then O += weights * rows of V, four keys at a time. The queries that share
// the keys (the heads of a group, or a few positions) share each load.
//
// Registers, G queries and 4 keys: scores 4 * G sums + 4 of K + 1 of q, AVX-512 with G = 4: 16 + 4 + 1; values 4 * G
// broadcast weights + 4 of V + 1 of O: 16 + 4 + 1. AVX2 has registers for G = 2: 8 + 4 + 1 of 16.
// Memory: q, O and 64 scores a query, in L1. head_dim, value_dim, keys: any.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_decode.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/attention-inl.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/exp2-inl.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::cpu {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
constexpr size_t kRows = 4;
#else
constexpr size_t kRows = 2;
#endif
constexpr size_t kStep = 4;              // keys at a time
constexpr size_t kKeys = 64;             // keys between two looks at the maximum
constexpr size_t kPitch = kKeys + 16;    // of scores: room for a vector behind the last key
constexpr size_t kPrefetchFloats = 512;  // how far ahead the streams of K and V are asked for: 2 KiB

size_t WholeVectors(size_t n) { return RoundUp(n, 16); }

struct Buffers {
  Buffers(const AttentionBlock& b, float* scratch)
      : q_pitch(WholeVectors(b.head_dim)), o_pitch(WholeVectors(b.value_dim)) {
    q = scratch;
    o = q + kRows * q_pitch;
    s = o + kRows * o_pitch;
    addend = s + kRows * kPitch;
  }
  static size_t Floats(const AttentionBlock& b) {
    return kRows * (WholeVectors(b.head_dim) + WholeVectors(b.value_dim) + kPitch) + kPitch;
  }
  size_t q_pitch, o_pitch;
  float* q;       // [kRows][q_pitch], scaled, zeros behind head_dim
  float* o;       // [kRows][o_pitch]
  float* s;       // [kRows][kPitch]: scores, then weights
  float* addend;  // [kPitch]
};

// Row r of the block, or row 0 in place of a row that it lacks: q times scale.
void LoadQueries(const AttentionBlock& b, size_t count, const Buffers& x) {
  for (size_t r = 0; r < count; ++r) {
    float* const q = x.q + r * x.q_pitch;
    for (size_t c = 0; c < b.head_dim; ++c) q[c] = b.q[r < b.rows ? r : 0][c] * b.scale;
    std::fill(q + b.head_dim, q + x.q_pitch, 0.0f);
  }
}

#if HWY_TARGET != HWY_SCALAR
// out[0..3] = the sum of the vector's 128-bit blocks.
template <class DB>
HWY_INLINE void StoreBlockSum(DB d, hn::Vec<DB> x, float* HWY_RESTRICT out) {
  if constexpr (hn::MaxLanes(DB()) == 4) {
    hn::StoreU(x, d, out);
  } else {
    const hn::Half<DB> half;
    StoreBlockSum(half, hn::Add(hn::LowerHalf(half, x), hn::UpperHalf(half, x)), out);
  }
}
#endif

// out[i] = the sum of x[i]'s lanes.
HWY_INLINE void StoreSums(const V (&x)[kStep], float* HWY_RESTRICT out) {
#if HWY_TARGET == HWY_SCALAR
  Unroll<kStep>([&](auto i) LAMINA_INLINE { out[i] = hn::GetLane(x[i]); });
#else
  const D d;
  const hn::RepartitionToWide<D> dw;
  const auto wide = [&](V v) LAMINA_INLINE { return hn::BitCast(dw, v); };
  const V a = hn::Add(hn::InterleaveLower(d, x[0], x[1]), hn::InterleaveUpper(d, x[0], x[1]));
  const V b = hn::Add(hn::InterleaveLower(d, x[2], x[3]), hn::InterleaveUpper(d, x[2], x[3]));
  const V sums = hn::Add(hn::BitCast(d, hn::InterleaveLower(dw, wide(a), wide(b))),
                         hn::BitCast(d, hn::InterleaveUpper(dw, wide(a), wide(b))));
  StoreBlockSum(d, sums, out);
#endif
}

// Scores of keys [j0, j0 + n); those of the last step beyond n repeat key n - 1.
template <size_t G>
HWY_NOINLINE void Scores(const AttentionBlock& b, const Buffers& x, size_t j0, size_t n) {
  const D d;
  const size_t N = hn::Lanes(d), whole = b.head_dim / N * N, tail = b.head_dim - whole;
  const ptrdiff_t ahead = static_cast<ptrdiff_t>(HWY_MAX(kStep, kPrefetchFloats / b.head_dim)) * b.k_row;
  for (size_t j = 0; j < n; j += kStep) {
    const float* key[kStep];
    Unroll<kStep>([&](auto i)
                      LAMINA_INLINE { key[i] = b.k + static_cast<ptrdiff_t>(j0 + HWY_MIN(j + i, n - 1)) * b.k_row; });
    V acc[G][kStep];
    Unroll<G>([&](auto r) LAMINA_INLINE { Unroll<kStep>([&](auto i) LAMINA_INLINE { acc[r][i] = hn::Zero(d); }); });
    const auto step = [&](size_t c, const V(&k)[kStep]) LAMINA_INLINE {
      Unroll<G>([&](auto r) LAMINA_INLINE {
        const V q = hn::Load(d, x.q + r * x.q_pitch + c);
        Unroll<kStep>([&](auto i) LAMINA_INLINE { acc[r][i] = hn::MulAdd(q, k[i], acc[r][i]); });
      });
    };
    for (size_t c = 0; c < whole; c += N) {
      V k[kStep];
      Unroll<kStep>([&](auto i) LAMINA_INLINE {
        hwy::Prefetch(key[i] + c + ahead);
        k[i] = hn::LoadU(d, key[i] + c);
      });
      step(c, k);
    }
    if (tail > 0) {
      V k[kStep];
      Unroll<kStep>([&](auto i) LAMINA_INLINE { k[i] = LoadTail(d, key[i] + whole, tail); });
      step(whole, k);
    }
    Unroll<G>([&](auto r) LAMINA_INLINE { StoreSums(acc[r], x.s + r * kPitch + j); });
  }
}

// Softcap, bias, alibi and masks on one row's scores of keys [j0, j0 + n); what is not kept becomes -inf whatever it
// was, and so do the lanes behind the last key.
HWY_NOINLINE void Adjust(const AttentionBlock& b, const Buffers& x, size_t r, size_t j0, size_t n) {
  const D d;
  const hn::RebindToSigned<D> di;
  const size_t N = hn::Lanes(d);
  float* const s = x.s + r * kPitch;
  const bool cut = static_cast<size_t>(b.first[r]) > j0 || static_cast<size_t>(b.last[r]) < j0 + n;
  const bool added = b.masked || b.biased || cut;
  for (size_t i = 0; added && i < n; ++i) {
    const auto j = static_cast<int32_t>(j0 + i);
    const bool kept = j >= b.first[r] && j < b.last[r] && (!b.masked || b.mask[r][j] != 0);
    x.addend[i] = !kept ? kMinusInfinity : b.biased ? b.bias[r][j] * kLog2E : 0.0f;
  }
  if (added || b.alibi || b.softcap > 0) {
    const V nothing = hn::Set(d, kMinusInfinity);
    for (size_t i = 0; i < n; i += N) {
      V score = hn::Load(d, s + i);
      if (b.softcap > 0) score = SoftCap(d, b.softcap, score);
      if (b.alibi) {
        const auto distance = hn::Sub(hn::Iota(di, static_cast<int32_t>(j0 + i)), hn::Set(di, b.origin[r]));
        score = hn::MulAdd(hn::Set(d, b.slope[r]), hn::ConvertTo(d, distance), score);
      }
      if (added) {
        const V a = hn::Load(d, x.addend + i);
        score = hn::IfThenElse(hn::Eq(a, nothing), nothing, hn::Add(score, a));
      }
      hn::Store(score, d, s + i);
    }
  }
  std::fill(s + n, s + (n + N - 1) / N * N, kMinusInfinity);
}

// Scores to weights in place, and the running maximum and sum of row r; O is rescaled when the maximum grows.
HWY_NOINLINE void Softmax(const Buffers& x, size_t r, size_t n, float& maximum, float& sum) {
  const D d;
  const size_t N = hn::Lanes(d);
  float* const s = x.s + r * kPitch;
  V peak = hn::Set(d, kLowest);
  for (size_t i = 0; i < n; i += N) peak = hn::Max(peak, hn::Load(d, s + i));
  const float highest = hn::GetLane(hn::MaxOfLanes(d, peak));
  if (highest > maximum) {
    const V alpha = Exp2(d, hn::Sub(hn::Set(d, maximum), hn::Set(d, highest)));
    sum *= hn::GetLane(alpha);
    float* const o = x.o + r * x.o_pitch;
    for (size_t c = 0; c < x.o_pitch; c += N) hn::Store(hn::Mul(hn::Load(d, o + c), alpha), d, o + c);
    maximum = highest;
  }
  V total = hn::Zero(d);
  for (size_t i = 0; i < n; i += N) {
    const V weight = MarkedWeight(d, hn::Load(d, s + i), hn::Set(d, maximum));
    hn::Store(weight, d, s + i);
    total = hn::Add(total, weight);
  }
  sum += hn::GetLane(hn::SumOfLanes(d, total));
}

// O[r] += weights * rows of V for K keys from j of the tile that begins at j0, for G rows.
template <size_t G, size_t K>
HWY_INLINE void AddValues(const AttentionBlock& b, const Buffers& x, size_t j0, size_t j) {
  const D d;
  const size_t N = hn::Lanes(d), whole = b.value_dim / N * N, tail = b.value_dim - whole;
  const ptrdiff_t ahead = static_cast<ptrdiff_t>(HWY_MAX(kStep, kPrefetchFloats / b.value_dim)) * b.v_row;
  const float* value[K];
  Unroll<K>([&](auto i) LAMINA_INLINE { value[i] = b.v + static_cast<ptrdiff_t>(j0 + j + i) * b.v_row; });
  V weight[G][K];
  Unroll<G>([&](auto r) LAMINA_INLINE {
    Unroll<K>([&](auto i) LAMINA_INLINE { weight[r][i] = hn::Set(d, x.s[r * kPitch + j + i]); });
  });
  const auto step = [&](size_t c, const V(&v)[K]) LAMINA_INLINE {
    Unroll<G>([&](auto r) LAMINA_INLINE {
      float* const at = x.o + r * x.o_pitch + c;
      V o = hn::Load(d, at);
      Unroll<K>([&](auto i) LAMINA_INLINE { o = hn::MulAdd(weight[r][i], v[i], o); });
      hn::Store(o, d, at);
    });
  };
  for (size_t c = 0; c < whole; c += N) {
    V v[K];
    Unroll<K>([&](auto i) LAMINA_INLINE {
      hwy::Prefetch(value[i] + c + ahead);
      v[i] = hn::LoadU(d, value[i] + c);
    });
    step(c, v);
  }
  if (tail > 0) {
    V v[K];
    Unroll<K>([&](auto i) LAMINA_INLINE { v[i] = LoadTail(d, value[i] + whole, tail); });
    step(whole, v);
  }
}

// The same for row r and a single key, unless the pair is not kept: a weight of 0 would not keep a NaN out.
void AddKeptValue(const AttentionBlock& b, const Buffers& x, size_t r, size_t j0, size_t j) {
  const D d;
  const float* const weight = x.s + r * kPitch + j;
  uint32_t bits;
  std::memcpy(&bits, weight, sizeof(bits));
  if (bits == kDroppedBits) return;
  const float* const value = b.v + static_cast<ptrdiff_t>(j0 + j) * b.v_row;
  float* const o = x.o + r * x.o_pitch;
  for (size_t c = 0; c < b.value_dim; c += hn::Lanes(d)) {
    const V v = LoadUpTo(d, value + c, b.value_dim - c);
    hn::Store(hn::MulAdd(hn::Set(d, *weight), v, hn::Load(d, o + c)), d, o + c);
  }
}

template <size_t G>
HWY_NOINLINE void Values(const AttentionBlock& b, const Buffers& x, size_t j0, size_t n) {
  const auto any_dropped = [&](size_t j, size_t count) {
    for (size_t r = 0; r < G; ++r) {
      for (size_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, x.s + r * kPitch + j + i, sizeof(bits));
        if (bits == kDroppedBits) return true;
      }
    }
    return false;
  };
  for (size_t j = 0; j < n;) {
    const size_t count = n - j >= kStep ? kStep : 1;
    if (any_dropped(j, count)) {
      for (size_t i = 0; i < count; ++i) {
        for (size_t r = 0; r < G; ++r) AddKeptValue(b, x, r, j0, j + i);
      }
    } else if (count == kStep) {
      AddValues<G, kStep>(b, x, j0, j);
    } else {
      AddValues<G, 1>(b, x, j0, j);
    }
    j += count;
  }
}

template <size_t G>
void Decode(const AttentionBlock& b, float* partial, float* scratch) {
  const Buffers x(b, scratch);
  LoadQueries(b, G, x);
  std::fill_n(x.o, G * x.o_pitch, 0.0f);
  float maximum[G], sum[G] = {};
  std::fill_n(maximum, G, kLowest);
  for (size_t j0 = b.begin; j0 < b.end; j0 += kKeys) {
    const size_t n = HWY_MIN(kKeys, b.end - j0);
    Scores<G>(b, x, j0, n);
    for (size_t r = 0; r < G; ++r) {
      Adjust(b, x, r, j0, n);
      Softmax(x, r, n, maximum[r], sum[r]);
    }
    Values<G>(b, x, j0, n);
  }
  for (size_t r = 0; r < b.rows; ++r, partial += PartialFloats(b.value_dim)) {
    std::copy_n(x.o + r * x.o_pitch, b.value_dim, partial);
    partial[MaximumAt(b.value_dim)] = maximum[r];
    partial[SumAt(b.value_dim)] = sum[r];
  }
}

void Run(const AttentionBlock& b, float* partial, float* scratch) {
  if (b.rows == 1) return Decode<1>(b, partial, scratch);
  if (b.rows == 2) return Decode<2>(b, partial, scratch);
  if constexpr (kRows == 4) return Decode<4>(b, partial, scratch);
}

void Weights(const AttentionBlock& b, const float* maximum, const float* factor, float* scratch) {
  const D d;
  const size_t N = hn::Lanes(d);
  const Buffers x(b, scratch);
  LoadQueries(b, kRows, x);
  for (size_t j0 = b.begin; j0 < b.end; j0 += kKeys) {
    const size_t n = HWY_MIN(kKeys, b.end - j0);
    Scores<kRows>(b, x, j0, n);
    for (size_t r = 0; r < b.rows; ++r) {
      Adjust(b, x, r, j0, n);
      for (size_t i = 0; i < n; i += N) {
        const V s = hn::Load(d, x.s + r * kPitch + i);
        const V weight = hn::Mul(Exp2(d, hn::Sub(s, hn::Set(d, maximum[r]))), hn::Set(d, factor[r]));
        StoreUpTo(hn::IfThenZeroElse(hn::Eq(s, hn::Set(d, kMinusInfinity)), weight), d,
                  b.weights + r * b.seqlen_kv + j0 + i, n - i);
      }
    }
  }
}

}  // namespace

const DecodeKernel& ChooseDecode() {
  static const DecodeKernel kernel = {hn::Lanes(D()), kRows, &Buffers::Floats, &Run, &Weights};
  return kernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace lamina::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::cpu {
HWY_EXPORT(ChooseDecode);
const DecodeKernel& GetDecodeKernel(Isa isa) { return LAMINA_DISPATCH(ChooseDecode, isa)(); }
}  // namespace lamina::cpu
#endif
