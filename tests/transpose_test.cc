// Transposes, copies of rows and parted pairs on every SIMD target: every element in its place, nothing else touched.
#include "kernels/cpu/transpose.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "harness/parity.h"

namespace lamina {
namespace {

using harness::Fill;
using harness::Guard;
using harness::TensorStore;

bool IsPoison(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits == TensorStore::kPoison;
}

// Source rows `gap` floats longer than needed, destination rows too; guard pages at the tensors' very ends.
void CheckTranspose(Isa isa, int64_t rows, int64_t columns, int64_t gap) {
  const std::string where = std::string(ToString(isa)) + " " + std::to_string(rows) + "x" + std::to_string(columns) +
                            " gap " + std::to_string(gap);
  for (Guard guard : {Guard::kEnd, Guard::kBegin}) {
    TensorStore store(Fill::kNormal, guard, 1);
    const int64_t src_stride = columns + gap, dst_stride = rows + gap;
    const float* src = store.Input((rows - 1) * src_stride + columns);
    float* dst = store.Output((columns - 1) * dst_stride + rows);
    store.ProtectInputs();
    store.PoisonOutputs();
    cpu::GetTransposeKernel(isa).transpose(static_cast<size_t>(rows), static_cast<size_t>(columns), src, src_stride,
                                           dst, dst_stride);
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = 0; r < dst_stride && c * dst_stride + r < store.outputs()[0].count; ++r) {
        const float got = dst[c * dst_stride + r];
        if (r < rows) {
          ASSERT_EQ(got, src[r * src_stride + c]) << where << " at " << r << "," << c;
        } else {
          ASSERT_TRUE(IsPoison(got)) << where << " wrote into the gap of row " << c;
        }
      }
    }
  }
}

TEST(Transpose, EverySizeAroundTheVectors) {
  for (Isa isa : SupportedIsas()) {
    for (int64_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33}) {
      for (int64_t columns : {1, 2, 3, 4, 5, 8, 11, 16, 17, 20, 32, 35}) {
        CheckTranspose(isa, rows, columns, 0);
        CheckTranspose(isa, rows, columns, 3);
      }
    }
  }
}

TEST(CopyRows, FillsUpWithZeros) {
  for (Isa isa : SupportedIsas()) {
    for (int64_t columns : {1, 3, 4, 7, 8, 15, 16, 31, 48, 61, 64}) {
      TensorStore store(Fill::kNormal, Guard::kEnd, 1);
      const int64_t rows = 5, stride = columns + 2, width = 64;
      const float* src = store.Input((rows - 1) * stride + columns);
      float* dst = store.Output(rows * width);
      store.ProtectInputs();
      store.PoisonOutputs();
      cpu::GetTransposeKernel(isa).copy_rows(rows, static_cast<size_t>(columns), width, src, stride, dst);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < width; ++c) {
          ASSERT_EQ(dst[r * width + c], c < columns ? src[r * stride + c] : 0.0f)
              << ToString(isa) << " " << r << "," << c;
        }
      }
    }
  }
}

TEST(SplitPairs, EveryCountAroundTheVectors) {
  for (Isa isa : SupportedIsas()) {
    for (int64_t n : {1, 2, 3, 7, 8, 9, 15, 16, 31, 32, 33, 63, 64, 65, 97}) {
      TensorStore store(Fill::kNormal, Guard::kEnd, 1);
      const float* src = store.Input(n);
      float* even = store.Output((n + 1) / 2);
      float* odd = store.Output(std::max<int64_t>(1, n / 2));
      store.ProtectInputs();
      store.PoisonOutputs();
      cpu::GetTransposeKernel(isa).split_pairs(static_cast<size_t>(n), src, even, odd);
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_EQ((i % 2 == 0 ? even : odd)[i / 2], src[i]) << ToString(isa) << " " << n << " at " << i;
      }
      ASSERT_EQ(IsPoison(odd[0]), n == 1) << ToString(isa);
    }
  }
}

}  // namespace
}  // namespace lamina
