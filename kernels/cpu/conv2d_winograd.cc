// Convolution of stride 1 by Winograd's minimal filtering (winograd.h has the formula). For a block of tiles:
//
//   in nchw: the input rows that it reads are transposed to nhwc
//   V[q][tile][ic] = transform of the tiles' inputs                          q < n * n coefficients
//   for each panel of output channels:
//     M[q][tile][width] = V[q] U[q]                                          n * n matrix products, each of the tiles
//                                                                            that need q (conv2d_winograd_tiles.h)
//     y = act(transform of M + bias + residual), cut at the image's ends; in nchw transposed back
//
// A block is as large as V, M and what is in use of U fit the L2 cache, so U is read once a block and nothing of the
// image's size exists. Tiles of all images form one list; in nchw a block is whole rows of tiles of one image. Threads
// share out blocks; where those are too few, each block is transformed by all threads and its panels shared out. A
// coefficient's sum runs over the channels in one order whatever the cut: the same bits for any number of threads.
//
// Memory: V and M of a block in three quarters of the L2 cache, or twice as much where U comes from memory, since V
// from L3 costs less than reading U once more (14x14x512: 2610 -> 2380 us, Zen 4). Kernels of 3x3 and 5x5, strides and
// dilations of 1, one group; 4 input channels at least, 16 where n = 8; any image, pads, batch and number of output
// channels.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "kernels/cpu/conv2d_candidates.h"
#include "kernels/cpu/conv2d_tiles.h"
#include "kernels/cpu/conv2d_winograd_filter.h"
#include "kernels/cpu/conv2d_winograd_tiles.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/transpose.h"
#include "kernels/cpu/winograd.h"

namespace lamina::cpu {
namespace {

constexpr size_t kSlicePad = 16;  // floats that keep the n * n slices out of one another's cache sets
// Input channels below which errors have too little to average over (docs/numerics.md).
constexpr int64_t LeastChannels(size_t n) { return n == 8 ? 16 : 4; }
constexpr int64_t kWeightsInL3 = 16 << 20;  // bytes of U; more L3, shared with others, is not counted on to hold
constexpr size_t kChunk = 16;               // channels that a task transposes

size_t AsSize(int64_t n) { return static_cast<size_t>(n); }

// Whether all of a block's tiles get every product that one of them needs: a single row tile waits for the weights
// anyway, whose prefetches do worse in bursts (7x7x512: 770 us against 1040; Zen 4).
bool EveryProduct(size_t tiles, const GemmKernel& gemm) { return tiles <= gemm.rows; }

int64_t WeightBytes(const Conv2dDesc& d, const WinogradKernel& transform, const GemmKernel& gemm) {
  return static_cast<int64_t>(transform.n * transform.n * AsSize(d.ic) * PackedColumns(gemm, AsSize(d.oc)) *
                              sizeof(float));
}

// How the tiles are cut into blocks, and what of scratch a block takes.
struct Plan {
  Plan(const Conv2dDesc& d, const WinogradKernel& transform, const GemmKernel& gemm, const Machine& machine,
       size_t threads)
      : tiles(d, transform), channels(RoundUp(AsSize(d.ic), gemm.lanes)) {
    const bool planes = d.layout == Layout::kNchw;
    const size_t coefficients = transform.n * transform.n;
    const size_t width = std::min(gemm.vectors * gemm.lanes, PackedColumns(gemm, AsSize(d.oc)));
    unit = planes ? tiles.across() : 1;
    span = planes ? tiles.down() : tiles.count();
    spans = tiles.count() == 0 ? 0 : tiles.count() / (span * unit);
    const size_t tile_bytes = coefficients * (channels + width) * sizeof(float);
    const size_t l2 = AsSize(machine.l2.bytes) * 3 / 4;
    const bool from_memory = WeightBytes(d, transform, gemm) > kWeightsInL3;
    const size_t most = std::max(gemm.rows, (from_memory ? 2 * l2 : l2) / tile_bytes);
    size_t blocks = DivUp(tiles.count(), most);
    if (threads > 1) {
      const size_t wanted = RoundUp(std::max(blocks, threads), threads);
      // One panel more than the threads share out evenly keeps all but one waiting (5x5 at 28x28, 96 outputs: 1.5
      // panels).
      const size_t columns = PackedColumns(gemm, AsSize(d.oc)), whole = gemm.vectors * gemm.lanes;
      const bool uneven = 10 * columns < 9 * threads * DivUp(DivUp(columns, whole), threads) * whole;
      each_alone = tiles.count() / wanted >= (uneven ? gemm.rows : 2 * gemm.rows);
      if (each_alone) blocks = wanted;
    }
    units = spans == 0 ? 1 : DivUp(span, DivUp(blocks, spans));
    v_slice = RoundUp(units * unit * channels, kSlicePad) + kSlicePad;
    m_slice = RoundUp(units * unit * width, kSlicePad) + kSlicePad;
    v_bytes = LineBytes(coefficients * v_slice);
    m_bytes = LineBytes(coefficients * m_slice);
    if (!planes) return;
    x_bytes = LineBytes(std::min(AsSize(d.ih), units * transform.m + transform.r - 1) * AsSize(d.iw * d.ic));
    y_bytes = LineBytes(units * transform.m * AsSize(d.ow()) * std::min(width, AsSize(d.oc)));
  }
  size_t blocks_of_a_span() const { return DivUp(span, units); }
  size_t blocks() const { return spans * blocks_of_a_span(); }

