// C[m, n] = act(bias[n] + A[m, k] W^T[k, n] + residual) over packed panels of W.
//
//   for each block of rows (MC, so that A's block stays in L2)        \  tasks: row blocks x groups of panels
//     for each block of k (KC, so that a panel's slice stays in L2)
//       for each panel of W (read once per block of rows)
//         all row tiles of the block, in one call per height
//
// Partial sums between blocks of k are stored in C and loaded again, which gives the bits of one pass; KC depends on k
// alone and a tile's height changes no sum, so the split among tasks and threads is free.
#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <string>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/round.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/transpose.h"
#include "kernels/operators/packing.h"

namespace lamina::cpu {
namespace {

constexpr size_t kMaxKc = 1536;               // 384 KiB of a panel of 64 columns
constexpr size_t kRowBlockBytes = 512 << 10;  // of A
constexpr size_t kAheadTiles = 8;             // over which the next panel's prefetch is spread
constexpr size_t kFewTiles = 4;
constexpr size_t kWeightsInMemory = 16 << 20;   // bytes of W that L3 is not counted on to hold
constexpr size_t kResidentWeights = 256 << 10;  // bytes of W that stay in L2 beside A and C

// m rows as `count` tiles, the first `tall` of them of `height` rows, the others of one less: balanced, so that no tile
// is a small remainder.
struct RowTiles {
  RowTiles(size_t m, size_t greatest)
      : count(DivUp(m, greatest)), height(DivUp(m, count)), tall(m - count * (height - 1)) {}
  size_t row(size_t tile) const { return tile * (height - 1) + std::min(tile, tall); }
  size_t count, height, tall;
};

// The [first, last) of part i of `parts` of `count` things.
struct Range {
  size_t first, last;
};
Range Part(size_t i, size_t parts, size_t count) { return {i * count / parts, (i + 1) * count / parts}; }

// How a product is cut: k into kc, row tiles and panels into row_blocks x panel_groups tasks.
struct Blocking {
  size_t kc, row_blocks, panel_groups;
};
Blocking Block(size_t m, size_t k, size_t panels, const RowTiles& tiles, bool one_pass, size_t threads) {
  Blocking b;
  b.kc = one_pass ? k : DivUp(k, DivUp(k, kMaxKc));
  const size_t rows = std::max(4 * tiles.height, kRowBlockBytes / (b.kc * sizeof(float)));
  b.row_blocks = std::min(tiles.count, DivUp(m, rows));
  b.panel_groups = 1;
  if (threads == 1) return b;
  // Four tasks a thread even out their ends. Groups of panels first: each thread then reads its own part of W.
  const size_t wanted = 4 * threads;
  b.panel_groups = std::min(panels, DivUp(wanted, b.row_blocks));
  b.row_blocks = std::min(tiles.count, std::max(b.row_blocks, DivUp(wanted, b.panel_groups)));
  return b;
}

// One product and the cut that its tasks share.
class Product {
 public:
  Product(const PackedMatrix& w, const MatMulArgs& args, size_t threads)
      : kernel_(w.kernel()),
        w_(w),
        args_(args),
        epilogue_(MakeEpilogue(w.isa(), args.activation, args.residual_kind)),
        n_(static_cast<size_t>(w.n())),
        k_(static_cast<size_t>(w.k())),
        vector_panels_(w.cut().vector_panels()),
        shared_panels_(std::max<size_t>(1, vector_panels_)),
        tiles_(static_cast<size_t>(args.m), kernel_.rows) {
    // Partial sums in C would overwrite a residual that lies there; a single row gains nothing from blocks.
    const bool one_pass = args.m == 1 || (args.residual_kind != Residual::kNone && args.residual == args.c);
    blocking_ = Block(static_cast<size_t>(args.m), k_, shared_panels_, tiles_, one_pass, threads);
  }

  size_t tasks() const { return blocking_.row_blocks * blocking_.panel_groups; }

  // Tasks of one group of panels follow each other, so that threads share its part of W.
  void RunTask(size_t task) const {
    const Range rows = Part(task % blocking_.row_blocks, blocking_.row_blocks, tiles_.count);
    const Range shared = Part(task / blocking_.row_blocks, blocking_.panel_groups, shared_panels_);
    Range group = {shared.first, std::min(shared.last, vector_panels_)};
    if (args_.m == 1 && group.first < group.last) group.first += RunWholePanels(group);
    for (size_t k0 = 0; k0 < k_; k0 += blocking_.kc) {
      for (size_t p = group.first; p < group.last; ++p) RunPanel(rows, group, SliceOf(k0, p));
    }
    // The last group has the dot products too, in one pass over k: partial sums would change their bits.
    if (shared.last < shared_panels_) return;
    for (size_t p = vector_panels_; p < w_.cut().panels(); ++p) RunPanel(rows, {p, p + 1}, SliceOf(0, p));
  }

