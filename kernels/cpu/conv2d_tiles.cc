#include "kernels/cpu/conv2d_tiles.h"

#include <algorithm>
#include <utility>

#include "lamina/weights.h"

namespace lamina::cpu {
namespace {

// Ceiling of a / b clamped to [0, most], for any a and b > 0.
int64_t DivUpClamped(int64_t a, int64_t b, int64_t most) { return a <= 0 ? 0 : std::min(most, DivUp(a, b)); }

// to[i] = from[i] + step, null staying null.
void CopyPointers(const float* const* from, size_t count, ptrdiff_t step, const float** to) {
  for (size_t i = 0; i < count; ++i) to[i] = from[i] == nullptr ? nullptr : from[i] + step;
}

}  // namespace

TileTimes::TileTimes(const GemmKernel& kernel, int64_t k, int64_t columns) {
  const int64_t lanes = static_cast<int64_t>(kernel.lanes);
  const double vectors = static_cast<double>(std::min(static_cast<int64_t>(kernel.vectors), DivUp(columns, lanes)));
  const double panel_bytes = 4 * static_cast<double>(k * lanes) * vectors;
  // Two FMAs a cycle, each 4 cycles long, want 8 sums. A step of k reads `vectors` vectors of B; out of the L2 cache
  // (panels above some 40 KiB) at about 24 bytes a cycle, which lanes / 3 rows of FMAs hide.
  least = std::max(8 / vectors, panel_bytes > 40960 ? static_cast<double>(lanes) / 3 : 1.0);
  ends = 140 / (static_cast<double>(k) * vectors);  // 70 cycles (Emerald Rapids, AVX-512, 2026-11-23)
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

Result<std::shared_ptr<const PackedFilter>> PackFilter(const Conv2dDesc& d, const Conv2dWeights& weights, Isa isa) {
  const int64_t oc_group = d.oc / d.groups, ic_group = d.ic / d.groups, k = d.kh * d.kw * ic_group;
  const float* w = static_cast<const float*>(weights.w);
  const float* bias = static_cast<const float*>(weights.bias);
  AlignedBuffer ohwi;
  if (d.weight_layout == WeightLayout::kOihw && d.kh * d.kw > 1 && ic_group > 1) {
    ohwi = AlignedBuffer(static_cast<size_t>(oc_group * k) * sizeof(float));
    if (ohwi.data() == nullptr) return Status{StatusCode::kOutOfMemory, ToString(d) + ": no memory for the weights"};
  }
  auto filter = std::make_shared<PackedFilter>();
  filter->reserve(static_cast<size_t>(d.groups));
  for (int64_t g = 0; g < d.groups; ++g) {
    const float* group = w + g * oc_group * k;
    if (ohwi.data() != nullptr) {
      Status s = ConvertWeights(oc_group, ic_group, d.kh, d.kw, d.dtype, WeightLayout::kOihw, group, ohwi.data());
      if (!s.ok()) return s;
      group = ohwi.as<float>();
    }
    auto packed = PackedMatrix::Pack(isa, k, oc_group, group, k, 1, bias == nullptr ? nullptr : bias + g * oc_group);
    if (!packed.ok()) return Status{packed.status().code(), ToString(d) + ": " + packed.status().message()};
    filter->push_back(std::move(*packed));
  }
  return std::shared_ptr<const PackedFilter>(std::move(filter));
}

size_t PackedBytes(const PackedFilter& filter) {
  size_t bytes = 0;
  for (const PackedMatrix& matrix : filter) bytes += matrix.bytes();
  return bytes;
}

size_t CountPanels(const GemmKernel& kernel, int64_t oc_group) {
  return static_cast<size_t>(DivUp(oc_group, static_cast<int64_t>(kernel.vectors * kernel.lanes)));
}

FilterPanel PanelOf(const GemmKernel& kernel, const PackedMatrix& matrix, size_t panel) {
  const size_t width = kernel.vectors * kernel.lanes, first = panel * width;
  const size_t columns = std::min(width, static_cast<size_t>(matrix.n()) - first);
  return {first, columns, (columns + kernel.lanes - 1) / kernel.lanes,
          matrix.panels() + first * static_cast<size_t>(matrix.k()), matrix.bias() + first};
}

ConvTiles::ConvTiles(const Conv2dDesc& d, int64_t x_pixel, const GemmKernel& kernel)
    : desc_(d), kernel_(&kernel), oh_(d.oh()), ow_(d.ow()), ic_group_(d.ic / d.groups), x_pixel_(x_pixel) {
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
  const TileTimes times(*kernel_, desc_.kh * desc_.kw * ic_group_, desc_.oc / desc_.groups);
  const auto cost = [&](int64_t pixels, int64_t edge_pixels) {
    return times.Of(Cut(pixels, most)) + edge * static_cast<double>(edge_pixels);
  };
  const int64_t edge_tiles = (interior_first_ > 0 ? 1 : 0) + (interior_last_ < ow_ ? 1 : 0);
  run_rows_ = 1;
  tiling_ = Tiling::kRows;
  cost_ = static_cast<double>(oh_) * cost(ow_, std::min(ow_, edge_tiles * most));
  if (interior > 0 && interior < ow_ && oh_ > 1) {
    const double split = static_cast<double>(oh_) * (cost(interior, 0) + cost(ow_ - interior, ow_ - interior));
    if (split < cost_) {
      tiling_ = Tiling::kSplit;
      cost_ = split;
      run_rows_ = std::min<int64_t>(oh_, 8);
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
  const int64_t oc_group = d.oc / d.groups, lanes = static_cast<int64_t>(kernel_->lanes);
  const double pixels = static_cast<double>(d.n) * cost_;
  const double columns = static_cast<double>(d.groups * DivUp(oc_group, lanes) * lanes);
  constexpr double kTapSteps = 1.0;  // what leaving the loop over a tap costs, in steps of it
  const double steps = static_cast<double>(d.kh) * static_cast<double>(d.kw * ic_group_) *
                       (1 + kTapSteps / static_cast<double>(tap_floats_));
  const double compute = 2 * pixels * columns * steps / (kLoopEfficiency * machine.Gflops(isa, threads));
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
    case Tiling::kSplit:
      // What lies between one row's interior and the next one's is one run.
      if (interior_first_ > 0) RunPixels(rows, first, 0, interior_first_, table);
      for (int64_t oh = first; oh < last; ++oh) {
        RunPixels(rows, oh, interior_first_, interior, table);
        const int64_t border = ow_ - interior_last_ + (oh + 1 < last ? interior_first_ : 0);
        if (border > 0) RunPixels(rows, oh, interior_last_, border, table);
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
      RunEdge(rows, oh, ow, static_cast<size_t>(height), out, table);
    }
    t += tiles;
    for (ow += tiles * height; ow >= ow_; ow -= ow_) ++oh;
  }
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
  t.b = rows.panel.b + static_cast<size_t>(taps.first * d.kw * ic_group_) * rows.panel.vectors * kernel_->lanes;
  t.out = out;
  kernel_->tiles[height][rows.panel.vectors](t);
}

void ConvTiles::RunEdge(const ConvRows& rows, int64_t oh, int64_t ow, size_t height, const GemmOutput& out,
                        std::byte* table) const {
  const Conv2dDesc& d = desc_;
  const int64_t last_oh = oh + (ow + static_cast<int64_t>(height) - 1) / ow_;
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
  for (size_t r = 0; r < height; ++oh, ow = 0) {  // the part of the tile in each output row it touches
    const size_t pixels = std::min(height - r, static_cast<size_t>(ow_ - ow));
    FillTable({rows.x + (oh * d.stride_h - d.pad_top - rows.x_row) * d.iw * x_pixel_, ow * d.stride_w - d.pad_left},
              taps, ValidTaps(oh), pixels, height, pointers + r, mode);
    r += pixels;
  }
  for (size_t q = 0; q < count; ++q) mode[q] = mode[q] == height ? kTapWhole : mode[q] == 0 ? kTapEmpty : kTapPartial;
  GemmEdge e;
  e.rows = pointers;
  e.tap_mode = mode;
  e.taps = count;
  e.kc = static_cast<size_t>(ic_group_);
  e.b = rows.panel.b + static_cast<size_t>(taps.first) * kw * e.kc * rows.panel.vectors * kernel_->lanes;
  e.out = out;
  kernel_->edge[height][rows.panel.vectors](e);
}

// Pointers of `pixels` neighbouring output pixels of one row to their taps, null on padding, and how many are not. The
// first kernel row inside the image is worked out, the next ones are the same some rows of x further down.
void ConvTiles::FillTable(const Window& window, Range taps, Range valid, size_t pixels, size_t height,
                          const float** pointers, uint8_t* count) const {
  const Conv2dDesc& d = desc_;
  const size_t kw = static_cast<size_t>(d.kw), row_pointers = kw * height;
  const ptrdiff_t step = d.dilation_h * d.iw * x_pixel_;
  for (int64_t i = taps.first; i < taps.last; ++i, pointers += row_pointers, count += kw) {
    if (i < valid.first || i >= valid.last) {
      for (size_t j = 0; j < kw; ++j) std::fill_n(pointers + j * height, pixels, nullptr);
      continue;
    }
    if (i == valid.first) {
      const float* row = window.x + i * step;
      for (size_t j = 0; j < kw; ++j) {
        int64_t column = window.column + static_cast<int64_t>(j) * d.dilation_w;
        for (size_t p = 0; p < pixels; ++p, column += d.stride_w) {
          const bool inside = column >= 0 && column < d.iw;
          pointers[j * height + p] = inside ? row + column * x_pixel_ : nullptr;
          count[j] = static_cast<uint8_t>(count[j] + inside);
        }
      }
      continue;
    }
    if (pixels == height) {
      CopyPointers(pointers - row_pointers, row_pointers, step, pointers);
      std::copy_n(count - kw, kw, count);
      continue;
    }
    for (size_t j = 0; j < kw; ++j) {
      const float** at = pointers + j * height;
      CopyPointers(at - row_pointers, pixels, step, at);
      count[j] = static_cast<uint8_t>(count[j] + pixels - static_cast<size_t>(std::count(at, at + pixels, nullptr)));
    }
  }
}

}  // namespace lamina::cpu
