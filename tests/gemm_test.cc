// The GEMM micro-kernels on every SIMD target: every tile, every epilogue, taps and padding, against sums in double.
// Exact: small integers, whose sums fp32 holds exactly in any order.
#include "kernels/cpu/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "harness/guarded.h"
#include "kernels/cpu/aligned.h"
#include "kernels/cpu/gemm_planes.h"
#include "reference/activation.h"

namespace lamina::cpu {
namespace {

using harness::Guard;
using harness::Guarded;

constexpr float kUntouched = -12345.0f;

// Small nonzero integers, a different sequence for every seed.
float Integer(size_t i, size_t seed) {
  const int v = static_cast<int>((i * 2654435761u + seed * 40503u) >> 7) % 8;
  return static_cast<float>(v < 4 ? v - 4 : v - 3);
}

struct Problem {
  size_t rows, vectors, columns;  // vectors 0: dot products
  size_t tiles = 1, taps = 1, kc = 1;
  Activation activation = {};
  Residual residual = Residual::kNone;
  bool partial_first = false;  // k in two calls: partial sums stored, then accumulated
  bool residual_is_c = false;
  std::vector<bool> padding = {};  // [taps * rows]: Edge with these (tap, row) on padding
};

// By the function that names the kernel: GetWideKernel or GetOperandKernel.
class Gemm : public testing::TestWithParam<const GemmKernel& (*)(Isa)> {
 protected:
  // Runs a problem and compares every element; what lies between the rows of c must stay untouched.
  void Check(Isa isa, const Problem& p) const;
  // Checks an edge of the problem's shape with whole, empty and partial taps and every residual.
  void CheckEdges(Isa isa, Problem p) const;
  // Calls f(isa, rows, vectors, columns) for every tile, with columns whole, one less and one more than a vector less.
  template <class F>
  void ForEachTile(const F& f) const;
  // Calls f(isa, lanes, rows, columns) for the tiles of dot products.
  template <class F>
  void ForEachDots(const F& f) const;
};
INSTANTIATE_TEST_SUITE_P(Kernels, Gemm, testing::Values(&GetWideKernel, &GetOperandKernel),
                         [](const auto& info) { return info.index == 0 ? "Wide" : "Operand"; });

void Gemm::Check(Isa isa, const Problem& p) const {
  const GemmKernel& kernel = GetParam()(isa);
  const size_t width = p.vectors == 0 ? p.columns : p.vectors * kernel.lanes, m = p.rows * p.tiles, gap = 3,
               row = p.columns + gap;
  const size_t a_row = p.taps * p.kc + 2;
  SCOPED_TRACE(testing::Message() << ToString(isa) << " rows " << p.rows << " vectors " << p.vectors << " columns "
                                  << p.columns << " tiles " << p.tiles << " taps " << p.taps << " kc " << p.kc
                                  << " activation " << static_cast<int>(p.activation.kind) << " residual "
                                  << static_cast<int>(p.residual) << (p.partial_first ? " in two calls" : "")
                                  << (p.padding.empty() ? "" : " edge"));
  // a and c end at a guard page; taps lie in reverse order, so that offsets matter.
  const size_t a_count = (m - 1) * a_row + p.taps * p.kc, c_count = (m - 1) * row + p.columns;
  Guarded a_memory(a_count * sizeof(float), Guard::kEnd), c_memory(c_count * sizeof(float), Guard::kEnd);
  Guarded residual_memory(c_count * sizeof(float), Guard::kEnd);
  float *a = a_memory.as<float>(), *c = c_memory.as<float>(), *residual = residual_memory.as<float>();
  const size_t lanes = kernel.lanes, k = p.taps * p.kc, steps = p.vectors == 0 ? (k + lanes - 1) / lanes * lanes : k;
  AlignedBuffer b_memory(steps * width * sizeof(float) + 64);
  float* b = b_memory.as<float>();
  const auto b_at = [&](size_t s, size_t j) -> float& {  // step s of k, column j
    return b[p.vectors == 0 ? (s / lanes * p.columns + j) * lanes + s % lanes : s * width + j];
  };
  std::vector<float> bias(width, 0.0f);
  std::vector<ptrdiff_t> tap(p.taps);
  for (size_t q = 0; q < p.taps; ++q) tap[q] = static_cast<ptrdiff_t>((p.taps - 1 - q) * p.kc);
  for (size_t i = 0; i < a_count; ++i) a[i] = Integer(i, 1);
  std::fill_n(b, steps * width, 0.0f);
  for (size_t s = 0; s < k; ++s) {
    for (size_t j = 0; j < p.columns; ++j) b_at(s, j) = Integer(s * width + j, 2);
  }
  for (size_t j = 0; j < p.columns; ++j) bias[j] = Integer(j, 3);
  for (size_t i = 0; i < c_count; ++i) residual[i] = Integer(i, 4);
  if (p.residual_is_c) {
    std::memcpy(c, residual, c_count * sizeof(float));
  } else {
    for (size_t i = 0; i < c_count; ++i) c[i] = kUntouched;
  }
  const auto on_padding = [&](size_t q, size_t r) { return !p.padding.empty() && p.padding[q * p.rows + r]; };

  const Epilogue epilogue = MakeEpilogue(isa, p.activation, p.residual);
  GemmOutput out{.c = c,
                 .row = static_cast<ptrdiff_t>(row),
                 .tile = static_cast<ptrdiff_t>(p.rows * row),
                 .columns = p.columns,
                 .bias = bias.data(),
                 .residual = p.residual_is_c ? c : residual,
                 .residual_row = static_cast<ptrdiff_t>(row),
                 .residual_tile = static_cast<ptrdiff_t>(p.rows * row),
                 .epilogue = &epilogue};
  if (p.padding.empty()) {
    GemmTiles t{.tiles = p.tiles,
                .a = a,
                .a_row = static_cast<ptrdiff_t>(a_row),
                .a_tile = static_cast<ptrdiff_t>(p.rows * a_row),
                .tap = tap.data(),
                .taps = p.taps,
                .kc = p.kc,
                .b = b,
                .out = out};
    if (p.partial_first) {  // taps 0 .. taps - 2, then the last one
      t.taps = p.taps - 1;
      t.out.epilogue = nullptr;
      kernel.tiles[p.rows][p.vectors](t);
      t.tap += t.taps;
      t.b += t.taps * p.kc * width;
      t.taps = 1;
      t.out.epilogue = &epilogue;
      t.out.accumulate = true;
      t.out.bias = nullptr;
    }
    kernel.tiles[p.rows][p.vectors](t);
  } else {
    std::vector<const float*> rows;
    std::vector<uint8_t> mode;
    for (size_t q = 0; q < p.taps; ++q) {
      size_t padded = 0;
      for (size_t r = 0; r < p.rows; ++r) {
        padded += on_padding(q, r);
        rows.push_back(on_padding(q, r) ? nullptr : a + r * a_row + tap[q]);
      }
      mode.push_back(padded == 0 ? kTapWhole : padded == p.rows ? kTapEmpty : kTapPartial);
    }
    kernel.edge[p.rows][p.vectors](
        {.rows = rows.data(), .tap_mode = mode.data(), .taps = p.taps, .kc = p.kc, .b = b, .out = out});
  }

  const bool exact = epilogue.activate == nullptr;
  for (size_t i = 0; i < m; ++i) {
    for (size_t j = 0; j < row && i * row + j < c_count; ++j) {
      if (j >= p.columns) {
        ASSERT_EQ(c[i * row + j], p.residual_is_c ? residual[i * row + j] : kUntouched) << "behind row " << i;
        continue;
      }
      double sum = bias[j];
      for (size_t q = 0; q < p.taps; ++q) {
        for (size_t s = 0; s < p.kc && !on_padding(q, i % p.rows); ++s) {
          sum += double{a[i * a_row + static_cast<size_t>(tap[q]) + s]} * b_at(q * p.kc + s, j);
        }
      }
      if (p.residual == Residual::kBeforeActivation) sum += residual[i * row + j];
      double want = reference::Activate(p.activation, sum);
      if (p.residual == Residual::kAfterActivation) want += residual[i * row + j];
      if (exact) {
        ASSERT_EQ(c[i * row + j], want) << "row " << i << " column " << j;
      } else {
        ASSERT_NEAR(c[i * row + j], want, 1e-6 * (std::fabs(want) + 1)) << "row " << i << " column " << j;
      }
    }
  }
}

constexpr Activation kActivations[] = {
    {}, {ActivationKind::kRelu}, {ActivationKind::kClamp, -3, 7}, {ActivationKind::kTanh}};
constexpr Residual kResiduals[] = {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation};

void Gemm::CheckEdges(Isa isa, Problem p) const {
  p.taps = 5;
  p.activation = {ActivationKind::kRelu6};
  p.padding.assign(p.taps * p.rows, false);  // tap 0 whole
  for (size_t r = 0; r < p.rows; ++r) {
    p.padding[1 * p.rows + r] = true;    // empty
    p.padding[2 * p.rows + r] = r == 0;  // partial (empty when rows = 1)
    p.padding[3 * p.rows + r] = r + 1 == p.rows;
    p.padding[4 * p.rows + r] = r % 2 == 1;
  }
  for (Residual residual : kResiduals) {
    p.residual = residual;
    Check(isa, p);
  }
}

template <class F>
void Gemm::ForEachTile(const F& f) const {
  for (Isa isa : SupportedIsas()) {
    const GemmKernel& kernel = GetParam()(isa);
    for (size_t rows = 1; rows <= kernel.rows; ++rows) {
      for (size_t vectors = 1; vectors <= kernel.vectors; ++vectors) {
        const size_t width = vectors * kernel.lanes;
        f(isa, rows, vectors, width);
        if (kernel.lanes > 1) f(isa, rows, vectors, width - 1);
        if (kernel.lanes > 2) f(isa, rows, vectors, width - kernel.lanes + 1);
      }
    }
  }
}

template <class F>
void Gemm::ForEachDots(const F& f) const {
  for (Isa isa : SupportedIsas()) {
    const GemmKernel& kernel = GetParam()(isa);
    for (size_t rows = 1; rows <= kernel.rows; ++rows) {
      for (size_t columns = 1; columns <= kernel.lanes / 2; ++columns) f(isa, kernel.lanes, rows, columns);
    }
  }
}

TEST_P(Gemm, EveryTile) {
  ForEachTile([this](Isa isa, size_t rows, size_t vectors, size_t columns) {
    for (size_t kc : {0, 1, 2, 17}) {
      for (size_t tiles : {1, 3}) {
        Check(isa, {.rows = rows, .vectors = vectors, .columns = columns, .tiles = tiles, .kc = kc});
      }
    }
  });
}

TEST_P(Gemm, EveryEpilogue) {
  ForEachTile([this](Isa isa, size_t rows, size_t vectors, size_t columns) {
    for (const Activation& activation : kActivations) {
      for (Residual residual : kResiduals) {
        for (bool in_place : {false, true}) {
          Check(isa, {.rows = rows,
                      .vectors = vectors,
                      .columns = columns,
                      .tiles = 2,
                      .kc = 5,
                      .activation = activation,
                      .residual = residual,
                      .residual_is_c = in_place && residual != Residual::kNone});
        }
      }
    }
  });
}

TEST_P(Gemm, TapsAndPartialSums) {
  ForEachTile([this](Isa isa, size_t rows, size_t vectors, size_t columns) {
    for (bool partial_first : {false, true}) {
      for (const Activation& activation : kActivations) {
        Check(isa, {.rows = rows,
                    .vectors = vectors,
                    .columns = columns,
                    .tiles = 2,
                    .taps = 4,
                    .kc = 3,
                    .activation = activation,
                    .partial_first = partial_first});
      }
    }
  });
}

TEST_P(Gemm, EdgesSkipPadding) {
  ForEachTile([this](Isa isa, size_t rows, size_t vectors, size_t columns) {
    CheckEdges(isa, {.rows = rows, .vectors = vectors, .columns = columns, .kc = 7});
  });
}

TEST_P(Gemm, DotProducts) {
  ForEachDots([this](Isa isa, size_t lanes, size_t rows, size_t columns) {
    for (size_t kc : {size_t{0}, size_t{1}, lanes - 1, lanes, lanes + 1, 3 * lanes + 2}) {
      for (size_t tiles : {1, 3}) {
        Check(isa, {.rows = rows, .vectors = 0, .columns = columns, .tiles = tiles, .kc = kc});
      }
    }
    Check(isa, {.rows = rows, .vectors = 0, .columns = columns, .tiles = 2, .taps = 3, .kc = 2 * lanes});
  });
}

TEST_P(Gemm, DotProductsWithEveryEpilogue) {
  ForEachDots([this](Isa isa, size_t lanes, size_t rows, size_t columns) {
    for (const Activation& activation : kActivations) {
      for (Residual residual : kResiduals) {
        for (bool in_place : {false, true}) {
          Check(isa, {.rows = rows,
                      .vectors = 0,
                      .columns = columns,
                      .tiles = 2,
                      .kc = lanes + 1,
                      .activation = activation,
                      .residual = residual,
                      .residual_is_c = in_place && residual != Residual::kNone});
        }
      }
    }
  });
}

TEST_P(Gemm, DotProductsAtEdgesSkipPadding) {
  ForEachDots([this](Isa isa, size_t lanes, size_t rows, size_t columns) {
    CheckEdges(isa, {.rows = rows, .vectors = 0, .columns = columns, .kc = lanes});
  });
}

// A [m, k] and panels of B, not integers, with room for sums of m rows.
struct Inexact {
  Inexact(const GemmKernel& kernel, size_t m, size_t k, size_t panels)
      : width(kernel.vectors * kernel.lanes),
        a(m * k),
        bias(panels * width, 0.1f),
        c(m * panels * width),
        b_memory(panels * k * width * sizeof(float)),
        b(b_memory.as<float>()) {
    for (size_t i = 0; i < a.size(); ++i) a[i] = std::sin(static_cast<float>(i));
    for (size_t i = 0; i < panels * k * width; ++i) b[i] = std::cos(static_cast<float>(i));
  }
  size_t width;
  std::vector<float> a, bias, c;
  AlignedBuffer b_memory;
  float* b;
};

TEST_P(Gemm, HeightDoesNotChangeBits) {
  for (Isa isa : SupportedIsas()) {
    const GemmKernel& kernel = GetParam()(isa);
    const size_t k = 301, m = kernel.rows;
    Inexact x(kernel, m, k, 1);
    const auto width = static_cast<ptrdiff_t>(x.width);
    const ptrdiff_t tap = 0;
    GemmTiles t{.tiles = 1,
                .a = x.a.data(),
                .a_row = static_cast<ptrdiff_t>(k),
                .tap = &tap,
                .kc = k,
                .b = x.b,
                .out = {.c = x.c.data(), .row = width, .columns = x.width, .bias = x.bias.data()}};
    kernel.tiles[m][kernel.vectors](t);
    const std::vector<float> once = x.c;
    std::fill(x.c.begin(), x.c.end(), NAN);
    t.tiles = m;
    t.a_tile = static_cast<ptrdiff_t>(k);
    t.out.tile = width;
    kernel.tiles[1][kernel.vectors](t);
    EXPECT_EQ(std::memcmp(once.data(), x.c.data(), once.size() * sizeof(float)), 0) << ToString(isa);
  }
}

// In tiles of any height, at an edge, and with taps that lie behind each other taken as one.
TEST_P(Gemm, DotProductsHaveTheSameBitsEverywhere) {
  ForEachDots([](Isa isa, size_t lanes, size_t rows, size_t columns) {
    const GemmKernel& kernel = GetParam()(isa);
    const size_t taps = 3, kc = 2 * lanes, k = taps * kc;
    Inexact x(kernel, rows, k, 1);
    const Epilogue epilogue;
    std::vector<ptrdiff_t> tap = {0, static_cast<ptrdiff_t>(kc), static_cast<ptrdiff_t>(2 * kc)};
    std::vector<const float*> pointers;
    for (size_t q = 0; q < taps; ++q) {
      for (size_t r = 0; r < rows; ++r) pointers.push_back(x.a.data() + r * k + q * kc);
    }
    const std::vector<uint8_t> mode(taps, kTapWhole);
    const GemmOutput out{.c = x.c.data(),
                         .row = static_cast<ptrdiff_t>(columns),
                         .tile = static_cast<ptrdiff_t>(columns),
                         .columns = columns,
                         .bias = x.bias.data(),
                         .epilogue = &epilogue};
    GemmTiles t{.tiles = rows,
                .a = x.a.data(),
                .a_row = static_cast<ptrdiff_t>(k),
                .a_tile = static_cast<ptrdiff_t>(k),
                .tap = tap.data(),
                .taps = taps,
                .kc = kc,
                .b = x.b,
                .out = out};
    kernel.tiles[1][0](t);
    const std::vector<float> want = x.c;
    const auto expect_same = [&](const char* what) {
      EXPECT_EQ(std::memcmp(want.data(), x.c.data(), rows * columns * sizeof(float)), 0)
          << ToString(isa) << ' ' << what << ' ' << rows << 'x' << columns;
      std::fill(x.c.begin(), x.c.end(), NAN);
    };
    kernel.edge[rows][0](
        {.rows = pointers.data(), .tap_mode = mode.data(), .taps = taps, .kc = kc, .b = x.b, .out = out});
    expect_same("edge");
    t.tiles = 1;
    t.a_tile = static_cast<ptrdiff_t>(rows * k);
    kernel.tiles[rows][0](t);
    expect_same("height");
    t.taps = 1;
    t.kc = k;
    kernel.tiles[rows][0](t);
    expect_same("taps as one");
  });
}

TEST_P(Gemm, APrefetchChangesNoBits) {
  for (Isa isa : SupportedIsas()) {
    const GemmKernel& kernel = GetParam()(isa);
    const size_t k = 37, tiles = 3, m = tiles * kernel.rows;
    for (size_t vectors = 1; vectors <= kernel.vectors; ++vectors) {
      Inexact x(kernel, m, k, 1);
      const size_t width = vectors * kernel.lanes;
      const ptrdiff_t tap = 0;
      GemmTiles t{.tiles = tiles,
                  .a = x.a.data(),
                  .a_row = static_cast<ptrdiff_t>(k),
                  .a_tile = static_cast<ptrdiff_t>(kernel.rows * k),
                  .tap = &tap,
                  .kc = k,
                  .b = x.b,
                  .out = {.c = x.c.data(),
                          .row = static_cast<ptrdiff_t>(width),
                          .tile = static_cast<ptrdiff_t>(kernel.rows * width),
                          .columns = width,
                          .bias = x.bias.data()}};
      kernel.tiles[kernel.rows][vectors](t);
      const std::vector<float> want = x.c;
      for (const size_t step : {size_t{1}, size_t{16}, width}) {
        t.ahead = x.a.data();  // any address will do
        t.ahead_end = t.ahead + x.a.size();
        t.ahead_step = step;
        std::fill(x.c.begin(), x.c.end(), NAN);
        kernel.tiles[kernel.rows][vectors](t);
        EXPECT_EQ(std::memcmp(want.data(), x.c.data(), m * width * sizeof(float)), 0)
            << ToString(isa) << " step " << step;
      }
    }
  }
}

TEST_P(Gemm, ARowAgainstPanelsIsATileOfOneRow) {
  for (Isa isa : SupportedIsas()) {
    const GemmKernel& kernel = GetParam()(isa);
    const size_t k = 53;
    for (size_t panels = 0; panels <= 9; ++panels) {
      for (const Activation& activation : kActivations) {
        Inexact x(kernel, 1, k, panels + 1);  // one more than used
        const Epilogue epilogue = MakeEpilogue(isa, activation, Residual::kAfterActivation);
        const std::vector<float> residual(x.c.size(), 0.3f);
        const auto width = static_cast<ptrdiff_t>(x.width);
        GemmOutput out{.c = x.c.data(),
                       .tile = width,
                       .columns = x.width,
                       .bias = x.bias.data(),
                       .residual = residual.data(),
                       .residual_tile = width,
                       .epilogue = &epilogue};
        std::fill(x.c.begin(), x.c.end(), kUntouched);
        kernel.row({.a = x.a.data(), .kc = k, .b = x.b, .b_panel = k * x.width, .panels = panels, .out = out});
        const std::vector<float> got = x.c;
        std::fill(x.c.begin(), x.c.end(), kUntouched);
        const ptrdiff_t tap = 0;
        for (size_t p = 0; p < panels; ++p) {
          out.c = x.c.data() + p * x.width;
          kernel.tiles[1][kernel.vectors](
              {.tiles = 1, .a = x.a.data(), .tap = &tap, .kc = k, .b = x.b + p * k * x.width, .out = out});
        }
        EXPECT_EQ(std::memcmp(got.data(), x.c.data(), got.size() * sizeof(float)), 0) << ToString(isa) << ' ' << panels;
      }
    }
  }
}

TEST_P(Gemm, NanAndInfinityPassThroughClamps) {
  for (Isa isa : SupportedIsas()) {
    const GemmKernel& kernel = GetParam()(isa);
    const size_t width = kernel.lanes;
    AlignedBuffer b_memory(width * sizeof(float));
    for (size_t j = 0; j < width; ++j) b_memory.as<float>()[j] = 1.0f;
    const std::vector<float> bias(width, 0.0f);
    for (const Residual residual : {Residual::kNone, Residual::kAfterActivation}) {
      const Epilogue epilogue = MakeEpilogue(isa, {ActivationKind::kRelu6}, residual);
      for (const float x : {NAN, INFINITY, -INFINITY}) {
        std::vector<float> c(width), zeros(width, 0.0f);
        const ptrdiff_t tap = 0;
        kernel.tiles[1][1]({.tiles = 1,
                            .a = &x,
                            .tap = &tap,
                            .kc = 1,
                            .b = b_memory.as<float>(),
                            .out = {.c = c.data(),
                                    .columns = width,
                                    .bias = bias.data(),
                                    .residual = zeros.data(),
                                    .epilogue = &epilogue}});
        for (float y : c) {
          if (std::isnan(x)) {
            EXPECT_TRUE(std::isnan(y)) << ToString(isa);
          } else {
            EXPECT_EQ(y, x > 0 ? 6.0f : 0.0f) << ToString(isa);
          }
        }
      }
    }
  }
}

// B lies anywhere, unaligned, and the bias is the rows'.
TEST(GemmPlanes, EveryTile) {
  constexpr size_t kTiles = 2, kSteps = 5;
  for (Isa isa : SupportedIsas()) {
    for (const GemmKernel* kernel : {&GetPlanesKernel(isa), &GetWidePlanesKernel(isa)}) {
      const Epilogue epilogue = MakeEpilogue(isa, {.kind = ActivationKind::kRelu}, Residual::kNone);
      const size_t width = kernel->vectors * kernel->lanes, pitch = width + 3, rows = kTiles * kernel->rows;
      std::vector<float> a(rows * kSteps), b(1 + kSteps * pitch), bias(rows);
      for (size_t i = 0; i < a.size(); ++i) a[i] = Integer(i, 1);
      for (size_t i = 0; i < b.size(); ++i) b[i] = Integer(i, 2);
      for (size_t i = 0; i < rows; ++i) bias[i] = Integer(i, 3);
      std::vector<ptrdiff_t> step;
      for (size_t p = 0; p < kSteps; ++p) step.push_back(static_cast<ptrdiff_t>(1 + (kSteps - 1 - p) * pitch));
      for (size_t height = 1; height <= kernel->rows; ++height) {
        for (size_t vectors = 1; vectors <= kernel->vectors; ++vectors) {
          for (size_t columns : {vectors * kernel->lanes, (vectors - 1) * kernel->lanes + 1}) {
            std::vector<float> c(kTiles * height * width, kUntouched);
            GemmTiles t;
            t.tiles = kTiles;
            t.a = a.data();
            t.a_row = kSteps;
            t.a_tile = static_cast<ptrdiff_t>(height * kSteps);
            t.kc = kSteps;
            t.b = b.data();
            t.b_step = step.data();
            t.out.c = c.data();
            t.out.row = static_cast<ptrdiff_t>(width);
            t.out.tile = static_cast<ptrdiff_t>(height * width);
            t.out.columns = columns;
            t.out.bias = bias.data();
            t.out.epilogue = &epilogue;
            kernel->tiles[height][vectors](t);
            for (size_t r = 0; r < kTiles * height; ++r) {
              for (size_t j = 0; j < width; ++j) {
                float want = bias[r];
                for (size_t p = 0; p < kSteps; ++p) want += a[r * kSteps + p] * b[static_cast<size_t>(step[p]) + j];
                ASSERT_EQ(c[r * width + j], j < columns ? std::max(want, 0.0f) : kUntouched)
                    << ToString(isa) << " " << height << "x" << vectors << " row " << r << " column " << j;
              }
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace lamina::cpu
