// The depthwise step: cuts an image into tiles, hands each to a micro-kernel of dwconv.h.
//
// Direct tiles are as many rows as the kernel takes at once and all columns. Where L3 is slow they are 8 columns, so
// that one vector of channels does not push out of L1 what the next one wants of the same pages and lines (112x112x32:
// 165 us in whole rows, 121 us in 8 columns; 56x56x128: 178 and 146; Emerald Rapids, AVX-512, 2026-11-23. Zen 4 loses
// by it: 67 and 95 us). Copied tiles are as many rows as a block of 96 KiB holds, so that few rows are copied twice.
#include "kernels/cpu/depthwise.h"

#include <cstring>

#include "kernels/cpu/round.h"
#include "kernels/operators/packing.h"

namespace lamina::cpu {
namespace {

constexpr int64_t kCopiedColumns = 64;
constexpr int64_t kBlockBytes = 96 << 10;
constexpr int64_t kMaxLag = 2;
constexpr int64_t kRingBytes = 16 << 10;  // half of L1

}  // namespace

std::string RefuseExtent(const DepthwiseShape& s) {
  const int64_t rows = (s.kh - 1) * s.dilation_h + 1;
  const int64_t columns = (s.ow - 1) * s.stride_w + (s.kw - 1) * s.dilation_w + 1;
  if (static_cast<double>(rows) * static_cast<double>(columns) < 0x1p36) return "";
  return "the padded rows that an output row sees must hold fewer than 2^36 pixels, got " + std::to_string(rows) +
         " rows of " + std::to_string(columns);
}

Result<std::shared_ptr<const PackedDepthwise>> PackedDepthwise::Pack(Isa isa, int64_t oc, int64_t taps, const float* w,
                                                                     const float* bias) {
  const int64_t lanes = static_cast<int64_t>(GetDwConvKernel(isa).lanes), vectors = (oc + lanes - 1) / lanes;
  auto packed = std::make_shared<PackedDepthwise>();
  packed->vector_floats_ = (taps + 1) * lanes;
  const size_t bytes = static_cast<size_t>(vectors * packed->vector_floats_) * sizeof(float);
  packed->buffer_ = packing::Part(bytes);
  if (packed->buffer_.data() == nullptr) {
    return Status{StatusCode::kOutOfMemory, "no memory for " + std::to_string(bytes) + " bytes of packed weights"};
  }
  if (packing::Loading()) return std::shared_ptr<const PackedDepthwise>(std::move(packed));
  std::memset(packed->buffer_.data(), 0, bytes);  // channels beyond oc, and a bias that is not there
  const auto transpose = GetTransposeKernel(isa).transpose;
  float* out = packed->buffer_.as<float>();
  for (int64_t c = 0; c < oc; c += lanes, out += packed->vector_floats_) {
    const auto channels = static_cast<size_t>(std::min(lanes, oc - c));
    transpose(channels, static_cast<size_t>(taps), w + c * taps, taps, out, lanes);
    if (bias != nullptr) std::copy_n(bias + c, channels, out + taps * lanes);
  }
  return std::shared_ptr<const PackedDepthwise>(std::move(packed));
}

DepthwiseStep::DepthwiseStep(const DepthwiseShape& shape, Layout x_layout, Layout y_layout, const Context& context,
                             std::shared_ptr<const PackedDepthwise> weights)
    : shape_(shape),
      kernel_(&GetDwConvKernel(context.isa)),
      slide_(
          FindSlide(*kernel_, shape.kh, shape.kw, shape.stride_h, shape.stride_w, shape.dilation_h, shape.dilation_w)),
      transpose_(&GetTransposeKernel(context.isa)),
      epilogue_(MakeEpilogue(context.isa, shape.activation, shape.residual)),
      weights_(std::move(weights)),
      x_direct_(slide_ != nullptr && x_layout == Layout::kNhwc && shape.multiplier() == 1),
      y_direct_(y_layout == Layout::kNhwc && epilogue_.activate == nullptr) {
  const int64_t lanes = static_cast<int64_t>(kernel_->lanes), vector_bytes = lanes * int64_t{4};
  const int64_t step = slide_ != nullptr ? static_cast<int64_t>(slide_->rows) : 1;
  vectors_ = (shape.oc + lanes - 1) / lanes;
  if (x_direct_) {
    rows_ = step;
    const int64_t column_bytes = InputRows(rows_) * shape.stride_w * shape.ic * int64_t{4};
    // Of its neighbour a chunk takes kw - stride columns again. Stride 2: 171 -> 158 us (dw2) with half the columns.
    const int64_t chunk = (shape.kw <= 3 ? 8 : 16) / shape.stride_w;
    const int64_t l1 = context.machine->l1.bytes;
    const bool slow_l3 = 3 * context.machine->l3.gbps_one < context.machine->l2.gbps_one;
    const bool cut = slow_l3 && shape.ow * column_bytes > l1 && chunk * column_bytes <= l1 / 2;
    columns_ = std::min<int64_t>(shape.ow, cut ? chunk : 256);
  } else {
    // At least as much as the kernel's own extent, so that neighbours copy no pixel more than twice.
    columns_ = std::min(shape.ow, std::max(kCopiedColumns, (shape.kw - 1) * shape.dilation_w));
    const int64_t row_bytes = InputColumns(columns_) * vector_bytes;
    const int64_t rows = std::max((kBlockBytes / row_bytes - InputRows(1)) / shape.stride_h + 1,
                                  (shape.kh - 1) * shape.dilation_h / shape.stride_h);
    rows_ = std::min(std::max<int64_t>(rows / step, 1), (shape.oh + step - 1) / step) * step;
  }
  x_bytes_ = RoundToLine(InputRows(rows_) * InputColumns(columns_) * vector_bytes);
  y_bytes_ = RoundToLine(rows_ * columns_ * vector_bytes);
  // A tile whose stores lag has no use for the blocks of y and of the residual: the ring lies there.
  const bool lags = x_direct_ && y_direct_ && slide_->lags;
  out_bytes_ = std::max(2 * y_bytes_, lags ? std::min(size_t{kRingBytes}, size_t{2 * kMaxLag} * y_bytes_) : 0);
}

int64_t DepthwiseStep::InputColumns(int64_t columns) const {
  constexpr int64_t kTile = kDwConvTapColumns;
  const int64_t computed = slide_ != nullptr ? columns : (columns + kTile - 1) / kTile * kTile;
  return (computed - 1) * shape_.stride_w + (shape_.kw - 1) * shape_.dilation_w + 1;
}

void DepthwiseStep::Run(const Images& images, const Part& part, std::byte* scratch) const {
  const int64_t lanes = static_cast<int64_t>(kernel_->lanes);
  int64_t direct = 0;  // vectors that one call takes side by side: whole ones, nothing copied
  if (x_direct_ && y_direct_) {
    direct = std::min(images.x.channels, images.y.channels);
    if (shape_.residual != Residual::kNone) direct = std::min(direct, images.residual.channels);
    direct = std::min(direct / lanes, part.vector_end);
  }
  for (int64_t row = part.row_begin; row < part.row_end; row += rows_) {
    const int64_t rows = std::min(rows_, part.row_end - row);
    for (int64_t column = 0; column < shape_.ow; column += columns_) {
      const int64_t columns = std::min(columns_, shape_.ow - column);
      for (int64_t v = part.vector_begin, vectors; v < part.vector_end; v += vectors) {
        const int64_t channel = v * lanes;
        vectors = std::max<int64_t>(direct - v, 1);
        RunTile(images,
                {row, rows, column, columns, v, vectors, channel, std::min(lanes, shape_.oc - channel), part.goes_on},
                scratch);
      }
    }
  }
}

void DepthwiseStep::RunTile(const Images& images, const Tile& tile, std::byte* scratch) const {
  const int64_t lanes = static_cast<int64_t>(kernel_->lanes), end = tile.channel + lanes;
  const bool has_residual = shape_.residual != Residual::kNone;
  const bool x_whole = end <= images.x.channels;
  const bool y_whole = end <= images.y.channels && (!has_residual || end <= images.residual.channels);
  const bool tails = slide_ != nullptr && kernel_->tails;
  const bool x_here = x_direct_ && (x_whole || tails), y_here = y_direct_ && (y_whole || tails);
  float* const x_block = reinterpret_cast<float*>(scratch);
  float* const y_block = reinterpret_cast<float*>(scratch + x_bytes_);
  float* const residual_block = reinterpret_cast<float*>(scratch + x_bytes_ + y_bytes_);

  DwConvOutput out;
  out.lo = epilogue_.lo;
  out.hi = epilogue_.hi;
  out.columns = static_cast<size_t>(tile.columns);
  if (y_here) {
    out.y = images.y.at(tile.row, tile.column, tile.channel);
    out.y_row = images.y.row;
    out.y_col = images.y.pixel;
  } else {
    out.y = y_block;
    out.y_row = tile.columns * lanes;
    out.y_col = lanes;
  }
  // After an activation that is no clamp, the residual is added by it.
  const bool activation_adds = epilogue_.activate != nullptr && shape_.residual == Residual::kAfterActivation;
  if (has_residual) {
    out.residual_after = shape_.residual == Residual::kAfterActivation;
    if (y_here) {
      out.residual = images.residual.at(tile.row, tile.column, tile.channel);
      out.residual_row = images.residual.row;
      out.residual_col = images.residual.pixel;
    } else {
      LoadResidual(images.residual, tile, residual_block);
      out.residual = activation_adds ? nullptr : residual_block;
      out.residual_row = out.y_row;
      out.residual_col = out.y_col;
    }
  }
  if (!x_here) LoadInput(images.x, tile, x_block);
  if (slide_ != nullptr) {
    const bool part = (x_here && !x_whole) || (y_here && !y_whole);
    RunSlide(images, x_here ? nullptr : x_block, tile, static_cast<size_t>(part ? tile.channels : lanes), y_block, out);
  } else {
    RunTaps(x_block, tile, out);
  }
  if (y_here) return;
  if (epilogue_.activate != nullptr) {
    epilogue_.activate(epilogue_.activation, y_block, activation_adds ? residual_block : nullptr,
                       static_cast<size_t>(tile.rows * tile.columns * lanes));
  }
  StoreOutput(y_block, tile, images.y);
}

// The lag for which the fewest loads of the columns that follow a store have its address modulo 4096. Of those loads
// the first one costs the most: 56x56x128 takes 122 us instead of 67 where it meets the store, 86 where the second one
// does, 70 with the third (Zen 4, 2026-11-26). In narrow images the next vector's first columns follow as closely.
size_t DepthwiseStep::ChooseLag(const ImageView<const float>& x, const Tile& tile, const DwConvOutput& out) const {
  if (!slide_->lags || x.pixel != out.y_col) return 0;
  constexpr int64_t kPage = 4096, kColumns = 2, kFloat = sizeof(float);
  const int64_t vectors = slide_->step;
  if (tile.vectors % vectors != 0) return 0;
  const int64_t bytes = vectors * static_cast<int64_t>(kernel_->lanes) * kFloat;  // of a step over channels
  const int64_t most = std::min({kMaxLag, tile.vectors / vectors - 1, kRingBytes / (tile.columns * tile.rows * bytes)});
  const auto address = [](const float* p) { return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) % kPage); };
  // From the first tap of the tile to its first output.
  const int64_t apart = address(out.y) - address(x.at(0, 0, tile.channel)) -
                        kFloat * ((tile.row - shape_.pad_top) * x.row + (tile.column - shape_.pad_left) * x.pixel);
  const auto meet = [&](int64_t distance) { return ((distance + bytes - 1) & (kPage - 1)) < 2 * bytes - 1; };
  int64_t best = 0, least = 0;
  for (int64_t lag = 0; lag <= most; ++lag) {
    int64_t cost = lag > 0 ? tile.rows * tile.columns : 0;  // a copy of each output
    for (int64_t r = 0; r < tile.rows; ++r) {
      for (int64_t i = 0; i < InputRows(tile.rows); ++i) {
        const int64_t rows = apart - lag * bytes + kFloat * (r * out.y_row - i * x.row);
        for (int64_t next = 1; next <= kColumns; ++next) {
          const int64_t weight = kColumns + 1 - next;
          if (meet(rows - kFloat * (shape_.kw - 1 + next) * x.pixel)) cost += weight * tile.columns;
          if (meet(rows - bytes + kFloat * (tile.columns - shape_.pad_left - next) * x.pixel)) cost += weight;
        }
      }
    }
    if (lag == 0 || cost < least) best = lag, least = cost;
    if (least == 0) break;
  }
  return static_cast<size_t>(best);
}

