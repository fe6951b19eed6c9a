// The micro-kernels that fully_connected, pointwise convolution, convolution and the attentions' projections run on:
// one inner loop, "one float of A per row, broadcast, times a few vectors of packed B", and two ways to name the rows.
//
// A is read where it lies; B is packed in panels [k][columns of the tile], 64-byte aligned. Every sum runs over k in
// the same order whatever the tile's height, so results do not depend on how rows are split among tiles or threads.
// The few columns that would leave a vector mostly empty are dot products instead, lanes along k: panels of no vectors.
#ifndef LAMINA_KERNELS_CPU_GEMM_H_
#define LAMINA_KERNELS_CPU_GEMM_H_

#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/round.h"
#include "lamina/context.h"
#include "lamina/machine.h"
#include "lamina/types.h"

namespace lamina::cpu {

inline constexpr size_t kMaxTileRows = 14, kMaxTileVectors = 4;

// What becomes of a sum: + residual, activation, + residual. Activations that are clamps happen in registers, the
// others over the stored tile.
struct Epilogue {
  float lo = -std::numeric_limits<float>::infinity();
  float hi = std::numeric_limits<float>::infinity();
  Residual residual = Residual::kNone;
  Activation activation = {};
  ActivateFn activate = nullptr;  // null when lo and hi say it all

  bool clamps() const {
    return lo > -std::numeric_limits<float>::infinity() || hi < std::numeric_limits<float>::infinity();
  }
  bool in_registers() const { return residual == Residual::kNone && activate == nullptr; }
};
Epilogue MakeEpilogue(Isa isa, const Activation& activation, Residual residual);

// Where a tile's sums start and end.
struct GemmOutput {
  float* c = nullptr;  // row r of tile t at c + t * tile + r * row
  ptrdiff_t row = 0, tile = 0;
  size_t columns = 0;           // stored, <= vectors * lanes; of dot products any number
  const float* bias = nullptr;  // [columns], padded to whole vectors; unread when `accumulate`
  const float* residual = nullptr;
  ptrdiff_t residual_row = 0, residual_tile = 0;
  const Epilogue* epilogue = nullptr;  // null: the sums are partial, stored as they are
  bool accumulate = false;             // start from what c holds: a later block of k
};

// Which float of a row of A each lane multiplies, where that differs from lane to lane (gemm_narrow.h).
struct LaneGather {
  const int32_t* index = nullptr;  // [kc][lanes], each less than `floats`
  size_t floats = 0;               // of a row, at most a vector
  size_t kw = 1;                   // taps of a kernel row; B is [taps / kw][kc][kw][lanes]
};

// `tiles` row tiles of one height, every tap inside the image. The whole k is taps * kc.
struct GemmTiles {
  size_t tiles = 0;
  const float* a = nullptr;  // row r of tile t, tap q: kc floats at a + t * a_tile + r * a_row + tap[q]
  ptrdiff_t a_row = 0, a_tile = 0;
  const ptrdiff_t* tap = nullptr;  // [taps]
  size_t taps = 1, kc = 0;
  const float* b = nullptr;           // [taps][kc][vectors * lanes]
  const ptrdiff_t* b_step = nullptr;  // planes kernels only (gemm_planes.h): step p's columns lie at b + b_step[p]
  GemmOutput out;
  // What the caller reads next, such as the following panel: brought into L2 while the sums run, `ahead_step` floats of
  // it per step of k, so that its way from L3 or memory hides behind the arithmetic. Nothing when ahead == ahead_end.
  const float* ahead = nullptr;
  const float* ahead_end = nullptr;
  size_t ahead_step = 0;
  const LaneGather* gather = nullptr;  // gather kernels only
};

// One row against `panels` whole panels, several at once: one stream of weights does not reach memory's read bandwidth.
struct GemmRow {
  const float* a = nullptr;  // [kc]
  size_t kc = 0;
  const float* b = nullptr;  // panel p, [kc][vectors * lanes], at b + p * b_panel
  size_t b_panel = 0;
  size_t panels = 0;
  GemmOutput out;  // of all panels: `tile` and `residual_tile` lead from panel to panel, bias goes on; not accumulating
};

// One row tile whose rows lie anywhere, some taps of some rows on padding: those terms are skipped, not multiplied by
// 0.
struct GemmEdge {
  const float* const* rows = nullptr;  // [taps][height]: kc floats each, null on padding
  const uint8_t* tap_mode = nullptr;   // [taps]: kTapWhole, kTapPartial or kTapEmpty
  size_t taps = 1, kc = 0;
  const float* b = nullptr;            // [taps][kc][vectors * lanes]
  GemmOutput out;                      // tile 0 only
  const LaneGather* gather = nullptr;  // gather kernels only
};
inline constexpr uint8_t kTapWhole = 0, kTapPartial = 1, kTapEmpty = 2;

struct GemmKernel {
  size_t lanes;    // floats of a vector
  size_t rows;     // greatest tile height, <= kMaxTileRows
  size_t vectors;  // widest tile, <= kMaxTileVectors; panels are vectors * lanes columns, the last one as few vectors
                   // as do
  // [height][vectors], height 1..rows, vectors 1..vectors, and 0 for dot products: those have an epilogue, accumulate
  // nothing, and their tiles' rows are all evenly spaced (a_tile = height * a_row, likewise in `out`). Gather kernels
  // have none.
  void (*tiles[kMaxTileRows + 1][kMaxTileVectors + 1])(const GemmTiles&);
  void (*edge[kMaxTileRows + 1][kMaxTileVectors + 1])(const GemmEdge&);
  void (*row)(const GemmRow&);
  int fmas_per_cycle;  // of whole vectors, of the CPUs that it is written for
};
// The one for this CPU; all give the same bits.
const GemmKernel& GetGemmKernel(Isa isa);
// Of the widest panels: for CPUs with two FMAs a cycle, and everywhere for a single row.
const GemmKernel& GetWideKernel(Isa isa);
// On AVX-512 for CPUs with one FMA of 512 bits a cycle (Zen 4); elsewhere the wide one.
const GemmKernel& GetOperandKernel(Isa isa);

// n columns in whole vectors.
inline size_t PackedColumns(const GemmKernel& kernel, size_t n) { return RoundUp(n, kernel.lanes); }

// A panel of packed B: `width` floats for each step of k, [k][vectors * lanes] with zeros beyond `columns`; of dot
// products (no vectors) [k / lanes rounded up][columns][lanes] with zeros beyond k.
struct GemmPanel {
  size_t first, columns, vectors, width;
};

// How n columns are cut into panels: of vectors * lanes, the last one of as few vectors as do, and then, where it is
// faster, one of dot products. They lie behind each other, each at first * k.
class PanelCut {
 public:
  PanelCut() = default;
  // A row of A is `taps` runs of k / taps floats.
  PanelCut(const GemmKernel& kernel, size_t n, size_t k, size_t taps);
  GemmPanel operator[](size_t panel) const;
  size_t panels() const { return vector_panels() + (dots_ > 0 ? 1 : 0); }
  size_t vector_panels() const { return DivUp(n_ - dots_, whole_); }
  size_t vector_columns() const { return RoundUp(n_ - dots_, lanes_); }
  size_t floats() const { return vector_columns() * k_ + dots_ * RoundUp(k_, lanes_); }
  // Columns of vectors that would take as long.
  double work() const;

 private:
  size_t lanes_ = 1, whole_ = 1, n_ = 0, k_ = 0, dots_ = 0;
};

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_GEMM_H_
