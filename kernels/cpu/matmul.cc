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
#include "kernels/cpu/thread_pool.h"

namespace lamina::cpu {
namespace {

constexpr size_t kMaxKc = 1536;               // 384 KiB of a panel of 64 columns
constexpr size_t kRowBlockBytes = 768 << 10;  // of A

size_t DivUp(size_t a, size_t b) { return (a + b - 1) / b; }

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

}  // namespace

Result<PackedMatrix> PackedMatrix::Pack(Isa isa, int64_t k, int64_t n, const float* w, int64_t o_stride,
                                        int64_t i_stride, const float* bias) {
  const GemmKernel& kernel = GetGemmKernel(isa);
  const auto columns = static_cast<int64_t>(PackedColumns(kernel, static_cast<size_t>(n)));
  PackedMatrix packed;
  packed.isa_ = isa;
  packed.k_ = k;
  packed.n_ = n;
  packed.panels_ = AlignedBuffer(static_cast<size_t>(columns * k) * sizeof(float));
  packed.bias_ = AlignedBuffer(static_cast<size_t>(columns) * sizeof(float));
  if (packed.panels_.data() == nullptr || packed.bias_.data() == nullptr) {
    return Status{StatusCode::kOutOfMemory,
                  "no memory for " + std::to_string(columns * (k + 1) * int64_t{4}) + " bytes of packed weights"};
  }
  for (int64_t o = 0; o < columns; ++o) packed.bias_.as<float>()[o] = bias != nullptr && o < n ? bias[o] : 0.0f;
  const auto panel_columns = static_cast<int64_t>(kernel.vectors * kernel.lanes);
  constexpr int64_t kLine = 16;  // floats of a cache line: of each row of w one line at a time
  for (int64_t o0 = 0; o0 < columns; o0 += panel_columns) {
    const int64_t width = std::min(panel_columns, columns - o0);
    float* panel = packed.panels_.as<float>() + o0 * k;
    for (int64_t i0 = 0; i0 < k; i0 += kLine) {
      const int64_t i1 = std::min(k, i0 + kLine);
      for (int64_t j = 0; j < width; ++j) {
        const bool real = o0 + j < n;  // else a column of zeros
        const float* from = real ? w + (o0 + j) * o_stride : nullptr;
        for (int64_t i = i0; i < i1; ++i) panel[i * width + j] = real ? from[i * i_stride] : 0.0f;
      }
    }
  }
  return packed;
}

void MatMul(ThreadPool& pool, const PackedMatrix& w, const MatMulArgs& args) {
  const GemmKernel& kernel = GetGemmKernel(w.isa());
  const size_t m = static_cast<size_t>(args.m), n = static_cast<size_t>(w.n()), k = static_cast<size_t>(w.k());
  if (m == 0) return;
  const size_t panel_columns = kernel.vectors * kernel.lanes, panels = DivUp(n, panel_columns);
  const RowTiles tiles(m, kernel.rows);
  const Epilogue epilogue = MakeEpilogue(w.isa(), args.activation, args.residual_kind);
  // Partial sums in C would overwrite a residual that lies there.
  const bool one_pass = args.residual_kind != Residual::kNone && args.residual == args.c;
  const size_t threads = InParallel() ? 1 : pool.num_threads();
  const Blocking block = Block(m, k, panels, tiles, one_pass, threads);

  ParallelTasks(pool, block.row_blocks * block.panel_groups, [&](size_t task, size_t) {
    // Tasks of one group of panels follow each other, so that threads share its part of W.
    const Range rows = Part(task % block.row_blocks, block.row_blocks, tiles.count);
    const Range group = Part(task / block.row_blocks, block.panel_groups, panels);
    const ptrdiff_t tap = 0;
    for (size_t k0 = 0; k0 < k; k0 += block.kc) {
      const size_t kc = std::min(block.kc, k - k0);
      for (size_t p = group.first; p < group.last; ++p) {
        const size_t column = p * panel_columns, columns = std::min(panel_columns, n - column);
        const size_t vectors = DivUp(columns, kernel.lanes);
        GemmTiles t;
        t.a_row = args.a_stride;
        t.tap = &tap;
        t.kc = kc;
        t.b = w.panels() + column * k + k0 * vectors * kernel.lanes;
        t.out.row = args.c_stride;
        t.out.columns = columns;
        t.out.bias = w.bias() + column;
        t.out.residual_row = args.residual_stride;
        t.out.epilogue = k0 + kc == k ? &epilogue : nullptr;
        t.out.accumulate = k0 > 0;
        // Up to two runs of tiles: those of `height` rows, those of one less.
        const size_t border = std::clamp(tiles.tall, rows.first, rows.last);
        for (const auto& [run, height] : {std::pair(Range{rows.first, border}, tiles.height),
                                          std::pair(Range{border, rows.last}, tiles.height - 1)}) {
          if (run.first == run.last) continue;
          const auto row = static_cast<int64_t>(tiles.row(run.first)), step = static_cast<int64_t>(height);
          t.tiles = run.last - run.first;
          t.a = args.a + row * args.a_stride + k0;
          t.a_tile = step * args.a_stride;
          t.out.c = args.c + row * args.c_stride + column;
          t.out.tile = step * args.c_stride;
          if (args.residual_kind != Residual::kNone) {
            t.out.residual = args.residual + row * args.residual_stride + column;
            t.out.residual_tile = step * args.residual_stride;
          }
          kernel.tiles[height][vectors](t);
        }
      }
    }
  });
}

double PredictMatMul(const Machine& machine, Isa isa, int threads, int64_t m, int64_t n, int64_t k) {
  const GemmKernel& kernel = GetGemmKernel(isa);
  if (m == 0) return 0;
  const auto columns = static_cast<double>(PackedColumns(kernel, static_cast<size_t>(n)));
  const double flops = 2.0 * static_cast<double>(m) * columns * static_cast<double>(k);
  // A tile's start and end cost about as much as 4 steps of k; 97 % of the peak is what the inner loop reaches.
  const double compute = flops / machine.Gflops(isa, threads) * (1 + 4.0 / static_cast<double>(k)) / 0.97;
  const int64_t bytes = 4 * (static_cast<int64_t>(columns) * k + m * (k + n));
  return std::max(compute, static_cast<double>(bytes) / machine.Gbps(bytes, threads));
}

}  // namespace lamina::cpu
