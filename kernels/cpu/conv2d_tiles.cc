#include "kernels/cpu/conv2d_tiles.h"

#include <algorithm>
#include <utility>

namespace lamina::cpu {
namespace {

// Ceiling of a / b clamped to [0, most], for any a and b > 0.
int64_t DivUpClamped(int64_t a, int64_t b, int64_t most) { return a <= 0 ? 0 : std::min(most, DivUp(a, b)); }

// Along one dimension, of all taps of all outputs the part that does not fall on padding.
double InsidePart(int64_t outputs, int64_t inputs, int64_t taps, int64_t stride, int64_t dilation, int64_t pad) {
  int64_t inside = 0;
  for (int64_t t = 0; t < taps; ++t) {
    const int64_t before = pad - t * dilation;
    inside += DivUpClamped(inputs + before, stride, outputs) - DivUpClamped(before, stride, outputs);
  }
  return static_cast<double>(inside) / static_cast<double>(std::max<int64_t>(1, outputs * taps));
}

}  // namespace

TileTimes::TileTimes(const GemmKernel& kernel, int64_t k, int64_t columns) {
  const int64_t lanes = static_cast<int64_t>(kernel.lanes);
  const double vectors = static_cast<double>(std::min(static_cast<int64_t>(kernel.vectors), DivUp(columns, lanes)));
  const double fmas_per_cycle = kernel.fmas_per_cycle;
  const double panel_bytes = 4 * static_cast<double>(k * lanes) * vectors;
  // FMAs are 4 cycles long. A step of k reads `vectors` vectors of B; out of the L2 cache (panels above some 40 KiB) at
  // about 24 bytes a cycle, which lanes / 6 rows of FMAs hide where there is one a cycle.
  const double hiding = panel_bytes > 40960 ? static_cast<double>(lanes) / 6 * fmas_per_cycle : 1.0;
  least = std::max(4 * fmas_per_cycle / vectors, hiding);
  // 70 cycles (Emerald Rapids, AVX-512, 2026-11-23); with one FMA a cycle 20, the rest overlaps with the next tile (Zen
  // 4, 2026-11-26).
  const double cycles = kernel.fmas_per_cycle == 1 ? 20 : 70;
  ends = cycles * fmas_per_cycle / (static_cast<double>(k) * vectors);
}

Conv2dDesc AlongRows(Conv2dDesc d) {
  if (d.iw != 1 || d.kw != 1 || d.pad_left + d.pad_right != 0) return d;
  d.iw = std::exchange(d.ih, 1);
  d.kw = std::exchange(d.kh, 1);
  d.stride_w = std::exchange(d.stride_h, 1);
  d.dilation_w = std::exchange(d.dilation_h, 1);
  d.pad_left = std::exchange(d.pad_top, 0);
  d.pad_right = std::exchange(d.pad_bottom, 0);
  return d;
}

ConvTiles::ConvTiles(const Conv2dDesc& d, int64_t x_pixel, const FilterShape& filter)
    : desc_(d),
      filter_(filter),
      kernel_(filter.kernel),
      oh_(d.oh()),
      ow_(d.ow()),
      ic_group_(d.ic / d.groups),
      x_pixel_(x_pixel) {
  // Columns ow with 0 <= ow * stride - pad and ow * stride - pad + (kw - 1) * dilation < iw.
  interior_first_ = DivUpClamped(d.pad_left, d.stride_w, ow_);
  const int64_t last_start = d.iw - 1 - (d.kw - 1) * d.dilation_w + d.pad_left;
  interior_last_ = last_start < 0 ? 0 : std::min(ow_, last_start / d.stride_w + 1);

  const bool merged = d.dilation_w == 1 && x_pixel == ic_group_;
  taps_per_row_ = merged ? 1 : static_cast<size_t>(d.kw);
  tap_floats_ = static_cast<size_t>(merged ? d.kw * ic_group_ : ic_group_);
  for (int64_t i = 0; i < d.kh; ++i) {
    for (int64_t j = 0; j < static_cast<int64_t>(taps_per_row_); ++j) {
      taps_.push_back((i * d.dilation_h * d.iw + j * d.dilation_w) * x_pixel);
    }
  }
  ChooseTiling();
}

// Times in full-height rows of tiles. A pixel of a tile that goes through the pointer table costs a share more: the
// table itself and, with few floats a tap, the ends of many short loops (measured: 5 % at 64 floats, 65 % at 3).
void ConvTiles::ChooseTiling() {
  const int64_t most = static_cast<int64_t>(kernel_->rows), interior = interior_last_ - interior_first_;
  const double edge = 0.03 + 1.9 / static_cast<double>(ic_group_);
  const TileTimes times(*kernel_, desc_.kh * desc_.kw * ic_group_,
                        static_cast<int64_t>(std::max<size_t>(1, filter_.cut.vector_columns())));
  const auto cost = [&](int64_t pixels, int64_t edge_pixels) {
    return times.Of(Cut(pixels, most)) + edge * static_cast<double>(edge_pixels);
  };
  const int64_t edge_tiles = (interior_first_ > 0 ? 1 : 0) + (interior_last_ < ow_ ? 1 : 0);
  run_rows_ = 1;
  tiling_ = Tiling::kRows;
  cost_ = static_cast<double>(oh_) * cost(ow_, std::min(ow_, edge_tiles * most));
  if (interior > 0 && interior < ow_) {
    const int64_t block = DivUp(oh_, DivUp(oh_, most));  // rows of one tile down a column
    const double columns =
        static_cast<double>(ow_ - interior) * cost(block, 0) * static_cast<double>(oh_) / static_cast<double>(block);
    const double split = static_cast<double>(oh_) * cost(interior, 0) + columns;
    if (split < cost_) {
      tiling_ = Tiling::kColumns;
      cost_ = split;
      run_rows_ = block;
    }
  }
  const double flat = cost(oh_ * ow_, oh_ * ow_);
  if (flat < cost_) {
    tiling_ = Tiling::kFlat;
    cost_ = flat;
    run_rows_ = std::min(oh_, DivUp(32 * most, ow_));  // enough tiles that the last ones' heights do not matter
  }
}

double ConvTiles::PredictNs(const Machine& machine, Isa isa, int threads) const {
  const Conv2dDesc& d = desc_;
  const double pixels = static_cast<double>(d.n) * cost_;
  const double columns = static_cast<double>(filter_.units) * filter_.cut.work();
  constexpr double kTapSteps = 1.0;  // what leaving the loop over a tap costs, in steps of it
  const double steps = static_cast<double>(d.kh) * static_cast<double>(d.kw * ic_group_) *
                       (1 + kTapSteps / static_cast<double>(tap_floats_));
  const double inside = InsidePart(oh_, d.ih, d.kh, d.stride_h, d.dilation_h, d.pad_top) *
                        InsidePart(ow_, d.iw, d.kw, d.stride_w, d.dilation_w, d.pad_left);  // the others are skipped
  const double efficiency = filter_.unit_groups > 1 ? kGatherEfficiency : kLoopEfficiency;
  const double compute = 2 * inside * pixels * columns * steps / (efficiency * machine.Gflops(isa, threads));
  const int64_t bytes = CostOf(d).bytes();
  return std::max(compute, static_cast<double>(bytes) / machine.Gbps(bytes, threads));
}

size_t ConvTiles::table_bytes() const {
  const size_t taps = static_cast<size_t>(desc_.kh * desc_.kw);
  return taps * (kernel_->rows * sizeof(const float*) + sizeof(uint8_t));
}

ConvTiles::Range ConvTiles::ValidTaps(int64_t oh) const {
  const int64_t top = oh * desc_.stride_h - desc_.pad_top;
  const int64_t first = DivUpClamped(-top, desc_.dilation_h, desc_.kh);
  return {first, std::max(first, DivUpClamped(desc_.ih - top, desc_.dilation_h, desc_.kh))};
}

ConvTiles::Range ConvTiles::InputRows(int64_t first_row, int64_t last_row) const {
  Range all;
  for (int64_t oh = first_row; oh < last_row; ++oh) {
    const Range taps = ValidTaps(oh);
    if (taps.first == taps.last) continue;
    const int64_t top = oh * desc_.stride_h - desc_.pad_top;
    const Range rows = {top + taps.first * desc_.dilation_h, top + (taps.last - 1) * desc_.dilation_h + 1};
    all = all.last == 0 ? rows : Range{std::min(all.first, rows.first), std::max(all.last, rows.last)};
  }
  return all;
}

void ConvTiles::Run(const ConvRows& rows, std::byte* table) const {
  const int64_t first = rows.first_row, last = rows.last_row, interior = interior_last_ - interior_first_;
  switch (tiling_) {
    case Tiling::kRows:
      for (int64_t oh = first; oh < last; ++oh) RunPixels(rows, oh, 0, ow_, table);
      return;
    case Tiling::kColumns:
      for (int64_t block = first; block < last; block += run_rows_) {
        const int64_t end = std::min(block + run_rows_, last);
        for (int64_t oh = block; oh < end; ++oh) RunPixels(rows, oh, interior_first_, interior, table);
        const size_t height = static_cast<size_t>(end - block);
        for (int64_t ow = 0; ow < interior_first_; ++ow) RunColumn(rows, block, ow, height, table);
        for (int64_t ow = interior_last_; ow < ow_; ++ow) RunColumn(rows, block, ow, height, table);
      }
      return;
    case Tiling::kFlat:
      for (int64_t oh = first; oh < last; oh += run_rows_) {
        RunPixels(rows, oh, 0, (std::min(oh + run_rows_, last) - oh) * ow_, table);
      }
      return;
  }
}

// `pixels` output pixels from (oh, ow) on as one run. Tiles that lie inside one row and see no padding left or right go
// to the interior kernel, as many of one height as follow each other in a call; the others through the table.
void ConvTiles::RunPixels(const ConvRows& rows, int64_t oh, int64_t ow, int64_t pixels, std::byte* table) const {
  const Cut cut(pixels, static_cast<int64_t>(kernel_->rows));
  GemmOutput out;
  out.row = rows.y_pixel;
  out.columns = rows.panel.columns;
  out.bias = rows.panel.bias;
  out.residual_row = rows.residual_pixel;
  out.epilogue = rows.epilogue;
  for (int64_t t = 0; t < cut.tiles;) {
    const bool higher = t < cut.higher;
    const int64_t height = cut.height + (higher ? 1 : 0), pixel = (oh - rows.first_row) * ow_ + ow;
    out.c = rows.y + pixel * rows.y_pixel;
    out.tile = height * rows.y_pixel;
    if (rows.residual != nullptr) out.residual = rows.residual + pixel * rows.residual_pixel;
    out.residual_tile = height * rows.residual_pixel;
    int64_t tiles = 1;
    if (ow >= interior_first_ && ow + height <= interior_last_) {
      tiles = std::min((higher ? cut.higher : cut.tiles) - t, (interior_last_ - ow) / height);
      RunInterior(rows, oh, ow, static_cast<size_t>(height), static_cast<size_t>(tiles), out);
    } else {
      RunEdge(rows, oh, ow, static_cast<size_t>(height), false, out, table);
    }
    t += tiles;
    for (ow += tiles * height; ow >= ow_; ow -= ow_) ++oh;
  }
}

// Output rows oh.. of one column as one tile: a tap is padding left or right for all of them or for none, so none is
// multiplied in part but at the image's top and bottom.
void ConvTiles::RunColumn(const ConvRows& rows, int64_t oh, int64_t ow, size_t height, std::byte* table) const {
  const int64_t pixel = (oh - rows.first_row) * ow_ + ow;
  GemmOutput out;
  out.c = rows.y + pixel * rows.y_pixel;
  out.row = ow_ * rows.y_pixel;
  out.columns = rows.panel.columns;
  out.bias = rows.panel.bias;
  if (rows.residual != nullptr) out.residual = rows.residual + pixel * rows.residual_pixel;
  out.residual_row = ow_ * rows.residual_pixel;
  out.epilogue = rows.epilogue;
  RunEdge(rows, oh, ow, height, true, out, table);
}

void ConvTiles::RunInterior(const ConvRows& rows, int64_t oh, int64_t ow, size_t height, size_t tiles,
                            const GemmOutput& out) const {
  const Conv2dDesc& d = desc_;
  const Range taps = ValidTaps(oh);
  const int64_t valid = taps.last - taps.first;
  const int64_t row = oh * d.stride_h - d.pad_top + taps.first * d.dilation_h - rows.x_row;
  GemmTiles t;
  t.tiles = tiles;
  t.a = valid == 0 ? rows.x : rows.x + (row * d.iw + ow * d.stride_w - d.pad_left) * x_pixel_;
  t.a_row = d.stride_w * x_pixel_;
  t.a_tile = static_cast<ptrdiff_t>(height) * t.a_row;
  t.tap = taps_.data();
  t.taps = static_cast<size_t>(valid) * taps_per_row_;
  t.kc = tap_floats_;
  t.b = rows.panel.b + static_cast<size_t>(taps.first * d.kw * ic_group_) * rows.panel.width;
  t.out = out;
  t.gather = rows.panel.gather;
  kernel_->tiles[height][rows.panel.vectors](t);
}

void ConvTiles::RunEdge(const ConvRows& rows, int64_t oh, int64_t ow, size_t height, bool down, const GemmOutput& out,
                        std::byte* table) const {
  const Conv2dDesc& d = desc_;
  const int64_t reach = static_cast<int64_t>(height) - 1, last_oh = oh + (down ? reach : (ow + reach) / ow_);
  Range taps = ValidTaps(oh);  // kernel rows that any of the tile's output rows needs
  for (int64_t row = oh + 1; row <= last_oh; ++row) {
    const Range valid = ValidTaps(row);
    taps = {std::min(taps.first, valid.first), std::max(taps.last, valid.last)};
  }
  const size_t kw = static_cast<size_t>(d.kw), count = static_cast<size_t>(taps.last - taps.first) * kw;
  const float** pointers = reinterpret_cast<const float**>(table);  // [taps][kw][height]
  uint8_t* mode =
      reinterpret_cast<uint8_t*>(pointers + count * kernel_->rows);  // [taps][kw]: valid rows, then the mode
  std::fill_n(mode, count, uint8_t{0});
  for (int64_t r = 0; r <= reach; ++oh, ow = 0) {  // the part of the tile in each output row it touches, or its column
    const Line line = {oh, ow, down ? reach + 1 : std::min(reach + 1 - r, ow_ - ow), down};
    FillTable(rows, line, taps, height, pointers + r, mode);
    r += line.rows;
  }
  for (size_t q = 0; q < count; ++q) mode[q] = mode[q] == height ? kTapWhole : mode[q] == 0 ? kTapEmpty : kTapPartial;
  GemmEdge e;
  e.rows = pointers;
  e.tap_mode = mode;
  e.taps = count;
  e.kc = static_cast<size_t>(ic_group_);
  e.b = rows.panel.b + static_cast<size_t>(taps.first) * kw * e.kc * rows.panel.width;
  e.out = out;
  e.gather = rows.panel.gather;
  kernel_->edge[height][rows.panel.vectors](e);
}

// Pointers of `line.rows` output pixels, side by side or below each other, to their taps, null on padding; count gets
// how many are not. The pixels of which a tap lies inside the image follow each other.
void ConvTiles::FillTable(const ConvRows& rows, const Line& line, Range taps, size_t height, const float** pointers,
                          uint8_t* count) const {
  const Conv2dDesc& d = desc_;
  const int64_t down = line.down ? d.stride_h : 0, across = line.down ? 0 : d.stride_w;
  const ptrdiff_t step = (down * d.iw + across) * x_pixel_;
  for (int64_t i = taps.first; i < taps.last; ++i) {
    const int64_t ih = line.oh * d.stride_h - d.pad_top + i * d.dilation_h;
    int64_t iw = line.ow * d.stride_w - d.pad_left;
    for (int64_t j = 0; j < d.kw; ++j, iw += d.dilation_w, pointers += height, ++count) {
      int64_t first = 0, last = line.rows;
      while (first < last && (ih + first * down < 0 || iw + first * across < 0)) ++first;
      while (first < last && (ih + (last - 1) * down >= d.ih || iw + (last - 1) * across >= d.iw)) --last;
      ptrdiff_t offset = ((ih - rows.x_row) * d.iw + iw) * x_pixel_ + first * step;
      std::fill_n(pointers, first, nullptr);
      for (int64_t r = first; r < last; ++r, offset += step) pointers[r] = rows.x + offset;
      std::fill_n(pointers + last, line.rows - last, nullptr);
      *count = static_cast<uint8_t>(*count + (last - first));
    }
  }
}

}  // namespace lamina::cpu
