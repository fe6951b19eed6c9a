// Attention of few queries over a part of the keys, fp32, as in decoding with a cache of keys and values:
//   partial = (sum_j 2^(s_j - maximum) v_j, maximum, sum_j 2^(s_j - maximum)),     s_j = scale * q . k_j + ..
// Keys and values are streamed once, in rows as they lie: dot products along head_dim for four keys, one transposing
// reduction for the four sums, then O += weights * rows of V. The queries that share the keys (the heads of a group, or
// a few positions) share each load.
//
// Registers, G queries: scores 4 * G sums + 1 of K, q from memory; values 16 sums of O (8 vectors of 2 queries, 4 of 4)
// + G weights + 1 of V: AVX-512 21 of 32. AVX2 has half the sums and takes G <= 2: 11 of 16.
// Memory: q, O and 64 scores a query, in L1. head_dim, value_dim, keys: any.
#include <algorithm>
#include <cstring>
#include <type_traits>

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
constexpr size_t kColumns = 8;           // vectors of V at a time, at most
constexpr size_t kSums = 4 * kRows;      // of O in registers
constexpr size_t kStep = 4;              // keys at a time
constexpr size_t kKeys = 64;             // keys between two looks at the maximum
constexpr size_t kPitch = kKeys + 16;    // of scores: room for a vector behind the last key
constexpr size_t kPrefetchFloats = 512;  // how far ahead rows that lie apart are asked for

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

// Rows of K and V that lie next to each other are read strictly in order, without prefetches: the hardware then reads
// ahead, and stops when four rows are read in turn (33 MB: 2.7 -> 1.1 ms, Zen 4, 2026-11-26). Rows apart, as in bshd,
// are read four in turn, each with a prefetch: in order they would cost 1.4 times as much.
bool InOrder(ptrdiff_t stride, size_t dim) { return stride == static_cast<ptrdiff_t>(dim); }
ptrdiff_t Ahead(ptrdiff_t stride, size_t dim) {
  return static_cast<ptrdiff_t>(HWY_MAX(kStep, kPrefetchFloats / dim)) * stride;
}

