// The emulated GPU itself: what it computes, and that it finds the faults it is there to find.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kernels/cuda/core/fragment.h"
#include "kernels/cuda/device/launch.cuh"
#include "tests/cuda/emulated.h"

namespace lamina::cuda {
namespace {

using emulator::Block;
using emulator::UnderBothSchedules;

TEST(EmulatedGpu, RunsEveryThreadOfEveryBlockOnce) {
  UnderBothSchedules([] {
    std::vector<int> seen(3 * 2 * 2 * 64);
    Block::RunGrid({3, 2, 2}, 64, 0, [&] {
      ++seen[((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x];
    });
    EXPECT_EQ(seen, std::vector<int>(seen.size(), 1));
  });
}

TEST(EmulatedGpu, BarriersMakeSharedMemoryVisible) {
  UnderBothSchedules([] {
    std::vector<int> out(256);
    Block::RunGrid({1, 1, 1}, 256, 1024, [&] {
      int* shared = &SharedMemory<int>();
      const auto i = static_cast<int>(threadIdx.x);
      for (int round = 0; round < 3; ++round) {
        shared[i] = i + round;
        __syncthreads();
        out[static_cast<size_t>(i)] = shared[255 - i];
        __syncthreads();
      }
    });
    for (int i = 0; i < 256; ++i) EXPECT_EQ(out[static_cast<size_t>(i)], 255 - i + 2);
  });
}

TEST(EmulatedGpu, ShufflesAndVotesSeeTheWholeWarp) {
  UnderBothSchedules([] {
    Block::RunGrid({1, 1, 1}, 64, 0, [] {
      const auto lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
      int sum = lane + 100 * warp;
      for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffff, sum, mask);
      EXPECT_EQ(sum, 496 + 3200 * warp);
      EXPECT_EQ(__shfl_sync(0xffffffff, lane * 2, 5), 10);
      EXPECT_EQ(__ballot_sync(0xffffffff, lane % 3 == 0), 0x49249249u);
    });
  });
}

// mma.m16n8k8 of TF32 against the product by its definition, the fragments filled by core/fragment.h.
TEST(EmulatedGpu, MmaMultipliesByTheFragmentMaps) {
  UnderBothSchedules([] {
    const auto a = [](int row, int k) { return static_cast<float>(row * 3 - k * 5); };
    const auto b = [](int k, int column) { return static_cast<float>(k * 7 - column * 2); };
    Block::RunGrid({1, 1, 1}, 32, 0, [&] {
      const auto lane = static_cast<int>(threadIdx.x);
      uint32_t a_words[4], b_words[2];
      for (int reg = 0; reg < 4; ++reg) {
        const Position p = APosition(lane, reg);
        a_words[reg] = __float_as_uint(a(p.row, p.column));
      }
      for (int reg = 0; reg < 2; ++reg) {
        const Position p = BPosition(lane, reg);
        b_words[reg] = __float_as_uint(b(p.row, p.column));
      }
      float d[4] = {1, 1, 1, 1};
      MmaTf32(d, a_words, b_words);
      for (int reg = 0; reg < 4; ++reg) {
        const Position p = AccumulatorPosition(lane, reg);
        float want = 1;
        for (int k = 0; k < 8; ++k) want += a(p.row, k) * b(k, p.column);
        EXPECT_EQ(d[reg], want) << "lane " << lane << " register " << reg;
      }
    });
  });
}

TEST(EmulatedGpu, LdmatrixGivesFragmentsPlainAndTransposed) {
  Block::RunGrid({1, 1, 1}, 32, 512, [] {
    auto* tile = reinterpret_cast<uint16_t*>(&SharedMemory<unsigned char>());  // 32 rows of 8
    const auto lane = static_cast<int>(threadIdx.x);
    for (int c = 0; c < 8; ++c) tile[lane * 8 + c] = static_cast<uint16_t>(lane * 8 + c);
    __syncwarp();
    uint32_t plain[4], transposed[4];
    LoadMatrix4(plain, tile + lane * 8);
    LoadMatrix4Transposed(transposed, tile + lane * 8);
    for (int i = 0; i < 4; ++i) {
      const uint32_t first = static_cast<uint32_t>((8 * i + lane / 4) * 8 + lane % 4 * 2);
      EXPECT_EQ(plain[i], first | (first + 1) << 16);
      const uint32_t down = static_cast<uint32_t>((8 * i + lane % 4 * 2) * 8 + lane / 4);
      EXPECT_EQ(transposed[i], down | (down + 8) << 16);
    }
  });
}

// A copy that is read before it is waited for gives the old bytes under one of the schedules: the fault shows.
TEST(EmulatedGpu, LateCopiesLandWhenWaitedFor) {
  alignas(16) static const float source[4] = {1, 2, 3, 4};
  emulator::TheSchedule() = {.late = true};
  Block::RunGrid({1, 1, 1}, 32, 512, [] {
    float* mine = &SharedMemory<float>() + 4 * threadIdx.x;
    mine[0] = 7;
    CopyAsync16(mine, source, threadIdx.x % 2 == 0);
    CopyAsyncCommit();
    EXPECT_EQ(mine[0], 7);
    CopyAsyncWait<0>();
    EXPECT_EQ(mine[0], threadIdx.x % 2 == 0 ? 1 : 0);
  });
  emulator::TheSchedule() = {};
}

// The two schedules tell a kernel that lacks a barrier from one that has it.
TEST(EmulatedGpu, AMissingBarrierGivesDifferentResults) {
  const auto run = [](bool backward) {
    emulator::TheSchedule() = {.backward = backward};
    std::vector<int> out(64);
    Block::RunGrid({1, 1, 1}, 64, 256, [&] {
      int* shared = &SharedMemory<int>();
      shared[threadIdx.x] = static_cast<int>(threadIdx.x);
      out[threadIdx.x] = shared[63 - threadIdx.x];  // __syncthreads() forgotten
    });
    emulator::TheSchedule() = {};
    return out;
  };
  EXPECT_NE(run(false), run(true));
}

using EmulatedGpuDeathTest = testing::Test;

TEST(EmulatedGpuDeathTest, ThreadsThatWaitForEverAreReported) {
  EXPECT_DEATH(Block::RunGrid({1, 1, 1}, 64, 0,
                              [] {
                                if (threadIdx.x != 5) __syncthreads();
                              }),
               "wait for each other for ever(.|\n)*thread 5 has ended");
}

TEST(EmulatedGpuDeathTest, LanesInDifferentInstructionsAreReported) {
  EXPECT_DEATH(Block::RunGrid({1, 1, 1}, 32, 0,
                              [] {
                                if (threadIdx.x < 16) {
                                  __syncwarp();
                                } else {
                                  __shfl_sync(0xffffffff, 1, 0);
                                }
                              }),
               "the lanes of a warp met in different instructions");
}

TEST(EmulatedGpuDeathTest, WritesBehindSharedMemoryAreReported) {
  EXPECT_DEATH(Block::RunGrid({1, 1, 1}, 32, 100, [] { (&SharedMemory<char>())[100] = 1; }),
               "wrote behind its shared memory");
  EXPECT_DEATH(Block::RunGrid({1, 1, 1}, 32, 1024, [] { (&SharedMemory<char>())[1024] = 1; }), "");
}

TEST(EmulatedGpuDeathTest, CopiesMustBeAlignedAndWaitedFor) {
  alignas(16) static const float source[8] = {};
  EXPECT_DEATH(Block::RunGrid({1, 1, 1}, 32, 512, [] { CopyAsync16(&SharedMemory<float>(), source + 1, true); }), "16");
  emulator::TheSchedule() = {.late = true};
  EXPECT_DEATH(Block::RunGrid({1, 1, 1}, 32, 512,
                              [] {
                                CopyAsync16(&SharedMemory<float>(), source, true);
                                CopyAsyncCommit();
                              }),
               "copies that it has not waited for");
  emulator::TheSchedule() = {};
}

// One thread of the first block ends without it.
void OneThreadOvertakes(int thread) {
  if (static_cast<int>(threadIdx.x) != thread) AwaitEarlierKernels();
}
TEST(EmulatedGpuDeathTest, AKernelThatDoesNotWaitForEarlierOnesIsReported) {
  EXPECT_DEATH(Launch(OneThreadOvertakes, {2, 1, 1}, 64, 0, nullptr, 33), "AwaitEarlierKernels .block 0,0,0 thread 33");
  EXPECT_TRUE(Launch(OneThreadOvertakes, {2, 1, 1}, 64, 0, nullptr, 64).ok());
}

TEST(EmulatedGpuDeathTest, LaunchesThatNoGpuTakesAreReported) {
  EXPECT_DEATH(Block::RunGrid({1, 1, 1}, 33, 0, [] {}), "whole warps");
  EXPECT_DEATH(Block::RunGrid({1, 1, 1}, 32, 300000, [] {}), "227 KiB");
  EXPECT_DEATH(Block::RunGrid({1, 70000, 1}, 32, 0, [] {}), "65535");
}

}  // namespace
}  // namespace lamina::cuda
