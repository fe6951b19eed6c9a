// Machine figures: the built-in ones, what is read off them, the text form, and the measurement.
#include "lamina/machine.h"

#include <gtest/gtest.h>

#include <memory>

#include "lamina/cost.h"

namespace lamina {
namespace {

void ExpectComplete(const Machine& m) {
  EXPECT_FALSE(m.cpu.empty());
  EXPECT_GE(m.threads, 1);
  for (Isa isa : SupportedIsas()) {
    EXPECT_GT(m.Gflops(isa, 1), 0) << ToString(isa);
    EXPECT_GT(m.Gflops(isa, m.threads), 0) << ToString(isa);
  }
  EXPECT_EQ(m.Gflops(Isa::kBest, 1), m.Gflops(SupportedIsas().front(), 1));
  for (const auto* level : {&m.l1, &m.l2, &m.l3, &m.memory}) {
    EXPECT_GT(level->bytes, 0);
    EXPECT_GT(level->gbps_one, 0);
    EXPECT_GT(level->gbps_all, 0);
  }
  EXPECT_LE(m.l1.bytes, m.l2.bytes);
  EXPECT_LE(m.l2.bytes, m.l3.bytes);
  EXPECT_LE(m.l3.bytes, m.memory.bytes);
}

TEST(Machine, BuiltInFiguresAreComplete) { ExpectComplete(BuiltInMachine()); }

Machine Sample() {
  Machine m;
  m.cpu = "a CPU = with (signs)";
  m.threads = 5;
  m.gflops_one = {100, 6.25, 0, 50.1, 100};
  m.gflops_all = {400, 25, 0, 0.1 + 0.2, 400};
  m.l1 = {32768, 200, 1000};
  m.l2 = {1 << 20, 100, 500};
  m.l3 = {32 << 20, 50, 150};
  m.memory = {int64_t{1} << 40, 20, 60};
  return m;
}

TEST(Machine, InterpolatesBetweenOneThreadAndAll) {
  const Machine m = Sample();
  EXPECT_DOUBLE_EQ(m.Gflops(Isa::kBest, 1), 100);
  EXPECT_DOUBLE_EQ(m.Gflops(Isa::kBest, 3), 250);
  EXPECT_DOUBLE_EQ(m.Gflops(Isa::kBest, 5), 400);
  EXPECT_DOUBLE_EQ(m.Gflops(Isa::kBest, 50), 400);
}

TEST(Machine, TakesTheSmallestLevelThatHoldsTheBytes) {
  const Machine m = Sample();
  EXPECT_EQ(m.Gbps(32768, 1), 200);
  EXPECT_EQ(m.Gbps(32769, 1), 100);
  EXPECT_EQ(m.Gbps(32 << 20, 5), 150);
  EXPECT_EQ(m.Gbps((32 << 20) + 1, 5), 60);
}

TEST(Machine, RooflineIsTheGreaterOfArithmeticAndMemory) {
  const Machine m = Sample();
  Cost cost{.macs = 1000000, .weight_bytes = 1000, .activation_bytes = 1000};
  EXPECT_DOUBLE_EQ(RooflineNs(cost, m, 1).ns, 2e6 / 100);
  EXPECT_FALSE(RooflineNs(cost, m, 1).memory_bound);
  cost.activation_bytes = 1 << 30;
  EXPECT_DOUBLE_EQ(RooflineNs(cost, m, 1).ns, ((1 << 30) + 1000.0) / 20);
  EXPECT_TRUE(RooflineNs(cost, m, 1).memory_bound);
}

TEST(MachineText, ReadsWhatItPrints) {
  for (const Machine& m : {Sample(), BuiltInMachine()}) {
    const auto read = ParseMachine(ToString(m));
    ASSERT_TRUE(read.ok()) << read.status().message();
    EXPECT_EQ(ToString(*read), ToString(m));
    EXPECT_EQ(read->cpu, m.cpu);
    EXPECT_EQ(read->threads, m.threads);
    EXPECT_EQ(read->gflops_one, m.gflops_one);
    EXPECT_EQ(read->gflops_all, m.gflops_all);
    EXPECT_EQ(read->l3.bytes, m.l3.bytes);
    EXPECT_EQ(read->memory.gbps_all, m.memory.gbps_all);
  }
}

// Sample's text with `from` replaced by `to`, and what is said of it.
std::string Refusal(const std::string& from, const std::string& to) {
  std::string text = ToString(Sample());
  const size_t at = text.find(from);
  if (at == std::string::npos) return "no such text";
  const auto read = ParseMachine(text.replace(at, from.size(), to));
  return read.ok() ? "accepted" : read.status().message();
}

TEST(MachineText, TakesCommentsAndBlankLines) {
  EXPECT_EQ(Refusal("threads=5", "# threads\n\n threads = 5 "), "accepted");
}

TEST(MachineText, RefusesWithTheReason) {
  EXPECT_EQ(Refusal("threads=5", "threads=0"),
            "machine: line 2: field threads wants a whole number of at least 1, got \"0\"");
  EXPECT_EQ(Refusal("threads=5", "threads"), "machine: line 2: fields are written name=value, got \"threads\"");
  EXPECT_EQ(Refusal("threads=5", "threads=5\nthreads=5"), "machine: line 3: field threads is given twice");
  EXPECT_EQ(Refusal("gflops_AVX2=50.1,", "gflops_AVX2=50.1;"),
            "machine: line 4: field gflops_AVX2 wants two positive numbers, of one thread and of all, got "
            "\"50.1;0.30000000000000004\"");
  EXPECT_EQ(Refusal("l1=32768,200,1000", "l1=32768,200"),
            "machine: line 6: field l1 wants bytes, GB/s of one thread and GB/s of all, three positive numbers, got "
            "\"32768,200\"");
  EXPECT_EQ(Refusal("l1=32768,200,1000", "l1=32768,nan,1000").substr(0, 26), "machine: line 6: field l1 ");
  EXPECT_EQ(Refusal("l1=32768,200,1000\n", ""), "machine: field l1 is missing");
  EXPECT_EQ(
      Refusal("l1=32768", "l1=2000000"),
      "machine: l1, l2, l3 and memory must not shrink from one to the next, got l1=2000000 l2=1048576 l3=33554432 "
      "memory=1099511627776");
  EXPECT_EQ(Refusal("cpu=a CPU = with (signs)", "cpu="), "machine: line 1: field cpu wants a name");
  EXPECT_EQ(Refusal("l2=", "l4=").substr(0, 40), "machine: line 7: unknown field \"l4\", the");
  EXPECT_EQ(ParseMachine("cpu=x\nthreads=1\nl1=1,1,1\nl2=1,1,1\nl3=1,1,1\nmemory=1,1,1").status().message(),
            "machine: at least one field gflops_<SIMD target> must be given");
  EXPECT_EQ(ParseMachine("").status().message(), "machine: field cpu is missing");
}

TEST(MeasureMachine, GivesEveryFigure) {
  const auto pool = MakeThreadPool(2);
  ASSERT_TRUE(pool.ok());
  const Machine m = MeasureMachine(**pool);
  ExpectComplete(m);
  EXPECT_EQ(m.threads, 2);
  EXPECT_TRUE(ParseMachine(ToString(m)).ok());
}

}  // namespace
}  // namespace lamina