 private:
  // Steps of k from k0 on of one panel.
  struct Slice {
    GemmPanel panel;
    size_t index, k0, kc;
    const float* data;
    size_t floats() const { return kc * panel.width; }
  };
  Slice SliceOf(size_t k0, size_t index) const {
    const GemmPanel panel = w_.cut()[index];
    const size_t kc = panel.vectors == 0 ? k_ : std::min(blocking_.kc, k_ - k0);
    return {panel, index, k0, kc, w_.panels() + panel.first * k_ + k0 * panel.width};
  }

  // Where the sums of rows from `row` on and columns from `column` on go.
  GemmOutput OutputAt(size_t row, size_t column) const {
    const auto r = static_cast<int64_t>(row), j = static_cast<int64_t>(column);
    GemmOutput out;
    out.c = args_.c + r * args_.c_stride + j;
    out.row = args_.c_stride;
    out.bias = w_.bias() + column;
    if (args_.residual_kind != Residual::kNone) {
      out.residual = args_.residual + r * args_.residual_stride + j;
      out.residual_row = args_.residual_stride;
    }
    out.epilogue = &epilogue_;
    return out;
  }

  // The single row's sums of the group's whole panels; returns how many those are.
  size_t RunWholePanels(const Range& group) const {
    const size_t columns = kernel_.vectors * kernel_.lanes;
    GemmRow row;
    row.panels = std::min(group.last, n_ / columns) - group.first;
    row.a = args_.a;
    row.kc = k_;
    row.b = w_.panels() + group.first * columns * k_;
    row.b_panel = columns * k_;
    row.out = OutputAt(0, group.first * columns);
    row.out.tile = row.out.residual_tile = static_cast<ptrdiff_t>(columns);
    row.out.columns = columns;
    kernel_.row(row);
    return row.panels;
  }

  // All row tiles of one slice of a panel.
  void RunPanel(const Range& rows, const Range& group, const Slice& slice) const {
    const ptrdiff_t tap = 0;
    // Up to two runs of tiles: those of the greater height, those of one row less.
    const size_t border = std::clamp(tiles_.tall, rows.first, rows.last);
    const Range tall{rows.first, border}, low{border, rows.last};
    const bool more_tall = 2 * (tall.last - tall.first) >= rows.last - rows.first;
    for (const bool is_tall : {true, false}) {
      const Range& run = is_tall ? tall : low;
      if (run.first == run.last) continue;
      const size_t height = is_tall ? tiles_.height : tiles_.height - 1, row = tiles_.row(run.first);
      GemmTiles t;
      t.tiles = run.last - run.first;
      t.a = args_.a + static_cast<int64_t>(row) * args_.a_stride + slice.k0;
      t.a_row = args_.a_stride;
      t.a_tile = static_cast<int64_t>(height) * args_.a_stride;
      t.tap = &tap;
      t.kc = slice.kc;
      t.b = slice.data;
      t.out = OutputAt(row, slice.panel.first);
      t.out.tile = static_cast<int64_t>(height) * t.out.row;
      t.out.residual_tile = static_cast<int64_t>(height) * t.out.residual_row;
      t.out.columns = slice.panel.columns;
      t.out.accumulate = slice.k0 > 0;
      if (slice.k0 + slice.kc < k_) t.out.epilogue = nullptr;
      if (is_tall == more_tall) LookAhead(group, slice, height, t);
      kernel_.tiles[height][slice.panel.vectors](t);
    }
  }

  // What the run of tiles should prefetch: the next slice of W where W does not stay in L2 (BERT's layers: 76 -> 92 %
  // of the FMA peak, W in L3), else in the first pass over A its own rows two tiles further (pw3: 87 -> 92 %).
  void LookAhead(const Range& group, const Slice& slice, size_t height, GemmTiles& t) const {
    const size_t weight_bytes = n_ * k_ * sizeof(float);
    if (weight_bytes > kResidentWeights) {
      // A few tiles can only fetch it at the rate at which they read, which pays when it comes from memory (m = 4,
      // 64 MiB: 5.4 -> 4.0 ms), but out of L3 the hardware does as well, and out of L2 the prefetches are in the way.
      if (t.tiles < kFewTiles && weight_bytes < kWeightsInMemory) return;
      const bool last_panel = slice.index + 1 == group.last;
      if (last_panel && slice.k0 + slice.kc >= k_) return;
      const Slice next = last_panel ? SliceOf(slice.k0 + slice.kc, group.first) : SliceOf(slice.k0, slice.index + 1);
      t.ahead = next.data;
      t.ahead_end = next.data + next.floats();
      t.ahead_step = DivUp(next.panel.width, std::min(t.tiles, kAheadTiles));
    } else if (slice.index == group.first && t.a_tile == static_cast<ptrdiff_t>(height * t.kc)) {
      t.ahead = t.a + 2 * t.a_tile;
      t.ahead_end = t.a + static_cast<ptrdiff_t>(t.tiles) * t.a_tile;
      t.ahead_step = height;
    }
  }

