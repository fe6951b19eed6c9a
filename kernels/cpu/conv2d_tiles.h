// Convolution by implicit GEMM, the part that all of its candidates share: how output pixels of an image in nhwc are
// cut into row tiles of the GEMM micro-kernels, and where their rows lie. Internal to kernels/cpu/conv2d*.cc.
//
// m = output pixels, n = output channels of a group, k = kh * kw * input channels of a group, in this order.
#ifndef LAMINA_KERNELS_CPU_CONV2D_TILES_H_
#define LAMINA_KERNELS_CPU_CONV2D_TILES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cpu/conv2d_filter.h"
#include "kernels/cpu/gemm.h"
#include "lamina/conv2d.h"
#include "lamina/machine.h"

namespace lamina::cpu {

// A run of rows cut into as few tiles as can be, of heights that differ by at most one.
struct Cut {
  int64_t tiles, height, higher;  // the first `higher` tiles are one row higher than `height`
  Cut(int64_t rows, int64_t most) : tiles(DivUp(rows, most)), height(rows / tiles), higher(rows % tiles) {}
};

// What tiles take, in units of one row of a full tile.
struct TileTimes {
  // Products over k floats a row, panels of up to `columns` columns.
  TileTimes(const GemmKernel& kernel, int64_t k, int64_t columns);
  double Of(const Cut& cut) const {
    const double high = static_cast<double>(cut.higher), low = static_cast<double>(cut.tiles - cut.higher);
    const double height = static_cast<double>(cut.height);
    return high * (std::max(height + 1, least) + ends) + low * (std::max(height, least) + ends);
  }
  double least;  // rows below which a tile is not faster: it waits for B, or for its own sums
  double ends;   // its beginning and end
};
// Of the FMA peak, within the loop over k; where units are several groups.
inline constexpr double kLoopEfficiency = 0.97, kGatherEfficiency = 0.62;

// The same problem with height and width exchanged when it is one-dimensional along its height: an image one pixel wide
// lies in memory as one that is one pixel high, where tiles follow a row.
Conv2dDesc AlongRows(Conv2dDesc desc);

// What one call computes: output rows [first_row, last_row) of one image, all their pixels, one panel of one unit of
// groups.
struct ConvRows {
  const float* x = nullptr;  // column 0, first channel of the unit, of image row `x_row`
  int64_t x_row = 0;
  int64_t first_row = 0, last_row = 0;
  FilterPanel panel;
  float* y = nullptr;  // first_row's pixel 0, first channel of the panel
  ptrdiff_t y_pixel = 0;
  const float* residual = nullptr;  // likewise
  ptrdiff_t residual_pixel = 0;
  const Epilogue* epilogue = nullptr;
};

// The tiles of a problem. Immutable; rebuilt in microseconds for another image size.
class ConvTiles {
 public:
  // x_pixel: floats from pixel to pixel of the input that Run will be given; its rows are iw * x_pixel apart.
  ConvTiles(const Conv2dDesc& desc, int64_t x_pixel, const FilterShape& filter);

  // `table`: table_bytes() of scratch, aligned to pointers.
  void Run(const ConvRows& rows, std::byte* table) const;
  size_t table_bytes() const;

  // Output rows that should be given to Run together, or a multiple of it.
  int64_t run_rows() const { return run_rows_; }
  // Nanoseconds for all images and groups, without what must be moved between layouts.
  double PredictNs(const Machine& machine, Isa isa, int threads) const;
  // Input rows [first, last) that output rows [first_row, last_row) read; empty (0, 0) where they see only padding.
  struct Range {
    int64_t first = 0, last = 0;
  };
  Range InputRows(int64_t first_row, int64_t last_row) const;

 private:
  // How the pixels of an image are cut: each row by itself; the interior of each row, and the columns beside it by
  // tiles that go down them; or all pixels as one run, where tiles that end with the row would be low.
  enum class Tiling { kRows, kColumns, kFlat };

  void ChooseTiling();
  Range ValidTaps(int64_t oh) const;  // the kernel rows that lie inside the image
  void RunPixels(const ConvRows& rows, int64_t oh, int64_t ow, int64_t pixels, std::byte* table) const;
  void RunInterior(const ConvRows& rows, int64_t oh, int64_t ow, size_t height, size_t tiles,
                   const GemmOutput& out) const;
  void RunColumn(const ConvRows& rows, int64_t oh, int64_t ow, size_t height, std::byte* table) const;
  void RunEdge(const ConvRows& rows, int64_t oh, int64_t ow, size_t height, bool down, const GemmOutput& out,
               std::byte* table) const;
  struct Line {  // output pixels from (oh, ow) on, side by side or down a column
    int64_t oh, ow, rows;
    bool down;
  };
  void FillTable(const ConvRows& rows, const Line& line, Range taps, size_t height, const float** pointers,
                 uint8_t* count) const;

  Conv2dDesc desc_;
  FilterShape filter_;
  const GemmKernel* kernel_;
  int64_t oh_, ow_, ic_group_, x_pixel_;
  int64_t interior_first_, interior_last_;  // output columns all of whose taps lie inside the image
  Tiling tiling_ = Tiling::kRows;
  int64_t run_rows_ = 1;
  double cost_ = 0;  // of an image, in rows of full tiles
  // Taps of one kernel row lie next to each other in memory when the dilation is 1 and pixels are dense: then the kw
  // taps of an interior tile are one.
  size_t taps_per_row_ = 1, tap_floats_ = 1;
  std::vector<ptrdiff_t> taps_;  // interior tiles', from the first valid kernel row
};

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_CONV2D_TILES_H_
