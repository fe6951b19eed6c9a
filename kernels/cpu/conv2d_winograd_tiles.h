// The tiles of Winograd's convolution: their places in the images, and the order in which those of a block lie in V and
// M. Internal to kernels/cpu/conv2d_winograd*.cc.
//
// Tiles at an image's lower and right ends that hold fewer outputs need fewer coefficients (winograd.h). Those of a
// block are sorted, so that the tiles that need a coefficient are one range of rows of V:
//   low (fewer rows of outputs) | whole | thin (fewer columns) | both
#ifndef LAMINA_KERNELS_CPU_CONV2D_WINOGRAD_TILES_H_
#define LAMINA_KERNELS_CPU_CONV2D_WINOGRAD_TILES_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/round.h"
#include "kernels/cpu/winograd.h"
#include "lamina/conv2d.h"

namespace lamina::cpu {

// All tiles of all images form one list, rows of tiles after each other.
class WinogradTiles {
 public:
  WinogradTiles(const Conv2dDesc& d, const WinogradKernel& transform)
      : m_(transform.m),
        across_(DivUp(static_cast<size_t>(d.ow()), m_)),
        down_(DivUp(static_cast<size_t>(d.oh()), m_)),
        count_(static_cast<size_t>(d.n) * across_ * down_),
        low_(static_cast<size_t>(d.oh()) % m_ != 0),
        thin_(static_cast<size_t>(d.ow()) % m_ != 0),
        low_rows_(Needed(transform, static_cast<size_t>(d.oh()))),
        thin_columns_(Needed(transform, static_cast<size_t>(d.ow()))),
        n_(transform.n) {}

  size_t across() const { return across_; }  // tiles of an image row
  size_t down() const { return down_; }      // rows of tiles of an image
  size_t count() const { return count_; }

  struct Tile {
    int64_t image, row, column;  // where its outputs begin
    bool low, thin;
  };
  Tile At(size_t tile) const {
    const size_t line = tile / across_, column = tile % across_, row = line % down_;
    return {static_cast<int64_t>(line / down_), static_cast<int64_t>(row * m_), static_cast<int64_t>(column * m_),
            low_ && row + 1 == down_, thin_ && column + 1 == across_};
  }
  // A low tile's rows of coefficients and a thin one's columns that are needed.
  const WinogradRange& low_rows() const { return low_rows_; }
  const WinogradRange& thin_columns() const { return thin_columns_; }

  // Of tiles [0, tile): how many are low, thin, both.
  struct Counts {
    size_t low, thin, both;
  };
  Counts Before(size_t tile) const {
    const size_t image = across_ * down_, images = tile / image, rest = tile % image, last_line = image - across_;
    return {low_ ? images * across_ + (rest > last_line ? rest - last_line : 0) : 0, thin_ ? tile / across_ : 0,
            low_ && thin_ ? images : 0};
  }

  // Of the products of whole tiles alone, the part that is needed; of all coefficients, the part that a tile needs.
  double part() const { return PartOf(low_, low_rows_, down_) * PartOf(thin_, thin_columns_, across_); }
  double used() const {
    return PartOf(low_ && down_ == 1, low_rows_, 1) * PartOf(thin_ && across_ == 1, thin_columns_, 1);
  }

 private:
  static WinogradRange Needed(const WinogradKernel& transform, size_t outputs) {
    const size_t last = outputs % transform.m;
    return NeededCoefficients(transform.n, transform.m, last == 0 ? transform.m : last);
  }
  double PartOf(bool shorter, const WinogradRange& needed, size_t tiles) const {
    if (!shorter) return 1;
    return 1 -
           (1 - static_cast<double>(needed.last - needed.first) / static_cast<double>(n_)) / static_cast<double>(tiles);
  }

  size_t m_, across_, down_, count_;
  bool low_, thin_;
  WinogradRange low_rows_, thin_columns_;
  size_t n_;
};

// Tiles [first, first + count) of the list, sorted.
class WinogradBlock {
 public:
  WinogradBlock(const WinogradTiles& tiles, size_t first, size_t count)
      : tiles_(&tiles), first_(first), count_(count), before_(tiles.Before(first)) {
    const WinogradTiles::Counts end = tiles.Before(first + count);
    const size_t both = end.both - before_.both, thin = end.thin - before_.thin - both;
    whole_ = end.low - before_.low - both;
    both_ = count - both;
    thin_ = both_ - thin;
  }
  size_t first() const { return first_; }
  size_t count() const { return count_; }

  // The row of V and M of the list's tile `t`.
  size_t SlotOf(size_t t, const WinogradTiles::Tile& tile) const {
    WinogradTiles::Counts c = tiles_->Before(t);
    c.low -= before_.low;
    c.thin -= before_.thin;
    c.both -= before_.both;
    if (tile.low) return tile.thin ? both_ + c.both : c.low - c.both;
    return tile.thin ? thin_ + c.thin - c.both : whole_ + (t - first_) + c.both - c.low - c.thin;
  }

  // The slots [first, last) of the tiles that need coefficient (i, j).
  struct Slots {
    size_t first, last;
  };
  Slots SlotsOf(size_t i, size_t j) const {
    const bool low = tiles_->low_rows().holds(i), thin = tiles_->thin_columns().holds(j);
    return {low ? 0 : whole_, !thin ? thin_ : low ? count_ : both_};
  }

 private:
  const WinogradTiles* tiles_;
  size_t first_, count_;
  WinogradTiles::Counts before_;
  size_t whole_, thin_, both_;  // where these groups begin
};

}  // namespace lamina::cpu

#endif  // LAMINA_KERNELS_CPU_CONV2D_WINOGRAD_TILES_H_