// x_block null: from x itself.
void DepthwiseStep::RunSlide(const Images& images, const float* x_block, const Tile& tile, size_t lanes, float* ring,
                             const DwConvOutput& out) const {
  const ImageView<const float>& x = images.x;
  const int64_t block_columns = InputColumns(tile.columns), vector = static_cast<int64_t>(kernel_->lanes);
  const int64_t step = static_cast<int64_t>(slide_->rows), stride = slide_->stride,
                first = tile.column * stride - shape_.pad_left;
  const float* rows[kMaxDwConvInputRows];
  DwConvRows a;
  a.x = rows;
  a.x_col = x_block != nullptr ? vector : x.pixel;
  a.w = weights_->vector(tile.vector);
  a.vectors = static_cast<size_t>(tile.vectors);
  a.channels = lanes;
  a.out = out;
  const int64_t from = std::clamp<int64_t>(first, 0, shape_.iw);  // the first column of x that the tile reads
  a.iw = x_block != nullptr ? block_columns : shape_.iw - from;
  a.pad_left = x_block != nullptr ? 0 : std::max<int64_t>(0, -first);
  // In tiles unless few sets of L1 hold a row: a slide takes both halves of a line at once, so that none is left for
  // the second half to find (AVX2: 7x7x1024 23 to 41 us in tiles, 17 in a slide, 14x14x512 40 to 54 and 28, but
  // 28x28x256 48 and 54; stride 2: 14x14x512 14.3 and 10.8, but 112x112x64 67 and 75; Zen 4, 2026-11-26).
  a.tiles = x_block != nullptr || (x.pixel % 512 != 0 && (stride == 1 || shape_.kh > 3 || x.pixel < 256));
  if (tile.vectors > 1) {  // both images where they lie
    a.lag = slide_->tiles && a.tiles ? 0 : ChooseLag(x, tile, out);
    a.ring = ring;
  }
  // A whole tensor may have to come from memory; a ring or a strip in scratch is at hand.
  const bool x_far = tile.vectors > 1 && x.pixel == shape_.ic && x.slots >= shape_.ih;
  const bool y_far = tile.vectors > 1 && out.y_col == shape_.oc && images.y.slots >= shape_.oh;
  for (int64_t b = 0; b < tile.rows; b += step) {
    const int64_t live = std::min(step, tile.rows - b), needed = InputRows(live),
                  top = (tile.row + b) * stride - shape_.pad_top;
    for (int64_t i = 0; i < needed; ++i) {
      const bool inside = x_block != nullptr || (top + i >= 0 && top + i < shape_.ih);
      rows[i] = !inside              ? nullptr
                : x_block != nullptr ? x_block + (b * stride + i) * block_columns * vector
                                     : x.at(top + i, from, tile.channel);
    }
    a.out.rows = static_cast<size_t>(live);
    a.out.y = out.y + b * out.y_row;
    a.ahead_x = a.ahead_y = a.out.y;
    if (tile.goes_on && tile.row + b + live < shape_.oh) {
      // Where the tile's share of as many rows of y as these begins.
      const int64_t share = live * (tile.column * shape_.oc + tile.channel * tile.columns);
      const int64_t next = std::clamp<int64_t>(top + needed, 0, shape_.ih - 1);
      if (x_far) a.ahead_x = x.at(next, 0, 0) + share * stride * stride;
      if (y_far) a.ahead_y = images.y.at(tile.row + b + live, 0, 0) + share;
    }
    if (out.residual != nullptr) a.out.residual = out.residual + b * out.residual_row;
    slide_->run[live](a);
  }
}

