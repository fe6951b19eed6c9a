// MatMul on every SIMD target against sums in double: exact on small integers, whatever the blocking and the threads.
#include "kernels/cpu/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "harness/guarded.h"
#include "harness/parity.h"
#include "reference/activation.h"

namespace lamina::cpu {
namespace {

using harness::Guard;
using harness::Guarded;

struct Shape {
  int64_t m, n, k;
};

float Integer(size_t i, size_t seed) {
  const int v = static_cast<int>((i * 2654435761u + seed * 40503u) >> 7) % 8;
  return static_cast<float>(v < 4 ? v - 4 : v - 3);
}

// [rows, row] integers `stride` apart, ending at a guard page.
Guarded Matrix(int64_t rows, int64_t row, int64_t stride, size_t seed) {
  const auto count = static_cast<size_t>((rows - 1) * stride + row);
  Guarded memory(count * sizeof(float), Guard::kEnd);
  for (size_t i = 0; i < count; ++i) memory.as<float>()[i] = Integer(i, seed);
  return memory;
}

void CheckOn(const GemmKernel& kernel, Isa isa, size_t threads, const Shape& s, const Activation& activation,
             Residual residual, bool in_place, bool transposed) {
  SCOPED_TRACE(testing::Message() << ToString(isa) << " threads " << threads << " m " << s.m << " n " << s.n << " k "
                                  << s.k << " residual " << static_cast<int>(residual) << (in_place ? " in place" : "")
                                  << " tile " << kernel.rows << 'x' << kernel.vectors);
  const int64_t a_stride = s.k + 3, c_stride = s.n + 5, r_stride = in_place ? c_stride : s.n + 2;
  const Guarded a = Matrix(s.m, s.k, a_stride, 1), r = Matrix(s.m, s.n, r_stride, 3), bias = Matrix(1, s.n, s.n, 4);
  const Guarded w = transposed ? Matrix(s.k, s.n, s.n, 2) : Matrix(s.n, s.k, s.k, 2);
  const int64_t o_stride = transposed ? 1 : s.k, i_stride = transposed ? s.n : 1;
  Guarded c = Matrix(s.m, s.n, c_stride, in_place ? 3 : 5);
  auto packed = PackedMatrix::Pack(isa, kernel, s.k, s.n, w.as<float>(), o_stride, i_stride, bias.as<float>());
  ASSERT_TRUE(packed.ok()) << packed.status().message();
  MatMul(harness::PoolOf(threads), *packed,
         {.m = s.m,
          .a = a.as<float>(),
          .a_stride = a_stride,
          .c = c.as<float>(),
          .c_stride = c_stride,
          .residual = in_place ? c.as<float>() : r.as<float>(),
          .residual_stride = r_stride,
          .residual_kind = residual,
          .activation = activation});
  for (int64_t i = 0; i < s.m; ++i) {
    for (int64_t j = 0; j < s.n; ++j) {
      double sum = bias.as<float>()[j];
      for (int64_t p = 0; p < s.k; ++p) {
        sum += double{a.as<float>()[i * a_stride + p]} * w.as<float>()[j * o_stride + p * i_stride];
      }
      const double x = r.as<float>()[i * r_stride + j];
      double want = reference::Activate(activation, residual == Residual::kBeforeActivation ? sum + x : sum);
      if (residual == Residual::kAfterActivation) want += x;
      ASSERT_EQ(c.as<float>()[i * c_stride + j], want) << "row " << i << " column " << j;
    }
    for (int64_t j = s.n; j < c_stride && i + 1 < s.m; ++j) {
      ASSERT_EQ(c.as<float>()[i * c_stride + j], Integer(static_cast<size_t>(i * c_stride + j), in_place ? 3 : 5));
    }
  }
}

constexpr const GemmKernel& (*kKernels[])(Isa) = {&GetWideKernel, &GetOperandKernel};

void Check(Isa isa, size_t threads, const Shape& s, const Activation& activation, Residual residual, bool in_place,
           bool transposed) {
  for (const auto kernel : kKernels) CheckOn(kernel(isa), isa, threads, s, activation, residual, in_place, transposed);
}

TEST(MatMul, ShapesAroundTheTiles) {
  for (Isa isa : SupportedIsas()) {
    for (const int64_t m : {1, 2, 5, 6, 7, 8, 13, 15, 29}) {
      for (const int64_t n : {1, 2, 7, 8, 16, 31, 33, 63, 64, 65, 129, 197, 330}) {
        for (const int64_t k : {1, 2, 9}) Check(isa, 1, {m, n, k}, {}, Residual::kNone, false, n % 2 == 0);
      }
    }
  }
}

// Each number of columns beyond whole vectors; k around where they become dot products.
TEST(MatMul, EveryNumberOfColumns) {
  for (Isa isa : SupportedIsas()) {
    for (const int64_t m : {1, 2, 7, 29}) {
      for (int64_t n = 1; n <= 50; ++n) {
        for (const int64_t k : {31, 32, 33, 64, 70}) Check(isa, 1, {m, n, k}, {}, Residual::kNone, false, n % 2 == 0);
      }
    }
  }
}

TEST(MatMul, BlocksOfRowsAndOfK) {
  for (Isa isa : SupportedIsas()) {
    for (const size_t threads : {1, 3}) {
      for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
        for (const bool in_place : {false, true}) {
          Check(isa, threads, {3, 70, 3100}, {ActivationKind::kRelu}, residual, in_place, false);
        }
      }
    }
    Check(isa, 1, {260, 20, 1537}, {}, Residual::kNone, false, false);
    Check(isa, 2, {700, 17, 33}, {}, Residual::kNone, false, false);
    for (const bool in_place : {false, true}) {
      Check(isa, 3, {29, 34, 3100}, {ActivationKind::kRelu}, Residual::kBeforeActivation, in_place, false);
    }
  }
}

TEST(MatMul, BitsDoNotDependOnThreadsOrTiles) {
  constexpr int64_t kM = 37, kN = 201, kK = 1700;
  std::vector<float> a(kM * kK), w(kN * kK), c(kM * kN), first;
  for (size_t i = 0; i < a.size(); ++i) a[i] = std::sin(static_cast<float>(i));
  for (size_t i = 0; i < w.size(); ++i) w[i] = std::cos(static_cast<float>(i));
  for (Isa isa : SupportedIsas()) {
    first.clear();
    for (const auto kernel : kKernels) {
      const auto packed = PackedMatrix::Pack(isa, kernel(isa), kK, kN, w.data(), kK, 1, nullptr);
      ASSERT_TRUE(packed.ok());
      for (size_t threads = 1; threads <= 4; ++threads) {
        MatMul(harness::PoolOf(threads), *packed,
               {.m = kM, .a = a.data(), .a_stride = kK, .c = c.data(), .c_stride = kN});
        if (first.empty()) first = c;
        EXPECT_EQ(std::memcmp(first.data(), c.data(), c.size() * sizeof(float)), 0) << ToString(isa) << ' ' << threads;
      }
    }
  }
}

TEST(MatMul, PredictionsGrowWithTheProblem) {
  const Machine& machine = BuiltInMachine();
  for (Isa isa : SupportedIsas()) {
    EXPECT_EQ(PredictMatMul(machine, isa, 1, 0, 64, 64), 0);
    EXPECT_GT(PredictMatMul(machine, isa, 1, 1, 64, 64), 0);
    EXPECT_GT(PredictMatMul(machine, isa, 1, 128, 512, 512), PredictMatMul(machine, isa, 1, 64, 512, 512));
  }
}

}  // namespace
}  // namespace lamina::cpu