  WinogradTiles tiles;
  size_t channels;           // floats of a row of V
  size_t unit, span, spans;  // tiles that stay together; units that a block may lie among, and how many such there are
  size_t units;              // of a block, the last of a span may have fewer
  bool each_alone = true;    // a block is one task, with a V of its own
  size_t v_slice, m_slice, v_bytes, m_bytes;
  size_t x_bytes = 0, y_bytes = 0;  // nchw: a block's input and a panel of its output, transposed
};

class Winograd final : public Kernel<Conv2d> {
 public:
  Winograd(const Conv2dDesc& desc, const Context& context, const WinogradKernel& transform,
           std::shared_ptr<const WinogradFilter> filter)
      : desc_(desc),
        context_(context),
        transform_(transform),
        transpose_(GetTransposeKernel(context.isa).transpose),
        filter_(std::move(filter)),
        plan_(desc, transform, filter_->gemm(), *context.machine, context.pool->num_threads()),
        epilogue_(MakeEpilogue(context.isa, desc.activation, desc.residual)) {}

  Status Run(const Conv2dTensors& tensors, std::byte* scratch) const override {
    ThreadPool& pool = *context_.pool;
    const size_t panels = filter_->panels(), chunks = planes() ? DivUp(AsSize(desc_.ic), kChunk) : 0;
    if (plan_.each_alone) {
      ParallelTasks(pool, plan_.blocks(), [&](size_t b, size_t worker) {
        std::byte* const own = scratch + worker * (shared_bytes() + worker_bytes());
        const Block block = BlockAt(b, tensors, own);
        for (size_t c = 0; c < chunks; ++c) TransposeInput(tensors, block, c);
        for (size_t t = 0; t < block.tiles.count(); ++t) TransformInput(block, t);
        for (size_t p = 0; p < panels; ++p) RunPanel(tensors, block, p, own + shared_bytes());
      });
      return {};
    }
    for (size_t b = 0; b < plan_.blocks(); ++b) {
      const Block block = BlockAt(b, tensors, scratch);
      ParallelTasks(pool, chunks, [&](size_t c, size_t) { TransposeInput(tensors, block, c); });
      ParallelTasks(pool, block.tiles.count(), [&](size_t t, size_t) { TransformInput(block, t); });
      ParallelTasks(pool, panels, [&](size_t p, size_t worker) {
        RunPanel(tensors, block, p, scratch + shared_bytes() + worker * worker_bytes());
      });
    }
    return {};
  }