void DepthwiseStep::RunTaps(const float* x_block, const Tile& tile, const DwConvOutput& out) const {
  const ptrdiff_t pixel = static_cast<ptrdiff_t>(kernel_->lanes), row = InputColumns(tile.columns) * pixel;
  DwConvTaps a;
  a.x = x_block;
  a.x_row = shape_.stride_h * row;
  a.x_col = shape_.stride_w * pixel;
  a.tap_row = shape_.dilation_h * row;
  a.tap_col = shape_.dilation_w * pixel;
  a.kh = static_cast<size_t>(shape_.kh);
  a.kw = static_cast<size_t>(shape_.kw);
  a.w = weights_->vector(tile.vector);
  a.out = out;
  a.out.rows = static_cast<size_t>(tile.rows);
  kernel_->taps(a);
}

void DepthwiseStep::LoadInput(const ImageView<const float>& x, const Tile& tile, float* block) const {
  const int64_t lanes = static_cast<int64_t>(kernel_->lanes), multiplier = shape_.multiplier();
  const int64_t channel = tile.channel / multiplier;
  const int64_t channels = (tile.channel + tile.channels - 1) / multiplier - channel + 1;
  int32_t lane[kMaxDwConvLanes];
  for (int64_t l = 0; l < lanes; ++l) lane[l] = static_cast<int32_t>((tile.channel + l) / multiplier - channel);
  const int64_t rows = InputRows(tile.rows), columns = InputColumns(tile.columns);
  const int64_t top = tile.row * shape_.stride_h - shape_.pad_top,
                left = tile.column * shape_.stride_w - shape_.pad_left;
  const int64_t begin = std::clamp<int64_t>(-left, 0, columns), end = std::clamp(shape_.iw - left, begin, columns);
  const auto clear = [&](float* to, int64_t pixels) {
    std::memset(to, 0, static_cast<size_t>(pixels * lanes) * sizeof(float));
  };
  for (int64_t i = 0; i < rows; ++i, block += columns * lanes) {
    if (top + i < 0 || top + i >= shape_.ih || begin == end) {
      clear(block, columns);
      continue;
    }
    clear(block, begin);
    clear(block + end * lanes, columns - end);
    const float* from = x.at(top + i, left + begin, channel);
    float* to = block + begin * lanes;
    const size_t pixels = static_cast<size_t>(end - begin);
    if (x.nhwc) {
      kernel_->load_block(from, x.pixel, pixels, static_cast<size_t>(channels), lane, to);
      continue;
    }
    transpose_->transpose(static_cast<size_t>(channels), pixels, from, x.channel, to, lanes);
    if (multiplier > 1) kernel_->load_block(to, lanes, pixels, static_cast<size_t>(channels), lane, to);
  }
}

