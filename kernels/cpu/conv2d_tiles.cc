#include "kernels/cpu/conv2d_tiles.h"

#include <algorithm>

#include "lamina/weights.h"

namespace lamina::cpu {
namespace {

// Ceiling of a / b clamped to [0, most], for any a and b > 0.
int64_t DivUpClamped(int64_t a, int64_t b, int64_t most) { return a <= 0 ? 0 : std::min(most, DivUp(a, b)); }

}  // namespace

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
  // Tiles across rows go through the pointer table (a few percent), so they must save more than that.
  const int64_t most = static_cast<int64_t>(kernel.rows);
  if (1.08 * static_cast<double>(Cut(oh_ * ow_, most).cost()) < static_cast<double>(oh_ * Cut(ow_, most).cost())) {
    run_rows_ = oh_;
  }
}

double ConvTiles::PredictNs(const Machine& machine, Isa isa, int threads) const {
  const Conv2dDesc& d = desc_;
  const int64_t oc_group = d.oc / d.groups, lanes = static_cast<int64_t>(kernel_->lanes);
  const Cut run(run_rows_ * ow_, static_cast<int64_t>(kernel_->rows));
  const double pixels = static_cast<double>(d.n * (oh_ / run_rows_) * run.cost());
  const double columns = static_cast<double>(d.groups * DivUp(oc_group, lanes) * lanes);
  const double panels = static_cast<double>(d.groups) * static_cast<double>(CountPanels(*kernel_, oc_group));
  constexpr double kTapSteps = 1.0;  // what leaving the loop over a tap costs, in steps of it
  const double steps = static_cast<double>(d.kh) * static_cast<double>(d.kw * ic_group_) *
                       (1 + kTapSteps / static_cast<double>(tap_floats_));
  const double one = 2 * pixels * columns * steps / (kLoopEfficiency * machine.Gflops(isa, 1)) +
                     kTileNs * pixels * panels / static_cast<double>(kernel_->rows);
  const int64_t bytes = CostOf(d).bytes();
  return std::max(one * machine.Gflops(isa, 1) / machine.Gflops(isa, threads),
                  static_cast<double>(bytes) / machine.Gbps(bytes, threads));
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
  for (int64_t first = rows.first_row; first < rows.last_row; first += run_rows_) {
    RunPixels(rows, first, std::min(first + run_rows_, rows.last_row), table);
  }
}

// Output rows [first_row, last_row) as one run of pixels. Tiles that lie inside one row and see no padding left or
// right go to the interior kernel, as many of one height as follow each other in a call; the others through the table.
void ConvTiles::RunPixels(const ConvRows& rows, int64_t first_row, int64_t last_row, std::byte* table) const {
  const Cut cut((last_row - first_row) * ow_, static_cast<int64_t>(kernel_->rows));
  GemmOutput out;
  out.row = rows.y_pixel;
  out.columns = rows.panel.columns;
  out.bias = rows.panel.bias;
  out.residual_row = rows.residual_pixel;
  out.epilogue = rows.epilogue;
  const auto place = [&](int64_t oh, int64_t ow, int64_t height) {
    const int64_t pixel = (oh - rows.first_row) * ow_ + ow;
    out.c = rows.y + pixel * rows.y_pixel;
    out.tile = height * rows.y_pixel;
    if (rows.residual != nullptr) out.residual = rows.residual + pixel * rows.residual_pixel;
    out.residual_tile = height * rows.residual_pixel;
  };
  int64_t oh = first_row, ow = 0;
  for (int64_t t = 0; t < cut.tiles;) {
    const bool higher = t < cut.higher;
    const int64_t height = cut.height + (higher ? 1 : 0);
    place(oh, ow, height);
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
  const size_t taps = static_cast<size_t>(d.kh * d.kw);
  const float** pointers = reinterpret_cast<const float**>(table);              // [kh][kw][height]
  uint8_t* mode = reinterpret_cast<uint8_t*>(pointers + taps * kernel_->rows);  // [kh][kw]: valid rows, then the mode
  std::fill_n(mode, taps, uint8_t{0});
  // The part of the tile in each output row it touches.
  for (size_t r = 0; r < height; ++oh, ow = 0) {
    const int64_t pixels = std::min(static_cast<int64_t>(height - r), ow_ - ow);
    const Range valid_rows = ValidTaps(oh);
    const int64_t top = oh * d.stride_h - d.pad_top - rows.x_row, left = ow * d.stride_w - d.pad_left;
    const float** at = pointers + r;
    uint8_t* valid = mode;
    for (int64_t i = 0; i < d.kh; ++i) {
      const bool inside = i >= valid_rows.first && i < valid_rows.last;
      const float* row = inside ? rows.x + (top + i * d.dilation_h) * d.iw * x_pixel_ : nullptr;
      for (int64_t j = 0; j < d.kw; ++j, at += height, ++valid) {
        for (int64_t p = 0, column = left + j * d.dilation_w; p < pixels; ++p, column += d.stride_w) {
          const bool in = inside && column >= 0 && column < d.iw;
          at[p] = in ? row + column * x_pixel_ : nullptr;
          *valid = static_cast<uint8_t>(*valid + in);
        }
      }
    }
    r += static_cast<size_t>(pixels);
  }
  for (size_t q = 0; q < taps; ++q) mode[q] = mode[q] == height ? kTapWhole : mode[q] == 0 ? kTapEmpty : kTapPartial;
  GemmEdge e;
  e.rows = pointers;
  e.tap_mode = mode;
  e.taps = taps;
  e.kc = static_cast<size_t>(ic_group_);
  e.b = rows.panel.b;
  e.out = out;
  kernel_->edge[height][rows.panel.vectors](e);
}

}  // namespace lamina::cpu