  size_t scratch_bytes() const override {
    const size_t threads = context_.pool->num_threads();
    return shared_bytes() * (plan_.each_alone ? threads : 1) + worker_bytes() * threads;
  }
  size_t packed_bytes() const override { return filter_->bytes(); }
  Result<std::shared_ptr<const Kernel<Conv2d>>> Reshape(const Conv2dDesc& desc) const override {
    return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<Winograd>(desc, context_, transform_, filter_));
  }

 private:
  bool planes() const { return desc_.layout == Layout::kNchw; }
  size_t shared_bytes() const { return plan_.x_bytes + plan_.v_bytes; }
  size_t worker_bytes() const { return plan_.m_bytes + plan_.y_bytes; }

  // Of a coefficient that a tile of the block needs: the slots from `first` on, cut into row tiles of which the first
  // `higher` are one row higher than `height`. Cut once a block: 1 % with the many panels of AVX2.
  struct Product {
    size_t q, first, tiles, height, higher;
  };
  struct Block {
    WinogradBlock tiles;
    WinogradTiles::Tile begin;  // the first of them
    float *copy, *v;
    const float* x = nullptr;  // nhwc: of all images; nchw: the copy of the input rows [x_row, x_row + x_rows)
    int64_t pixel = 0, x_row = 0, x_rows = 0;
    Product products[kMostWinogradSize * kMostWinogradSize + 1] = {};  // the last one is followed by one with q = n * n
  };
  Block BlockAt(size_t b, const Conv2dTensors& tensors, std::byte* shared) const {
    const Conv2dDesc& d = desc_;
    const size_t unit = b % plan_.blocks_of_a_span() * plan_.units;
    const size_t first = (b / plan_.blocks_of_a_span() * plan_.span + unit) * plan_.unit;
    Block block = {WinogradBlock(plan_.tiles, first, std::min(plan_.units, plan_.span - unit) * plan_.unit),
                   plan_.tiles.At(first), reinterpret_cast<float*>(shared),
                   reinterpret_cast<float*>(shared + plan_.x_bytes)};
    CutProducts(block);
    block.x = planes() ? block.copy : static_cast<const float*>(tensors.x);
    block.pixel = planes() ? d.ic : StrideOr(d.x_stride, d.ic);
    if (planes()) {
      const int64_t top = block.begin.row - d.pad_top;
      block.x_row = std::clamp<int64_t>(top, 0, d.ih);
      block.x_rows = std::clamp<int64_t>(top + OutputRows(block) + d.kh - 1, block.x_row, d.ih) - block.x_row;
    }
    return block;
  }
  void CutProducts(Block& block) const {
    const size_t n = transform_.n, rows = filter_->gemm().rows;
    const bool every = EveryProduct(block.tiles.count(), filter_->gemm());
    Product* product = block.products;
    for (size_t q = 0; q < n * n; ++q) {
      WinogradBlock::Slots slots = block.tiles.SlotsOf(q / n, q % n);
      if (slots.first == slots.last) continue;
      if (every) slots = {0, block.tiles.count()};
      const Cut cut(static_cast<int64_t>(slots.last - slots.first), static_cast<int64_t>(rows));
      *product++ = {q, slots.first, AsSize(cut.tiles), AsSize(cut.height), AsSize(cut.higher)};
    }
    product->q = n * n;
  }
  // nchw: those of whole tiles.
  int64_t OutputRows(const Block& block) const {
    return static_cast<int64_t>(block.tiles.count() / plan_.tiles.across() * transform_.m);
  }