  const GemmKernel& kernel_;
  const PackedMatrix& w_;
  const MatMulArgs& args_;
  const Epilogue epilogue_;
  const size_t n_, k_, vector_panels_, shared_panels_;
  const RowTiles tiles_;
  Blocking blocking_;
};

// One panel [k][width], `real` of its columns in w and zeros beyond; w and the strides as PackedMatrix::Pack has them.
void PackPanel(const TransposeKernel& move, size_t k, size_t real, size_t width, const float* w, int64_t o_stride,
               int64_t i_stride, size_t taps, float* panel) {
  if (o_stride == 1 && taps == 1) return move.copy_rows(k, real, width, w, i_stride, panel);
  const size_t run = taps == 1 ? k : taps, runs = k / run;  // of columns of w that go to every runs-th row
  for (size_t i = 0; i < runs; ++i) {
    move.transpose(real, run, w + i * run, o_stride, panel + i * width, static_cast<ptrdiff_t>(runs * width));
  }
  for (size_t i = 0; i < k && real < width; ++i) std::fill(panel + i * width + real, panel + (i + 1) * width, 0.0f);
}

// The panel of dot products: [k / lanes rounded up][columns][lanes], zeros beyond k.
void PackDots(size_t lanes, size_t k, size_t columns, const float* w, int64_t o_stride, int64_t i_stride, size_t taps,
              float* panel) {
  const size_t ic = k / taps;
  for (size_t p = 0; p < RoundUp(k, lanes); ++p) {
    const size_t from = (p % ic * taps + p / ic) * static_cast<size_t>(i_stride);
    float* to = panel + p / lanes * lanes * columns + p % lanes;
    for (size_t j = 0; j < columns; ++j) to[j * lanes] = p < k ? w[static_cast<int64_t>(j) * o_stride + from] : 0.0f;
  }
}

}  // namespace

const GemmKernel& MatMulKernel(Isa isa, int64_t m) { return m > 1 ? GetGemmKernel(isa) : GetWideKernel(isa); }

Result<PackedMatrix> PackedMatrix::Pack(Isa isa, const GemmKernel& kernel, int64_t k, int64_t n, const float* w,
                                        int64_t o_stride, int64_t i_stride, const float* bias, int64_t taps,
                                        bool taps_last) {
  const size_t floats_of_k = static_cast<size_t>(k), columns = PackedColumns(kernel, static_cast<size_t>(n));
  PackedMatrix packed;
  packed.isa_ = isa;
  packed.kernel_ = &kernel;
  packed.k_ = k;
  packed.n_ = n;
  packed.cut_ = PanelCut(kernel, static_cast<size_t>(n), floats_of_k, static_cast<size_t>(taps));
  packed.panels_ = packing::Part(packed.cut_.floats() * sizeof(float));
  packed.bias_ = packing::Part(columns * sizeof(float));
  if (packed.panels_.data() == nullptr || packed.bias_.data() == nullptr) {
    return Status{StatusCode::kOutOfMemory, "no memory for " +
                                                std::to_string((packed.cut_.floats() + columns) * sizeof(float)) +
                                                " bytes of packed weights"};
  }
  if (packing::Loading()) return packed;
  std::fill_n(packed.bias_.as<float>(), columns, 0.0f);
  if (bias != nullptr) std::copy_n(bias, n, packed.bias_.as<float>());
  const size_t inner = taps_last ? static_cast<size_t>(taps) : 1;
  for (size_t p = 0; p < packed.cut_.panels(); ++p) {
    const GemmPanel panel = packed.cut_[p];
    const float* from = w + static_cast<int64_t>(panel.first) * o_stride;
    float* to = packed.panels_.as<float>() + panel.first * floats_of_k;
    if (panel.vectors == 0) {
      PackDots(kernel.lanes, floats_of_k, panel.columns, from, o_stride, i_stride, inner, to);
    } else {
      PackPanel(GetTransposeKernel(isa), floats_of_k, panel.columns, panel.width, from, o_stride, i_stride, inner, to);
    }
  }
  return packed;
}

void MatMul(ThreadPool& pool, const PackedMatrix& w, const MatMulArgs& args) {
  if (args.m == 0) return;
  const Product product(w, args, InParallel() ? 1 : pool.num_threads());
  ParallelTasks(pool, product.tasks(), [&](size_t task, size_t) { product.RunTask(task); });
}

double PredictMatMul(const Machine& machine, Isa isa, int threads, int64_t m, int64_t n, int64_t k) {
  const GemmKernel& kernel = MatMulKernel(isa, m);
  if (m == 0) return 0;
  const PanelCut cut(kernel, static_cast<size_t>(n), static_cast<size_t>(k), 1);
  const double flops = 2.0 * static_cast<double>(m) * cut.work() * static_cast<double>(k);
  // A tile's start and end cost about as much as 4 steps of k, less where they overlap with the next tile's; 97 % of
  // the peak is what the inner loop reaches.
  const double ends = kernel.fmas_per_cycle == 1 ? 1.5 : 4;
  const double compute = flops / machine.Gflops(isa, threads) * (1 + ends / static_cast<double>(k)) / 0.97;
  const int64_t bytes = 4 * (static_cast<int64_t>(cut.floats()) + m * (k + n));
  return std::max(compute, static_cast<double>(bytes) / machine.Gbps(bytes, threads));
}

}  // namespace lamina::cpu
