// LAMINA_VERBOSE. It is read once a process, so each case is a process: a death test's child.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "harness/additive_attention.h"
#include "harness/conv2d.h"
#include "harness/network.h"
#include "lamina/problem.h"

namespace lamina {
namespace {

using harness::Case;
using harness::Fill;
using harness::Guard;
using harness::TensorStore;

constexpr const char* kConv =
    "conv2d ih=6 iw=6 ic=8 oc=8 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1 activation=clamp(0,6)";
constexpr const char* kAttention = "additive_attention keys=5 query_dim=4 key_dim=4 units=4";

template <class Op>
void RunTimes(const typename Op::Desc& desc, int runs, const Context& context = {}) {
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  const Case<Op> c(desc, store);
  const auto op = Op::Prepare(desc, c.weights, context);
  for (int i = 0; op.ok() && i < runs; ++i) {
    if (!op->Run(c.tensors).ok()) std::exit(3);
  }
}

std::string ReadAll(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// In a process in which LAMINA_VERBOSE is `value`, what f writes to the standard error.
template <class F>
std::string Told(const std::string& value, const F& f) {
  const std::string path = testing::TempDir() + "lamina_verbose_" + std::to_string(getpid());
  EXPECT_EXIT(
      {
        setenv("LAMINA_VERBOSE", value.c_str(), 1);
        if (std::freopen(path.c_str(), "w", stderr) == nullptr) std::exit(2);
        f();
        std::exit(0);
      },
      testing::ExitedWithCode(0), "");
  const std::string told = ReadAll(path);
  std::remove(path.c_str());
  return told;
}

// The lines without their times.
std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (!lines.empty()) {
      EXPECT_GT(std::stod(line.substr(line.rfind(',') + 1)), 0) << line;
      line.resize(line.rfind(','));
    }
    lines.push_back(line);
  }
  return lines;
}

TEST(Verbose, TellsEachEventInALine) {
  const Conv2dDesc desc = *ParseConv2d(kConv);
  const std::string told = Told("1", [&] { RunTimes<Conv2d>(desc, 2, {.backend = Backend::kReference}); });
  const std::string threads = std::to_string(AvailableThreads()), problem = "\"" + ToString(desc) + "\"," + threads;
  EXPECT_EQ(Lines(told),
            (std::vector<std::string>{"lamina_verbose,event,implementation,problem,threads,status,milliseconds",
                                      "lamina_verbose,prepare,reference/naive," + problem + ",ok",
                                      "lamina_verbose,run,reference/naive," + problem + ",ok",
                                      "lamina_verbose,run,reference/naive," + problem + ",ok"}));
}

TEST(Verbose, TellsWhatWasRefused) {
  const std::string told = Told("1", [] { RunTimes<Conv2d>(*ParseConv2d(kConv), 1, {.implementation = "no_such"}); });
  EXPECT_NE(told.find("lamina_verbose,prepare,,\"" + ToString(*ParseConv2d(kConv)) + "\",0,invalid_argument,"),
            std::string::npos)
      << told;
}

TEST(Verbose, TellsOfReshapeAndPreparedKeys) {
  const std::string told = Told("1", [] {
    TensorStore store(Fill::kNormal, Guard::kEnd, 1);
    AdditiveAttentionDesc longer = *ParseAdditiveAttention(kAttention);
    const Case<AdditiveAttention> c(longer, store);
    const auto op = AdditiveAttention::Prepare(longer, c.weights);
    longer.queries = 3;
    const auto reshaped = op->Reshape(longer);
    std::vector<std::byte> keys(op->prepared_keys_bytes() + 64);
    auto* aligned = keys.data() + (64 - reinterpret_cast<uintptr_t>(keys.data()) % 64) % 64;
    if (!reshaped.ok() || !op->PrepareKeys(c.tensors.keys, nullptr, aligned).ok()) std::exit(3);
  });
  for (const char* event : {",prepare,", ",reshape,", ",prepare_keys,"}) {
    EXPECT_NE(told.find(event), std::string::npos) << told;
  }
}

TEST(Verbose, RecordsEachProblemOnce) {
  const std::string path = testing::TempDir() + "lamina_record_" + std::to_string(getpid());
  EXPECT_EQ(Told("record:" + path,
                 [&] {
                   RunTimes<Conv2d>(*ParseConv2d(kConv), 2);
                   if (ReadAll(path).find("p1 x1: conv2d") == std::string::npos) std::exit(4);  // before the end, too
                   RunTimes<AdditiveAttention>(*ParseAdditiveAttention(kAttention), 1);
                   std::vector<std::thread> threads;
                   for (int i = 0; i < 3; ++i) threads.emplace_back([] { RunTimes<Conv2d>(*ParseConv2d(kConv), 5); });
                   for (std::thread& thread : threads) thread.join();
                   RunTimes<Conv2d>(*ParseConv2d(kConv), 1, {.implementation = "no_such"});
                 }),
            "");
  const auto network = harness::ParseNetwork(ReadAll(path), path);
  std::remove(path.c_str());
  ASSERT_TRUE(network.ok()) << network.status().message();
  ASSERT_EQ(network->layers.size(), 2u);
  EXPECT_EQ(ToString(network->layers[0].problem), ToString(*ParseConv2d(kConv)));
  EXPECT_EQ(network->layers[0].count, 17);
  EXPECT_EQ(ToString(network->layers[1].problem), ToString(*ParseAdditiveAttention(kAttention)));
  EXPECT_EQ(network->layers[1].count, 1);
}

TEST(Verbose, BadValuesAreSaidOnceAndIgnored) {
  const auto twice = [] { RunTimes<Conv2d>(*ParseConv2d(kConv), 2); };
  EXPECT_EQ(Told("yes", twice), "lamina: LAMINA_VERBOSE must be 0, 1 or record:FILE, got \"yes\"\n");
  EXPECT_EQ(Told("record:", twice), "lamina: LAMINA_VERBOSE must be 0, 1 or record:FILE, got \"record:\"\n");
  EXPECT_EQ(Told("record:/no/such/folder/file", twice),
            "lamina: LAMINA_VERBOSE: cannot write /no/such/folder/file: No such file or directory\n");
  EXPECT_EQ(Told("0", twice), "");
  EXPECT_EQ(Told("", twice), "");
}

}  // namespace
}  // namespace lamina