  // One chunk of the channels of a block's input rows.
  void TransposeInput(const Conv2dTensors& tensors, const Block& block, size_t chunk) const {
    const Conv2dDesc& d = desc_;
    const int64_t plane = d.ih * d.iw, channel = static_cast<int64_t>(chunk * kChunk);
    transpose_(std::min(kChunk, AsSize(d.ic - channel)), AsSize(block.x_rows * d.iw),
               static_cast<const float*>(tensors.x) + block.begin.image * StrideOr(d.x_stride, d.ic * plane) +
                   channel * plane + block.x_row * d.iw,
               plane, block.copy + channel, d.ic);
  }

  // V of the block's tile t.
  void TransformInput(const Block& block, size_t t) const {
    const Conv2dDesc& d = desc_;
    const WinogradTiles::Tile place = plan_.tiles.At(block.tiles.first() + t);
    const int64_t n = static_cast<int64_t>(transform_.n), top = place.row - d.pad_top, left = place.column - d.pad_left;
    WinogradInput in;
    in.pixel = block.pixel;
    in.row = d.iw * in.pixel;
    in.x = block.x + (planes() ? 0 : place.image * d.ih * in.row);
    in.first = (top - block.x_row) * in.row + left * in.pixel;
    in.top = AsSize(std::clamp<int64_t>(-top, 0, n));
    in.bottom = AsSize(std::clamp<int64_t>(d.ih - top, 0, n));
    in.left = AsSize(std::clamp<int64_t>(-left, 0, n));
    in.right = AsSize(std::clamp<int64_t>(d.iw - left, 0, n));
    in.channels = AsSize(d.ic);
    in.no_first_row = place.low && plan_.tiles.low_rows().first > 0;
    in.no_first_column = place.thin && plan_.tiles.thin_columns().first > 0;
    in.v = block.v + block.tiles.SlotOf(block.tiles.first() + t, place) * plan_.channels;
    in.slice = plan_.v_slice;
    transform_.input(in);
  }

  // All outputs of one panel. `worker`: M and, in nchw, the outputs [rows, ow, columns] before they are transposed.
  void RunPanel(const Conv2dTensors& tensors, const Block& block, size_t p, std::byte* worker) const {
    const Conv2dDesc& d = desc_;
    const WinogradFilter::Panel panel = filter_->PanelAt(p);
    float *const m = reinterpret_cast<float*>(worker), *const rows = reinterpret_cast<float*>(worker + plan_.m_bytes);
    for (const Product* product = block.products; product->q < transform_.n * transform_.n; ++product) {
      Multiply(block, panel, *product, product[1].q, m);
    }
    const int64_t first = static_cast<int64_t>(panel.first), columns = static_cast<int64_t>(panel.columns);
    const bool has_residual = d.residual != Residual::kNone;
    WinogradOutput o;
    o.slice = plan_.m_slice;
    o.vectors = panel.vectors;
    o.out.columns = panel.columns;
    o.out.bias = panel.bias;
    o.out.epilogue = &epilogue_;
    if (!planes()) {
      o.out.row = StrideOr(d.y_stride, d.oc);
      o.out.residual_row = StrideOr(d.residual_stride, d.oc);
      TransformOutputs(block, panel, m, 0, static_cast<float*>(tensors.y) + first,
                       has_residual ? static_cast<const float*>(tensors.residual) + first : nullptr, o);
      return;
    }
    const int64_t plane = d.oh() * d.ow();
    const size_t pixels = AsSize(std::min(OutputRows(block), d.oh() - block.begin.row) * d.ow());
    // Of this panel's planes, where the block begins.
    const auto at = [&](int64_t stride) {
      return block.begin.image * StrideOr(stride, d.oc * plane) + first * plane + block.begin.row * d.ow();
    };
    if (has_residual) {  // into the outputs' own place: a tile reads it before it writes
      transpose_(panel.columns, pixels, static_cast<const float*>(tensors.residual) + at(d.residual_stride), plane,
                 rows, columns);
    }
    o.out.row = o.out.residual_row = columns;
    const int64_t origin = (block.begin.image * d.oh() + block.begin.row) * d.ow();
    TransformOutputs(block, panel, m, origin, rows, has_residual ? rows : nullptr, o);
    transpose_(pixels, panel.columns, rows, columns, static_cast<float*>(tensors.y) + at(d.y_stride), plane);
  }

