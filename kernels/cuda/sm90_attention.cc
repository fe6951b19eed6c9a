#include "kernels/cuda/sm90_attention.h"

#include <algorithm>

#include "kernels/cuda/core/attention_schedule.h"
#include "kernels/cuda/image.h"

namespace lamina::cuda {
namespace {

// Channels, rows, heads, batch elements; boxes of `box_rows` rows of one head.
TileMap MapOf(Math math, const void* data, const HeadStrides& s, int64_t channels, int64_t rows, int64_t heads,
              int64_t batch, int box_rows) {
  const auto bytes = [&](int64_t elements) { return static_cast<uint64_t>(elements * ElementBytes(math)); };
  return {.element = TmaElementOf(math),
          .rank = 4,
          .base = data,
          .dims = {static_cast<uint64_t>(channels), static_cast<uint64_t>(rows), static_cast<uint64_t>(heads),
                   static_cast<uint64_t>(batch)},
          .strides = {bytes(s.row), bytes(s.head), bytes(s.batch)},
          .box = {WgmmaAttentionShape<64>::kBoxChannels, static_cast<uint32_t>(box_rows), 1, 1}};
}

template <int kD>
AttentionTiles TilesOf() {
  using Shape = WgmmaAttentionShape<kD>;
  return {kD, Shape::kRows, Shape::kKeys, 1, static_cast<int>(sizeof(typename Shape::Shared))};
}
AttentionTiles TilesOf(int64_t channels) {
  return channels == 64 ? TilesOf<64>() : channels == 128 ? TilesOf<128>() : TilesOf<256>();
}

HeadStrides Strides(const AttentionStrides& s) { return {s.batch, s.row, s.head}; }
bool StoresAligned(const HeadStrides& o) { return o.batch % 8 == 0 && o.row % 8 == 0 && o.head % 8 == 0; }

}  // namespace

std::string RefusesWgmmaAttention(const MultiHeadAttentionDesc& d, const Device& device) {
  if (std::string why = RefusesSm90(device); !why.empty()) return why;
  if (d.dtype == DType::kF32) return "multiplies 16-bit elements, got f32";
  if (d.head_dim != d.v_dim() || (d.head_dim != 64 && d.head_dim != 128 && d.head_dim != 256)) {
    return "takes head_dim = value_dim = 64, 128 or 256, got " + std::to_string(d.head_dim) + " and " +
           std::to_string(d.v_dim());
  }
  if (d.mask) return "leaves keys out by length, causal rule and window, got a mask";
  if (d.bias) return "adds nothing to scores, got a bias";
  if (d.alibi) return "adds nothing to scores, got alibi slopes";
  if (d.softcap > 0) return "takes scores as they are, got a softcap";
  if (!(d.score_scale() > 0)) return "takes a positive scale, got " + std::to_string(d.score_scale());
  const Math math = NativeMath(d.dtype);
  const AttentionTiles tiles = TilesOf(d.head_dim);
  for (const TileMap& map :
       {MapOf(math, nullptr, Strides(d.q_strides()), d.head_dim, d.seqlen_q, d.num_heads, d.batch, tiles.rows),
        MapOf(math, nullptr, Strides(d.k_strides()), d.head_dim, d.seqlen_kv, d.kv_heads(), d.batch, tiles.keys),
        MapOf(math, nullptr, Strides(d.v_strides()), d.head_dim, d.seqlen_kv, d.kv_heads(), d.batch, tiles.keys)}) {
    if (std::string why = Validate(map); !why.empty()) return why;
  }
  if (!StoresAligned(Strides(d.o_strides()))) return "stores rows that begin at multiples of 16 bytes";
  return "";
}

AttentionTiles WgmmaAttentionTiles(const MultiHeadAttentionDesc& d) { return TilesOf(d.head_dim); }

bool WgmmaAttention::Takes(const AttentionArgs& a) {
  return a.q_chunks && a.k_chunks && a.v_chunks && Aligned(a.o, 16) && StoresAligned(a.o_strides) &&
         a.weights == nullptr;
}

Error WgmmaAttention::Launch(const Device& device, DType dtype, const AttentionArgs& args, void* stream) const {
  const Math math = NativeMath(dtype);
  const AttentionTiles tiles = TilesOf(args.head_dim);
  const auto kv_heads = static_cast<int64_t>(args.group.Quotient(static_cast<uint32_t>(args.num_heads)));
  WgmmaAttentionArgs a{.q = {}, .k = {}, .v = {}, .attention = args};
  const auto map = [&](const void* data, const HeadStrides& strides, int64_t rows, int64_t heads, int box_rows) {
    return MapOf(math, data, strides, args.head_dim, rows, heads, args.batch, box_rows);
  };
  Error error = q_.Encode(map(args.q, args.q_strides, args.seqlen_q, args.num_heads, tiles.rows), &a.q);
  if (error.ok()) error = k_.Encode(map(args.k, args.k_strides, args.seqlen_kv, kv_heads, tiles.keys), &a.k);
  if (error.ok()) error = v_.Encode(map(args.v, args.v_strides, args.seqlen_kv, kv_heads, tiles.keys), &a.v);
  if (!error.ok()) return error;
  const auto blocks = static_cast<int>(std::min<int64_t>(HeadTiles(args, tiles.rows), device.multiprocessors));
  return dtype == DType::kBf16 ? StartWgmmaAttention<Math::kBf16>(a, blocks, stream)
                               : StartWgmmaAttention<Math::kF16>(a, blocks, stream);
}

}  // namespace lamina::cuda
