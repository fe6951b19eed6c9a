// Hopper's instructions on the emulated GPU: barriers that count bytes, TMA's boxes and im2col columns against plain
// loops, wgmma's operands by descriptor against plain layouts, the ring between them, and the faults that are found.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda/core/fragment.h"
#include "kernels/cuda/core/tensor_map.h"
#include "kernels/cuda/device/ring.cuh"
#include "kernels/cuda/device/vec.cuh"
#include "kernels/cuda/runtime.h"
#include "tests/cuda/emulated.h"

namespace lamina::cuda {
namespace {

using emulator::Block;
using emulator::UnderBothSchedules;

int Thread() { return static_cast<int>(threadIdx.x); }

template <class Map>
TensorMap Encoded(const Map& map) {
  TensorMap encoded;
  EXPECT_TRUE(EncodeTensorMap(map, &encoded).ok()) << Validate(map);
  return encoded;
}

// A tensor's elements, all different: 1, 2, 3, ...
std::vector<uint16_t> Counted(size_t count) {
  std::vector<uint16_t> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<uint16_t>(i + 1);
  return values;
}

// What lies at an address that the swizzle has not moved.
uint16_t At(const unsigned char* shared, uint32_t offset, Swizzle swizzle) {
  uint16_t value;
  std::memcpy(&value, shared + (Swizzled(SharedAddress(shared) + offset, swizzle) - SharedAddress(shared)), 2);
  return value;
}

struct Box {
  alignas(1024) unsigned char bytes[64 * 128];
  uint64_t barrier;
};

// Runs load(box) in one thread, check(box) in all when the bytes are there.
template <class Load, class Check>
void LoadAndCheck(int bytes, const Load& load, const Check& check) {
  UnderBothSchedules([&] {
    Block::RunGrid({1, 1, 1}, 32, sizeof(Box), [&] {
      Box& box = SharedMemory<Box>();
      if (Thread() == 0) {
        InitBarrier(&box.barrier, 1);
        FenceBarrierInit();
      }
      __syncthreads();
      if (Thread() == 0) {
        ArriveExpecting(&box.barrier, bytes);
        load(box);
      }
      WaitBarrier(&box.barrier, 0);
      check(box);
    });
  });
}

TEST(HopperDescriptor, PacksAndUnpacks) {
  for (const Swizzle s : {Swizzle::kNone, Swizzle::k128, Swizzle::k64, Swizzle::k32}) {
    const MatrixDescriptor d = Unpack(Pack({0x3fff0, 0x10, 0x2000, s}));
    EXPECT_TRUE(d.address == 0x3fff0 && d.leading_bytes == 0x10 && d.stride_bytes == 0x2000 && d.swizzle == s);
  }
  EXPECT_EQ(Unpack(Step(KMajor128(1024), 96)).address, 1024u + 96);
  EXPECT_EQ(SpanBytes(Swizzle::k128), 128);
  EXPECT_EQ(SpanBytes(Swizzle::k64), 64);
  EXPECT_EQ(SpanBytes(Swizzle::k32), 32);
  // CUDA C++ Programming Guide, "Shared Memory Swizzling": row 1 of 128 bytes begins with its second chunk.
  EXPECT_EQ(Swizzled(1024 + 128, Swizzle::k128), 1024u + 128 + 16);
  EXPECT_EQ(Swizzled(1024 + 128, Swizzle::k64), 1024u + 128 + 16);
  EXPECT_EQ(Swizzled(1024 + 7 * 128 + 16, Swizzle::k128), 1024u + 7 * 128 + 6 * 16);
}

TEST(HopperBarrier, CountsArrivalsAndBytes) {
  UnderBothSchedules([] {
    std::vector<int> order;
    Block::RunGrid({1, 1, 1}, 64, 8, [&] {
      uint64_t* barrier = &SharedMemory<uint64_t>();
      if (Thread() == 0) {
        InitBarrier(barrier, 2);
        FenceBarrierInit();
        WaitBarrier(barrier, 1);  // the phase before the first is over
      }
      __syncthreads();
      for (uint32_t round = 0; round < 3; ++round) {
        if (Thread() == 40) order.push_back(static_cast<int>(round));
        if (Thread() == 40 || Thread() == 3) Arrive(barrier);
        WaitBarrier(barrier, round % 2);
        EXPECT_EQ(order.size(), round + 1);
        __syncthreads();
      }
    });
  });
}

TEST(HopperTma, TilesLandSwizzledWithZerosOutside) {
  const auto values = Counted(5 * 6 * 40);
  for (const Swizzle swizzle : {Swizzle::k128, Swizzle::k64, Swizzle::k32}) {
    const auto row = static_cast<uint32_t>(SpanBytes(swizzle) / 2);
    const TileMap map{.rank = 3,
                      .base = values.data(),
                      .dims = {37, 6, 5},
                      .strides = {80, 480},
                      .box = {row, 4, 3},
                      .swizzle = swizzle};
    const TensorMap encoded = Encoded(map);
    for (const auto [c0, c1, c2] : {std::array{0, 0, 0}, {8, 4, 1}, {24, -2, 3}, {-3, 5, -1}, {40, 0, 0}}) {
      LoadAndCheck(
          static_cast<int>(row) * 4 * 3 * 2, [&](Box& b) { LoadTile(b.bytes, encoded, &b.barrier, c0, c1, c2); },
          [&](const Box& b) {
            for (int i = Thread(); i < static_cast<int>(row) * 12; i += 32) {
              const int x = c0 + i % static_cast<int>(row), y = c1 + i / static_cast<int>(row) % 4,
                        z = c2 + i / static_cast<int>(row) / 4;
              const bool inside = x >= 0 && x < 37 && y >= 0 && y < 6 && z >= 0 && z < 5;
              const int want = inside ? z * 240 + y * 40 + x + 1 : 0;
              ASSERT_EQ(At(b.bytes, static_cast<uint32_t>(i) * 2, swizzle), want) << x << " " << y << " " << z;
            }
          });
    }
  }
}

// A column from any row of the product on is what a loop over images, rows and pixels of the output reads.
TEST(HopperTma, Im2colColumnsAreTheProductsRows) {
  std::mt19937 random(7);
  const auto any = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  for (int round = 0; round < 60; ++round) {
    const int n = any(1, 3), h = any(1, 9), w = any(1, 9), c = 8 * any(1, 4);
    const int kh = any(1, 3), kw = any(1, 3), dh = any(1, 2), dw = any(1, 3), sh = any(1, 3), sw = any(1, 3);
    const int top = any(0, 4), left = any(0, 4), bottom = any(0, 4), right = any(0, 4);
    const int span_h = h + top + bottom - (kh - 1) * dh, span_w = w + left + right - (kw - 1) * dw;
    if (span_h < 1 || span_w < 1) continue;
    const int oh = (span_h - 1) / sh + 1, ow = (span_w - 1) / sw + 1;
    const auto values = Counted(static_cast<size_t>(n * h * w * c));
    const Im2colMap map{.base = values.data(),
                        .dims = {static_cast<uint64_t>(c), static_cast<uint64_t>(w), static_cast<uint64_t>(h),
                                 static_cast<uint64_t>(n)},
                        .strides = {static_cast<uint64_t>(2 * c), static_cast<uint64_t>(2 * c * w),
                                    static_cast<uint64_t>(2 * c * w * h)},
                        .lower = {-left, -top},
                        .upper = {right - (kw - 1) * dw, bottom - (kh - 1) * dh},
                        .step = {static_cast<uint32_t>(sw), static_cast<uint32_t>(sh)},
                        .channels = 16,
                        .pixels = 24,
                        .swizzle = Swizzle::k32};
    const TensorMap encoded = Encoded(map);
    const int first = any(0, n * oh * ow - 1), r = any(0, kh - 1), s = any(0, kw - 1), c0 = 16 * any(0, (c - 1) / 16);
    LoadAndCheck(
        24 * 32,
        [&](Box& b) {
          LoadIm2col(b.bytes, encoded, &b.barrier, c0, first % ow * sw - left, first / ow % oh * sh - top,
                     first / (ow * oh), s * dw, r * dh);
        },
        [&](const Box& b) {
          for (int i = Thread(); i < 24 * 16; i += 32) {
            const int row = first + i / 16, channel = c0 + i % 16, image = row / (oh * ow);
            const int y = row / ow % oh * sh - top + r * dh, x = row % ow * sw - left + s * dw;
            const bool inside = image < n && channel < c && y >= 0 && y < h && x >= 0 && x < w;
            const int at = ((image * h + y) * w + x) * c + channel;
            ASSERT_EQ(At(b.bytes, static_cast<uint32_t>(i) * 2, Swizzle::k32),
                      inside ? static_cast<uint16_t>(at + 1) : 0)
                << "round " << round << " row " << row << " channel " << channel;
          }
        });
  }
}

TEST(HopperTma, MapsKeepTheDocumentedLimits) {
  const TileMap tile{.rank = 2, .base = nullptr, .dims = {64, 100}, .strides = {128}, .box = {64, 128}};
  const auto with = [](auto map, const auto& change) {
    change(map);
    TensorMap encoded;
    EXPECT_EQ(EncodeTensorMap(map, &encoded).ok(), Validate(map).empty());
    return Validate(map);
  };
  EXPECT_EQ(Validate(tile), "");
  EXPECT_EQ(with(tile, [](TileMap& m) { m.strides[0] = 72; }),
            "takes strides of a multiple of 16 bytes, below 2^40, got 72");
  EXPECT_NE(with(tile, [](TileMap& m) { m.strides[0] = uint64_t{1} << 40; }), "");
  EXPECT_NE(with(tile, [](TileMap& m) { m.base = reinterpret_cast<void*>(8); }), "");
  EXPECT_NE(with(tile, [](TileMap& m) { m.dims[1] = 0; }), "");
  EXPECT_NE(with(tile, [](TileMap& m) { m.dims[1] = (uint64_t{1} << 32) + 1; }), "");
  EXPECT_NE(with(tile, [](TileMap& m) { m.box[1] = 257; }), "");
  EXPECT_NE(with(tile, [](TileMap& m) { m.box[0] = 128; }), "");
  EXPECT_NE(with(tile, [](TileMap& m) { m.box[0] = 4; }), "");
  EXPECT_NE(with(tile, [](TileMap& m) { m.rank = 6; }), "");
  const Im2colMap image{.dims = {64, 9, 9, 2}, .strides = {128, 1152, 10368}, .channels = 64, .pixels = 128};
  EXPECT_EQ(Validate(image), "");
  EXPECT_EQ(with(image, [](Im2colMap& m) { m.lower[0] = -129; }),
            "takes windows that begin -128 to 127 pixels off an edge, got -129");
  EXPECT_NE(with(image, [](Im2colMap& m) { m.upper[1] = 128; }), "");
  EXPECT_NE(with(image, [](Im2colMap& m) { m.upper[1] = -9; }), "");
  EXPECT_NE(with(image, [](Im2colMap& m) { m.step[1] = 9; }), "");
  EXPECT_NE(with(image, [](Im2colMap& m) { m.pixels = 1025; }), "");
  EXPECT_NE(with(image, [](Im2colMap& m) { m.channels = 72; }), "");
}

// a[64, 32 bytes] and b[n, 32 bytes] of small integers from rows of any swizzle, at steps of k within the rows, against
// a loop over plain arrays.
template <Math kMath, int kN>
void CheckWgmma(Swizzle swizzle, Major major, bool in_registers = false) {
  using T = ElementOf<kMath>;
  constexpr int kElement = static_cast<int>(sizeof(T)), kDepth = 32 / kElement;
  const int span = SpanBytes(swizzle), elements = span / kElement;
  const auto value = [](int row, int k) { return static_cast<float>((row * 7 + k * 3) % 9 - 4); };
  struct Operands {
    alignas(1024) unsigned char a[64 * 128], b[256 * 128];
  };
  UnderBothSchedules([&] {
    Block::RunGrid({1, 1, 1}, 128, sizeof(Operands), [&] {
      Operands& shared = SharedMemory<Operands>();
      const auto put = [&](unsigned char* base, uint32_t offset, float x) {
        T t;
        FromFloat(x, t);
        std::memcpy(base + (Swizzled(SharedAddress(base) + offset, swizzle) - SharedAddress(base)), &t, sizeof(T));
      };
      const auto offset = [&](int row, int k) { return static_cast<uint32_t>(row * span + k * kElement); };
      const int depth = major == Major::kK ? elements : kDepth;
      for (int row = Thread(); row < 64; row += 128) {
        for (int k = 0; k < elements; ++k) put(shared.a, offset(row, k), value(row, k));
      }
      for (int row = Thread(); row < kN; row += 128) {
        for (int k = 0; k < depth; ++k) {
          const uint32_t at =
              major == Major::kK
                  ? offset(row, k)
                  : static_cast<uint32_t>(row / elements * kDepth * span + k * span + row % elements * kElement);
          put(shared.b, at, value(row + 1, k));
        }
      }
      FenceSharedStores();
      __syncthreads();
      const auto eight = static_cast<uint32_t>(8 * span);
      const uint64_t a = Pack({SharedAddress(shared.a), 16, eight, swizzle});
      const uint32_t leading = major == Major::kK ? 16 : static_cast<uint32_t>(kDepth * span);
      const uint64_t b = Pack({SharedAddress(shared.b), leading, eight, swizzle});
      float sums[kN / 2];
      int k_end = 0;
      WgmmaFence();
      uint32_t registers[4] = {};
      for (int step = 0; step < (major == Major::kK ? span : 32); step += 32, k_end += kDepth) {
        if (in_registers) {
          for (int reg = 0; reg < 4; ++reg) {
            const Position p = APosition(Thread() % 32, reg);
            const uint32_t at = offset(Thread() / 32 * 16 + p.row, 0) + static_cast<uint32_t>(step + p.column * 4);
            std::memcpy(&registers[reg],
                        shared.a + (Swizzled(SharedAddress(shared.a) + at, swizzle) - SharedAddress(shared.a)), 4);
          }
          if constexpr (kMath == Math::kTf32) {
            Wgmma<kMath, kN>(sums, registers, Step(b, step), step > 0);
          } else if (major == Major::kK) {
            Wgmma<kMath, kN>(sums, registers, Step(b, step), step > 0);
          } else {
            Wgmma<kMath, kN, Major::kMn>(sums, registers, b, false);
          }
          WgmmaCommit();
          WgmmaWait<0>();
          WgmmaFence();
        } else if constexpr (kMath == Math::kTf32) {
          Wgmma<kMath, kN>(sums, Step(a, step), Step(b, step), step > 0);
        } else if (major == Major::kK) {
          Wgmma<kMath, kN>(sums, Step(a, step), Step(b, step), step > 0);
        } else {
          Wgmma<kMath, kN, Major::kMn>(sums, a, b, false);
        }
      }
      WgmmaCommit();
      WgmmaWait<0>();
      for (int reg = 0; reg < kN / 2; ++reg) {
        const Position p = WgmmaPosition(Thread(), reg);
        float want = 0;
        for (int k = 0; k < k_end; ++k) want += value(p.row, k) * value(p.column + 1, k);
        ASSERT_EQ(sums[reg], want) << p.row << " " << p.column;
      }
    });
  });
}

TEST(HopperWgmma, ReadsOperandsByDescriptor) {
  for (const Swizzle s : {Swizzle::k128, Swizzle::k64, Swizzle::k32}) {
    CheckWgmma<Math::kBf16, 64>(s, Major::kK);
    CheckWgmma<Math::kF16, 128>(s, Major::kK);
    CheckWgmma<Math::kTf32, 256>(s, Major::kK);
    CheckWgmma<Math::kBf16, 128>(s, Major::kMn);
    CheckWgmma<Math::kF16, 256>(s, Major::kMn);
    CheckWgmma<Math::kBf16, 128>(s, Major::kMn, true);
    CheckWgmma<Math::kF16, 64>(s, Major::kK, true);
    CheckWgmma<Math::kTf32, 64>(s, Major::kK, true);
  }
}

// Thread 0 sends `count` boxes of 64 x 128 bytes through a ring of two; a warpgroup multiplies each by itself and keeps
// the trace. `early`: it lets go of a stage before its products are done.
std::vector<float> RunRing(int count, bool early) {
  struct Shared {
    Box stages[2];
    RingBarriers<2> barriers;
  };
  std::vector<float> values(static_cast<size_t>(count) * 64 * 32);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i / 2048 + 1);
  const TensorMap map = Encoded(TileMap{.element = TmaElement::kTf32,
                                        .rank = 2,
                                        .base = values.data(),
                                        .dims = {32, static_cast<uint64_t>(count) * 64},
                                        .strides = {128},
                                        .box = {32, 64}});
  std::vector<float> traces(static_cast<size_t>(count));
  Block::RunGrid({1, 1, 1}, 256, sizeof(Shared), [&] {
    Shared& shared = SharedMemory<Shared>();
    Ring<2> ring(shared.barriers);
    if (Thread() == 0) ring.Init(1);
    __syncthreads();
    Ring<2>::Position at;
    if (Thread() == 0) {
      for (int i = 0; i < count; ++i, at.Advance()) {
        uint64_t* full = ring.Fill(at, 64 * 128);
        LoadTile(shared.stages[at.stage].bytes, map, full, 0, 64 * i);
      }
    } else if (Thread() >= 128) {
      for (int i = 0; i < count; ++i, at.Advance()) {
        ring.AwaitFull(at);
        const uint64_t a = KMajor128(SharedAddress(shared.stages[at.stage].bytes));
        float sums[32];
        WgmmaFence();
        Wgmma<Math::kTf32, 64>(sums, a, a, false);
        WgmmaCommit();
        if (early && Thread() == 128) ring.Release(at);
        WgmmaWait<0>();
        if (!early && Thread() == 128) ring.Release(at);
        if (Thread() == 128) traces[static_cast<size_t>(i)] = sums[0];
      }
    }
  });
  return traces;
}

TEST(HopperRing, HandsEveryStageOver) {
  UnderBothSchedules([] {
    const std::vector<float> traces = RunRing(7, false);
    for (size_t i = 0; i < traces.size(); ++i) EXPECT_EQ(traces[i], 8.0f * static_cast<float>((i + 1) * (i + 1)));
  });
}

TEST(HopperRing, AStageLetGoTooEarlyIsOverwritten) {
  emulator::TheSchedule() = {.backward = true, .late = true};
  EXPECT_NE(RunRing(7, true), RunRing(7, false));
  emulator::TheSchedule() = {};
}

TEST(HopperRegisters, MoveFromOneWarpgroupToOthers) {
  UnderBothSchedules([] {
    Block::RunGrid({1, 1, 1}, 384, 0, [] {
      if (Thread() < 128) {
        DecreaseRegisters<40>();
      } else {
        IncreaseRegisters<232>();
      }
    });
  });
}

// 128 threads store a row each, and wgmma multiplies rows by rows; `fences(thread)` execute a proxy fence behind their
// stores, and after a barrier thread 0 where `afterwards`.
template <class F>
void StoreAndMultiply(const F& fences, bool afterwards = false) {
  Block::RunGrid({1, 1, 1}, 128, 128 * 128, [&] {
    auto* rows = &SharedMemory<uint32_t>();
    for (int word = 0; word < 32; ++word) rows[Thread() * 32 + word] = __float_as_uint(1);
    if (fences(Thread())) FenceSharedStores();
    __syncthreads();
    if (afterwards && Thread() == 0) FenceSharedStores();
    __syncthreads();
    const uint64_t a = KMajor128(SharedAddress(rows));
    float sums[32];
    WgmmaFence();
    Wgmma<Math::kTf32, 64>(sums, a, a, false);
    WgmmaCommit();
    WgmmaWait<0>();
    EXPECT_EQ(sums[0], 8);
  });
}

TEST(HopperProxies, AFenceBehindTheStoresMakesThemKnown) {
  UnderBothSchedules([] {
    StoreAndMultiply([](int) { return true; });
    StoreAndMultiply([](int) { return false; }, true);
  });
}

class HopperFaults : public testing::Test {
 protected:
  static void Run(int threads, const std::function<void()>& body) {
    Block::RunGrid({1, 1, 1}, threads, sizeof(Box), body);
  }
  static Box& TheBox() { return SharedMemory<Box>(); }
};

TEST_F(HopperFaults, AreFound) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(Run(32, [] { Arrive(&TheBox().barrier); }), "an mbarrier was used before its init");
  EXPECT_DEATH(Run(32,
                   [] {
                     if (Thread() != 0) return;
                     InitBarrier(&TheBox().barrier, 1);
                     ArriveExpecting(&TheBox().barrier, 16);
                     Arrive(&TheBox().barrier);
                   }),
               "more arrivals");
  EXPECT_DEATH(Run(128,
                   [] {
                     float sums[32];
                     Wgmma<Math::kBf16, 64>(sums, KMajor128(1024), KMajor128(1024), false);
                   }),
               "wgmma without wgmma.fence");
  EXPECT_DEATH(Run(128,
                   [] {
                     float sums[32];
                     WgmmaFence();
                     Wgmma<Math::kBf16, 64>(sums, KMajor128(1024), KMajor128(1024), false);
                     WgmmaCommit();
                   }),
               "a wgmma that it has not waited for");
  EXPECT_DEATH(Run(256, [] { IncreaseRegisters<256>(); }), "setmaxnreg.inc");
  const std::vector<uint16_t> values(64 * 64);
  const TensorMap map =
      Encoded(TileMap{.rank = 2, .base = values.data(), .dims = {64, 64}, .strides = {128}, .box = {64, 64}});
  EXPECT_DEATH(Run(32,
                   [&] {
                     if (Thread() != 0) return;
                     InitBarrier(&TheBox().barrier, 1);
                     LoadTile(TheBox().bytes, map, &TheBox().barrier, 0, 0);
                   }),
               "whose init was not fenced");
  EXPECT_DEATH(Run(32,
                   [&] {
                     if (Thread() != 0) return;
                     InitBarrier(&TheBox().barrier, 1);
                     FenceBarrierInit();
                     ArriveExpecting(&TheBox().barrier, 64 * 64 * 2 + 16);  // more than comes
                     LoadTile(TheBox().bytes, map, &TheBox().barrier, 0, 0);
                     WaitBarrier(&TheBox().barrier, 0);
                   }),
               "wait for each other for ever");
  EXPECT_DEATH(Run(32,
                   [&] {
                     emulator::TheSchedule().late = true;
                     if (Thread() != 0) return;
                     InitBarrier(&TheBox().barrier, 1);
                     FenceBarrierInit();
                     ArriveExpecting(&TheBox().barrier, 64 * 64 * 2);
                     LoadTile(TheBox().bytes, map, &TheBox().barrier, 0, 0);
                   }),
               "TMA loads that nobody has waited for");
}