  // Of all tiles of a panel; y and residual (or null): pixel `origin` of all images' pixels, the panel's first channel.
  void TransformOutputs(const Block& block, const WinogradFilter::Panel& panel, const float* m, int64_t origin,
                        float* y, const float* residual, WinogradOutput o) const {
    const int64_t size = static_cast<int64_t>(transform_.m), oh = desc_.oh(), ow = desc_.ow();
    o.line = ow * o.out.row;
    o.residual_line = ow * o.out.residual_row;
    const size_t first = block.tiles.first();
    for (size_t t = first; t < first + block.tiles.count(); ++t) {
      const WinogradTiles::Tile place = plan_.tiles.At(t);
      const int64_t pixel = (place.image * oh + place.row) * ow + place.column - origin;
      o.sums = m + block.tiles.SlotOf(t, place) * panel.width;
      o.no_first_row = place.low && plan_.tiles.low_rows().first > 0;
      o.no_first_column = place.thin && plan_.tiles.thin_columns().first > 0;
      o.rows = AsSize(std::min(size, oh - place.row));
      o.columns = AsSize(std::min(size, ow - place.column));
      o.out.c = y + pixel * o.out.row;
      if (residual != nullptr) o.out.residual = residual + pixel * o.out.residual_row;
      transform_.output(o);
    }
  }

  // M[q] = V[q] U[q] of the slots that need q: row tiles of two heights, which bring in the weights of coefficient
  // `next` evenly: what comes from L3 comes in a trickle (res4: 711 -> 630 us).
  void Multiply(const Block& block, const WinogradFilter::Panel& panel, const Product& product, size_t next,
                float* m) const {
    const size_t ic = AsSize(desc_.ic);
    const ptrdiff_t tap = 0;
    GemmTiles t;
    t.a = block.v + product.q * plan_.v_slice + product.first * plan_.channels;
    t.a_row = static_cast<ptrdiff_t>(plan_.channels);
    t.tap = &tap;
    t.kc = ic;
    t.b = panel.u + product.q * ic * panel.width;
    t.out.c = m + product.q * plan_.m_slice + product.first * panel.width;
    t.out.row = static_cast<ptrdiff_t>(panel.width);
    t.out.columns = panel.width;
    t.out.bias = panel.zeros;
    t.ahead = panel.u + next * ic * panel.width;
    t.ahead_end = std::min(t.ahead + ic * panel.width, filter_->end());
    t.ahead_step = DivUp(panel.width, product.tiles);
    for (const bool higher : {true, false}) {
      const size_t height = product.height + (higher ? 1 : 0);
      t.tiles = higher ? product.higher : product.tiles - product.higher;
      if (t.tiles == 0) continue;
      t.a_tile = static_cast<ptrdiff_t>(height) * t.a_row;
      t.out.tile = static_cast<ptrdiff_t>(height) * t.out.row;
      filter_->gemm().tiles[height][panel.vectors](t);
      t.ahead += t.tiles * ic * t.ahead_step;
      t.a += static_cast<ptrdiff_t>(t.tiles) * t.a_tile;
      t.out.c += static_cast<ptrdiff_t>(t.tiles) * t.out.tile;
    }
  }