// Scores of keys [j0, j0 + n); those of the last step beyond n repeat key n - 1.
template <size_t G>
HWY_NOINLINE void Scores(const AttentionBlock& b, const Buffers& x, size_t j0, size_t n) {
  const D d;
  const size_t N = hn::Lanes(d), whole = b.head_dim / N * N, tail = b.head_dim - whole;
  const bool in_order = InOrder(b.k_row, b.head_dim);
  const ptrdiff_t ahead = Ahead(b.k_row, b.head_dim);
  for (size_t j = 0; j < n; j += kStep) {
    const float* key[kStep];
    V acc[G][kStep];
    Unroll<kStep>([&](auto i) LAMINA_INLINE {
      key[i] = b.k + static_cast<ptrdiff_t>(j0 + HWY_MIN(j + i, n - 1)) * b.k_row;
      Unroll<G>([&](auto r) LAMINA_INLINE { acc[r][i] = hn::Zero(d); });
    });
    const auto add = [&](auto i, size_t c, V k) LAMINA_INLINE {
      Unroll<G>([&](auto r)
                    LAMINA_INLINE { acc[r][i] = hn::MulAdd(hn::Load(d, x.q + r * x.q_pitch + c), k, acc[r][i]); });
    };
    if (in_order) {
      Unroll<kStep>([&](auto i) LAMINA_INLINE {
        for (size_t c = 0; c < whole; c += N) add(i, c, hn::LoadU(d, key[i] + c));
      });
    } else {
      for (size_t c = 0; c < whole; c += N) {
        Unroll<kStep>([&](auto i) LAMINA_INLINE {
          hwy::Prefetch(key[i] + c + ahead);
          add(i, c, hn::LoadU(d, key[i] + c));
        });
      }
    }
    if (tail > 0) {
      Unroll<kStep>([&](auto i) LAMINA_INLINE { add(i, whole, LoadTail(d, key[i] + whole, tail)); });
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

// O[r] += weights * rows of V, of `keys` keys from j of the tile that begins at j0, for R rows from `row` on and the C
// vectors of columns from c on, which stay in registers meanwhile. `load` reads a vector of V.
template <size_t R, size_t C, class Load>
HWY_INLINE void AddColumns(const AttentionBlock& b, const Buffers& x, size_t j0, size_t j, size_t keys, size_t row,
                           size_t c, const Load& load) {
  const D d;
  const size_t N = hn::Lanes(d);
  const float* value = b.v + static_cast<ptrdiff_t>(j0 + j) * b.v_row + static_cast<ptrdiff_t>(c);
  const float* weight = x.s + row * kPitch + j;
  float* const at = x.o + row * x.o_pitch + c;
  V o[R][C];
  Unroll<R>([&](auto r) LAMINA_INLINE {
    Unroll<C>([&](auto i) LAMINA_INLINE { o[r][i] = hn::Load(d, at + r * x.o_pitch + i * N); });
  });
  for (size_t k = 0; k < keys; ++k, value += b.v_row, ++weight) {
    V w[R];
    Unroll<R>([&](auto r) LAMINA_INLINE { w[r] = hn::Set(d, weight[r * kPitch]); });
    Unroll<C>([&](auto i) LAMINA_INLINE {
      const V v = load(value + i * N);
      Unroll<R>([&](auto r) LAMINA_INLINE { o[r][i] = hn::MulAdd(w[r], v, o[r][i]); });
    });
  }
  Unroll<R>([&](auto r) LAMINA_INLINE {
    Unroll<C>([&](auto i) LAMINA_INLINE { hn::Store(o[r][i], d, at + r * x.o_pitch + i * N); });
  });
}

// The same for all G rows and columns.
template <size_t G>
HWY_INLINE void AddValues(const AttentionBlock& b, const Buffers& x, size_t j0, size_t j, size_t keys) {
  const D d;
  const size_t N = hn::Lanes(d), whole = b.value_dim / N * N, tail = b.value_dim - whole;
  size_t c = 0;
  const auto chunks = [&](auto C, const auto& load) LAMINA_INLINE {
    constexpr size_t R = HWY_MIN(G, kSums / C);
    for (; c + C * N <= whole; c += C * N) {
      for (size_t row = 0; row < G; row += R) AddColumns<R, C>(b, x, j0, j, keys, row, c, load);
    }
  };
  if (InOrder(b.v_row, b.value_dim)) {
    const auto load = [&](const float* p) LAMINA_INLINE { return hn::LoadU(d, p); };
    chunks(std::integral_constant<size_t, kColumns>(), load);
    chunks(std::integral_constant<size_t, kColumns / 2>(), load);
    chunks(std::integral_constant<size_t, 1>(), load);
  } else {
    chunks(std::integral_constant<size_t, 1>(), [&, ahead = Ahead(b.v_row, b.value_dim)](const float* p) LAMINA_INLINE {
      hwy::Prefetch(p + ahead);
      return hn::LoadU(d, p);
    });
  }
  if (tail == 0) return;
  AddColumns<G, 1>(b, x, j0, j, keys, 0, whole, [&](const float* p) LAMINA_INLINE { return LoadTail(d, p, tail); });
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
  // All keys of the tile at once where one chunk of columns is a whole row. Else rows are read one by one, O with them,
  // where they come from memory (16 heads of 2048 keys of 128, AVX2: 1112 -> 912 us; 1024 of 256, AVX-512: 1376 ->
  // 1233; in L3 it costs a sixth; Zen 4, 2026-11-26).
  const size_t chunk = kColumns * hn::Lanes(D());
  const bool one_chunk = b.value_dim == chunk || b.value_dim == chunk / 2;
  const bool in_order = InOrder(b.v_row, b.value_dim);
  const size_t step = in_order && one_chunk ? n : in_order && G == 1 && b.streamed ? 1 : kStep;
  for (size_t j = 0; j < n; j += step) {
    const size_t count = HWY_MIN(step, n - j);
    if (!any_dropped(j, count)) {
      AddValues<G>(b, x, j0, j, count);
      continue;
    }
    for (size_t i = 0; i < count; ++i) {
      for (size_t r = 0; r < G; ++r) AddKeptValue(b, x, r, j0, j + i);
    }
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