// One thread's fence in place of all would make known what others happen to have stored before it: one of the schedules
// has the thread before the others.
TEST_F(HopperFaults, StoresWithoutProxyFences) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const char* const sentence = "wgmma reached shared memory that was stored to without fence.proxy.async";
  EXPECT_DEATH(StoreAndMultiply([](int) { return false; }), sentence);
  EXPECT_DEATH(StoreAndMultiply([](int thread) { return thread == 0; }), sentence);
  EXPECT_DEATH(
      {
        emulator::TheSchedule().backward = true;
        StoreAndMultiply([](int thread) { return thread == 127; });
      },
      sentence);
  const std::vector<uint16_t> values(64 * 64);
  const TensorMap map =
      Encoded(TileMap{.rank = 2, .base = values.data(), .dims = {64, 64}, .strides = {128}, .box = {64, 64}});
  EXPECT_DEATH(Run(32,
                   [&] {
                     if (Thread() != 0) return;
                     InitBarrier(&TheBox().barrier, 1);
                     FenceBarrierInit();
                     TheBox().bytes[5] = 1;
                     ArriveExpecting(&TheBox().barrier, 64 * 64 * 2);
                     LoadTile(TheBox().bytes, map, &TheBox().barrier, 0, 0);
                     WaitBarrier(&TheBox().barrier, 0);
                   }),
               "TMA reached shared memory that was stored to without fence.proxy.async");
}

}  // namespace
}  // namespace lamina::cuda