  Conv2dDesc desc_;
  Context context_;
  const WinogradKernel& transform_;
  decltype(TransposeKernel::transpose) transpose_;
  std::shared_ptr<const WinogradFilter> filter_;
  Plan plan_;
  Epilogue epilogue_;
};

double PredictNs(const Conv2dDesc& d, const Context& context, const WinogradKernel& transform) {
  const GemmKernel& gemm = GetGemmKernel(context.isa);
  const Machine& machine = *context.machine;
  const size_t threads = context.pool->num_threads();
  const Plan plan(d, transform, gemm, machine, threads);
  if (plan.tiles.count() == 0) return 0;
  const double coefficients = static_cast<double>(transform.n * transform.n), ic = static_cast<double>(d.ic);
  const double columns = static_cast<double>(PackedColumns(gemm, AsSize(d.oc)));
  const double tiles = static_cast<double>(plan.tiles.count()), blocks = static_cast<double>(plan.blocks());
  const TileTimes times(gemm, d.ic, d.oc);
  const Cut cut(static_cast<int64_t>(plan.units * plan.unit), static_cast<int64_t>(gemm.rows));
  const double used = plan.tiles.used();
  const double needed = EveryProduct(plan.units * plan.unit, gemm) ? used : plan.tiles.part();
  const double rows = blocks * times.Of(cut) * needed;
  const int count = static_cast<int>(threads);
  const double products =
      2 * rows * coefficients * ic * columns / (kLoopEfficiency * machine.Gflops(context.isa, count));
  const int64_t weight_bytes = WeightBytes(d, transform, gemm);
  // A U that L3 does not hold whole is read from memory whole: each pass drives out what the next one begins with.
  const int64_t from = weight_bytes > kWeightsInL3 ? machine.memory.bytes : weight_bytes + machine.l2.bytes / 2;
  const double weights = blocks * used * static_cast<double>(weight_bytes) / machine.Gbps(from, count);
  // Of what U takes to come, the products hide a part (Emerald Rapids, U in L3, 2026-11-23).
  constexpr double kSeen = 0.4;
  // V and M are written and read once, x and y moved once, in nchw once more, all about as fast as L2 gives.
  const double outputs = static_cast<double>(transform.m * transform.m), moves = d.layout == Layout::kNchw ? 1.5 : 0.5;
  const double moved = 8 * tiles * (coefficients + moves * outputs) * (ic + columns);
  return std::max(products + kSeen * weights, weights) + moved / machine.Gbps(machine.l2.bytes / 2, count);
}

template <size_t kM>
Judgement Judge(const Conv2dDesc& d, const Context& context) {
  if (std::string refusal = RefuseType(d); !refusal.empty()) return Refused(refusal);
  if (d.kh != d.kw || (d.kh != 3 && d.kh != 5)) {
    return Refused("takes kernels of 3x3 and 5x5, got kh=" + std::to_string(d.kh) + " kw=" + std::to_string(d.kw));
  }
  if (d.stride_h != 1 || d.stride_w != 1 || d.dilation_h != 1 || d.dilation_w != 1) {
    return Refused("takes strides and dilations of 1 only");
  }
  if (d.groups != 1) return Refused("takes one group only, got groups=" + std::to_string(d.groups));
  const WinogradKernel& transform = GetWinogradKernel(context.isa, kM, AsSize(d.kh));
  if (d.ic < LeastChannels(transform.n)) {
    return Refused("takes at least " + std::to_string(LeastChannels(transform.n)) +
                   " input channels, got ic=" + std::to_string(d.ic));
  }
  return Accepted(PredictNs(d, context, transform));
}

template <size_t kM>
Result<std::shared_ptr<const Kernel<Conv2d>>> Prepare(const Conv2dDesc& d, const Conv2dWeights& weights,
                                                      const Context& context) {
  const WinogradKernel& transform = GetWinogradKernel(context.isa, kM, AsSize(d.kh));
  auto filter = WinogradFilter::Pack(d, weights, context.isa, transform);
  if (!filter.ok()) return filter.status();
  return std::shared_ptr<const Kernel<Conv2d>>(std::make_shared<Winograd>(d, context, transform, *std::move(filter)));
}

}  // namespace

Candidate<Conv2d> Winograd2x2Conv2d() { return {"winograd_2x2", Judge<2>, Prepare<2>, Accuracy::kDefault}; }
Candidate<Conv2d> Winograd4x4Conv2d() { return {"winograd_4x4", Judge<4>, Prepare<4>, Accuracy::kDefault}; }

}  // namespace lamina::cpu