void DepthwiseStep::LoadResidual(const ImageView<const float>& residual, const Tile& tile, float* block) const {
  const int64_t lanes = static_cast<int64_t>(kernel_->lanes);
  const size_t pixels = static_cast<size_t>(tile.columns), channels = static_cast<size_t>(tile.channels);
  int32_t lane[kMaxDwConvLanes];
  for (int64_t l = 0; l < lanes; ++l) lane[l] = static_cast<int32_t>(l);
  for (int64_t r = 0; r < tile.rows; ++r, block += tile.columns * lanes) {
    const float* from = residual.at(tile.row + r, tile.column, tile.channel);
    if (residual.nhwc) {
      kernel_->load_block(from, residual.pixel, pixels, channels, lane, block);
    } else {
      transpose_->transpose(channels, pixels, from, residual.channel, block, lanes);
    }
  }
}

void DepthwiseStep::StoreOutput(const float* block, const Tile& tile, const ImageView<float>& y) const {
  const int64_t lanes = static_cast<int64_t>(kernel_->lanes);
  const size_t pixels = static_cast<size_t>(tile.columns), channels = static_cast<size_t>(tile.channels);
  for (int64_t r = 0; r < tile.rows; ++r, block += tile.columns * lanes) {
    float* to = y.at(tile.row + r, tile.column, tile.channel);
    if (y.nhwc) {
      kernel_->store_block(block, pixels, channels, to, y.pixel);
    } else {
      transpose_->transpose(pixels, channels, block, lanes, to, y.channel);
    }
  }
}

double PredictDepthwise(const DepthwiseShape& s, Layout x_layout, Layout y_layout, int64_t n, const Machine& machine,
                        Isa isa, int threads) {
  const DwConvKernel& kernel = GetDwConvKernel(isa);
  const auto lanes = static_cast<int64_t>(kernel.lanes), channels = (s.oc + lanes - 1) / lanes * lanes;
  const bool slides = FindSlide(kernel, s.kh, s.kw, s.stride_h, s.stride_w, s.dilation_h, s.dilation_w) != nullptr;
  const double outputs = static_cast<double>(n * s.oh * s.ow * channels);
  // Beside its taps an output vector costs as much as 8 more for its store, its limits and its part of loads and moves
  // (3x3: 17 to 20 taps' time in all, 5x5: 31 to 34, on AVX-512 and AVX2 of Emerald Rapids). Taps that do not slide
  // cost a load each. A copy of x or y costs as much as 4 taps, a transpose as much as a vector has lanes, more in
  // short rows.
  const double taps = static_cast<double>(s.taps());
  const auto moved = [&](Layout layout, int64_t w) {
    return layout == Layout::kNhwc ? 4.0 : (static_cast<double>(lanes) + 2) * (1 + 4 / static_cast<double>(w));
  };
  double work = (slides ? taps : 2 * taps) + 8;
  const double inputs_per_output = static_cast<double>(s.ih * s.iw) / static_cast<double>(s.oh * s.ow);
  if (!slides || x_layout == Layout::kNchw || s.multiplier() > 1) work += moved(x_layout, s.iw) * inputs_per_output;
  if (y_layout == Layout::kNchw) work += moved(y_layout, s.ow);
  const double compute = 2 * outputs * work / machine.Gflops(isa, threads);
  const int64_t bytes = 4 * n * (s.ih * s.iw * s.ic + s.oh * s.ow * s.oc);
  return std::max(compute, static_cast<double>(bytes) / machine.Gbps(bytes, threads));
}

}  // namespace lamina::cpu
