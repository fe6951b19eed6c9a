// The `lamina` program as a user meets it: exit codes, sentences, closing lines, JSON.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace lamina {
namespace {

struct Outcome {
  int code = -1;
  std::string out;  // both streams
};

Outcome Shell(const std::string& command) {
  Outcome outcome;
  std::FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> buffer;
  for (size_t n; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) outcome.out.append(buffer.data(), n);
  const int status = pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

Outcome Lamina(const std::string& arguments) { return Shell(std::string(LAMINA_PROGRAM) + " " + arguments); }

bool Has(const Outcome& outcome, const std::string& text) { return outcome.out.find(text) != std::string::npos; }

std::string TemporaryFile(const std::string& name, const std::string& text = "") {
  const std::string path = testing::TempDir() + "lamina_" + std::to_string(getpid()) + "_" + name;
  std::ofstream(path) << text;
  return path;
}

nlohmann::json ReadJson(const std::string& path) {
  std::ifstream in(path);
  return nlohmann::json::parse(in);
}

// Roofs, so that nothing is measured that a test need not wait for.
std::string MachineFile() {
  return TemporaryFile("machine",
                       "cpu=a test's\nthreads=2\ngflops_scalar=10,20\ngflops_AVX2=50,100\nl1=32768,100,200\n"
                       "l2=1048576,50,100\nl3=33554432,20,40\nmemory=1099511627776,10,20\n");
}

constexpr const char* kConv = "\"conv2d ih=6 iw=6 ic=8 oc=8 kh=3 kw=3 pad_top=1 pad_left=1 pad_bottom=1 pad_right=1\"";

void ExpectWrong(const std::string& arguments, const std::string& sentence) {
  const Outcome outcome = Lamina(arguments);
  EXPECT_EQ(outcome.code, 2) << arguments << "\n" << outcome.out;
  EXPECT_TRUE(Has(outcome, sentence)) << arguments << "\n" << outcome.out;
}

TEST(Program, EverySubcommandHelps) {
  EXPECT_EQ(Lamina("--help").code, 0);
  for (const char* command : {"compare", "check", "bench", "cost", "explain", "regret", "roof"}) {
    const Outcome outcome = Lamina(std::string(command) + " --help");
    EXPECT_EQ(outcome.code, 0);
    EXPECT_TRUE(Has(outcome, "--json")) << outcome.out;
  }
}

TEST(Program, RefusesWrongRequestsWithASentence) {
  ExpectWrong("", "A subcommand is required");
  ExpectWrong("cost",
              "lamina: no problem given: write one as arguments, or use --batch FILE, --network NAME or --suite");
  ExpectWrong("cost --network alexnet", "lamina: unknown network \"alexnet\", the networks are bahdanau");
  ExpectWrong("cost --batch /nonexistent/file", "lamina: cannot read /nonexistent/file: No such file or directory");
  ExpectWrong("cost --batch /", "lamina: cannot read /: Is a directory");
  ExpectWrong("cost pooling ih=1", "lamina: a problem begins with its operator, one of conv2d");
  ExpectWrong("cost conv2d ih=x", "lamina: conv2d: field ih wants an integer, got \"x\"");
  ExpectWrong("cost conv2d ih=4 iw=4 ic=0 oc=1", "ih, iw, ic and oc must be at least 1");
  ExpectWrong("cost --width 0.5 conv2d ih=4", "lamina: --width and --resolution are of a network");
  ExpectWrong("cost --network mobilenet_v1 --width 0", "lamina: width must be more than 0 and at most 16, got 0");
  ExpectWrong("cost --network mobilenet_v1 --resolution 100", "must be a multiple of 32");
  ExpectWrong("cost --network mobilenet_v1 --resolution 0", "resolution must be at least 1, got 0");
  ExpectWrong("cost --network resnet_50 --width 0.5", "lamina: width: this network has no width multiplier");
  ExpectWrong("cost --network mobilenet_v1 --form dense", "lamina: --form must be one of as_written");
  for (const char* command : {"check", "bench", "explain", "compare", "regret", "roof"}) {
    const std::string problem = std::string(command) == "roof" ? "" : std::string(" ") + kConv;
    ExpectWrong(command + problem + " --threads 0", "lamina: --threads must be between 1 and 4096, got 0");
    ExpectWrong(command + problem + " --threads two", "--threads");
    ExpectWrong(command + problem + " --json", "--json");
  }
  ExpectWrong(std::string("compare --accuracy low ") + kConv,
              "lamina: accuracy must be one of default strict reduced, got \"low\"");
  ExpectWrong(std::string("bench --isa AVX9 ") + kConv,
              "lamina: isa must be one of best scalar SSE4 AVX2 AVX3, got \"AVX9\"");
  ExpectWrong(std::string("bench --backend gpu ") + kConv,
              "lamina: backend must be one of cpu reference cuda, got \"gpu\"");
  ExpectWrong(std::string("check --backend cuda ") + kConv, "backend cuda is not available");
  ExpectWrong(std::string("bench --seconds 0 ") + kConv, "lamina: --seconds must be more than 0");
  ExpectWrong(std::string("regret --seconds 0 ") + kConv, "lamina: --seconds must be more than 0");
  ExpectWrong(std::string("bench --machine /nonexistent ") + kConv, "lamina: cannot read /nonexistent");
  ExpectWrong(std::string("bench --machine ") + TemporaryFile("bad", "cpu") + " " + kConv,
              "machine: line 1: fields are written name=value");
  ExpectWrong(std::string("check --implementation none ") + kConv,
              "lamina: --implementation: no candidate is named \"none\"");
  ExpectWrong("compare --network bert_base --machine " + MachineFile(), "lamina: there is nothing to compare");
  ExpectWrong(std::string("compare --batch 0 ") + kConv, "lamina: --batch must be at least 1, got 0");
  ExpectWrong(std::string("cost --json /nonexistent/file ") + kConv, "lamina: cannot write /nonexistent/file");
}

TEST(Program, NamesTheLineOfAMalformedFile) {
  const std::string path = TemporaryFile("batch", "a: conv2d ih=4 iw=4 ic=1 oc=1\n# fine\nb: conv2d ih=4 iw=q\n");
  for (const char* command : {"check", "bench", "cost", "explain", "regret"}) {
    ExpectWrong(std::string(command) + " --batch " + path,
                "lamina: " + path + ": line 3: conv2d: field iw wants an integer, got \"q\"");
  }
}

TEST(Program, CostAddsUp) {
  const std::string json = TemporaryFile("cost.json");
  const Outcome outcome = Lamina("cost --network bert_base --json " + json);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(Has(outcome, "109482240")) << outcome.out;
  EXPECT_EQ(ReadJson(json)["total"]["params"], 109482240);
  EXPECT_TRUE(Has(Lamina("cost --network mobilenet_v1 --form standard"), "4867293184"));
}

TEST(Program, ProblemsNeedNoQuotes) {
  const Outcome outcome = Lamina("cost conv2d ih=4 iw=4 ic=2 oc=3 bias=0 fully_connected ic=5 oc=7 bias=0");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(Has(outcome, "#2: fully_connected ic=5 oc=7 bias=0")) << outcome.out;
  EXPECT_TRUE(Has(outcome, std::to_string(2 * 3 + 5 * 7))) << outcome.out;
}

TEST(Program, CheckClosesWithItsCounts) {
  const std::string json = TemporaryFile("check.json");
  const Outcome outcome = Lamina(std::string("check --json ") + json + " " + kConv);
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  const auto report = ReadJson(json);
  EXPECT_GT(report["passed"], 0);
  const std::string last = std::to_string(report["passed"].get<int>()) + " passed, 0 failed, " +
                           std::to_string(report["refused"].get<int>()) + " refused\n";
  EXPECT_TRUE(outcome.out.ends_with(last)) << outcome.out;
}

TEST(Program, CheckTakesABackendAndATarget) {
  const Outcome outcome = Lamina(std::string("check --backend reference ") + kConv);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(outcome.out.ends_with("1 passed, 0 failed, 0 refused\n")) << outcome.out;
  EXPECT_EQ(Lamina(std::string("check --isa scalar --threads 2 ") + kConv).code, 0);
}

TEST(Program, ExplainNamesTheChoice) {
  const Outcome outcome = Lamina(std::string("explain ") + kConv);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(Has(outcome, "  * cpu/")) << outcome.out;
  EXPECT_TRUE(Has(outcome, "refused: ")) << outcome.out;
}

TEST(Program, BenchTimesAnyOperatorOnAnyBackend) {
  const std::string json = TemporaryFile("bench.json"), machine = MachineFile();
  for (const char* backend : {"cpu", "reference"}) {
    const Outcome outcome = Lamina(
        std::string("bench --seconds 0.001 --machine ") + machine + " --backend " + backend + " --json " + json + " " +
        kConv +
        " separable_conv2d ih=6 iw=6 ic=8 oc=8 fully_connected ic=9 oc=10 additive_attention keys=4 query_dim=5 " +
        "key_dim=6 units=7 multi_head_attention seqlen_q=3 seqlen_kv=4 head_dim=8");
    EXPECT_EQ(outcome.code, 0) << outcome.out;
    const auto report = ReadJson(json);
    EXPECT_EQ(report["context"]["executable"], "lamina");
    ASSERT_EQ(report["benchmarks"].size(), 5u);
    for (const auto& row : report["benchmarks"]) {
      EXPECT_GT(row["real_time"], 0);
      EXPECT_GT(row["prepare_time"], 0);
      EXPECT_GT(row["first_time"], 0);
      EXPECT_GT(row["gflops"], 0);
      EXPECT_EQ(row["time_unit"], "us");
      EXPECT_TRUE(row["label"].get<std::string>().starts_with(backend)) << row;
    }
  }
}

TEST(Program, BenchTimesColdCallsAndWholeNetworks) {
  const std::string json = TemporaryFile("whole.json");
  const std::string arguments = "bench --seconds 0.001 --machine " + MachineFile() + " --json " + json + " ";
  EXPECT_EQ(Lamina(arguments + "--cold " + kConv).code, 0);
  const auto cold = ReadJson(json)["benchmarks"];
  ASSERT_EQ(cold.size(), 1u);
  EXPECT_EQ(cold[0]["iterations"], 9);  // three calls on each of three allocations
  EXPECT_EQ(Lamina(arguments + "--end-to-end " + kConv + " fully_connected ic=9 oc=10").code, 0);
  const auto whole = ReadJson(json)["benchmarks"];
  ASSERT_EQ(whole.size(), 1u);
  EXPECT_EQ(whole[0]["name"], "end_to_end");
  EXPECT_EQ(whole[0]["label"], "2 layers");
  EXPECT_EQ(whole[0]["macs"], 6 * 6 * 9 * 8 * 8 + 9 * 10);
}

TEST(Program, RegretTimesEveryCandidateOnce) {
  const std::string json = TemporaryFile("regret.json");
  const std::string layer = "conv2d ih=9 iw=9 ic=16 oc=16 kh=3 kw=3";
  const std::string batch = TemporaryFile("regret", "a: " + layer + "\nagain: " + layer + "\n");
  const Outcome outcome = Lamina("regret --seconds 0.001 --threads 1 --json " + json + " --batch " + batch);
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_TRUE(Has(outcome, "in geometric mean")) << outcome.out;
  const auto rows = ReadJson(json);
  ASSERT_FALSE(rows.empty());
  EXPECT_EQ(rows[0]["name"], "a");
  EXPECT_EQ(rows[0]["candidates"].size(), 3u);  // two tiles of Winograd's, implicit GEMM
  EXPECT_GE(rows[0]["regret"].get<double>(), 1.0);
  for (const auto& row : rows) EXPECT_NE(row["name"], "again");
  EXPECT_TRUE(
      Has(Lamina("regret --seconds 0.001 --threads 1 fully_connected ic=3 oc=3"), "no problem with more than one"));
}

TEST(Program, RoofWritesWhatItReads) {
  const std::string saved = TemporaryFile("roof");
  const Outcome outcome = Lamina("roof --threads 1 --save " + saved);
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_TRUE(Has(outcome, "FMA peak")) << outcome.out;
  EXPECT_EQ(Lamina(std::string("bench --seconds 0.001 --machine ") + saved + " " + kConv).code, 0);
  EXPECT_EQ(Shell("LAMINA_MACHINE=" + saved + " " + LAMINA_PROGRAM + " explain " + kConv).code, 0);
}

TEST(Program, CompareShowsTheFormsAndMakesAPage) {
  const std::string json = TemporaryFile("compare.json"), page = TemporaryFile("compare.html");
  const Outcome outcome =
      Lamina("compare --network mobilenet_v1 --width 0.25 --resolution 32 --seconds 0.001 --machine " + MachineFile() +
             " --json " + json);
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_TRUE(Has(outcome, "whole network")) << outcome.out;
  EXPECT_TRUE(Has(outcome, "block13")) << outcome.out;
  const auto report = ReadJson(json);
  EXPECT_EQ(report["context"]["comparison"]["title"], "mobilenet_v1 0.25/32");
  EXPECT_EQ(report["benchmarks"].size(), 9u * 3 + 3);
  const auto& first = report["benchmarks"][1];
  EXPECT_EQ(first["name"], "block1/dw_pw");
  EXPECT_DOUBLE_EQ(first["theory_macs_ratio"].get<double>(), 1.0 / 16 + 1.0 / 9);
  std::string python;
  for (const char* tried : {LAMINA_SOURCE_DIR "/.venv/bin/python", "python3", "/usr/bin/python3"}) {
    if (python.empty() && Shell(std::string(tried) + " -c 'import matplotlib'").code == 0) python = tried;
  }
  if (python.empty()) GTEST_SKIP() << "no matplotlib: the page is not made";
  const Outcome made = Shell(python + " " LAMINA_SOURCE_DIR "/tools/report.py " + json + " " + page);
  EXPECT_EQ(made.code, 0) << made.out;
  std::ifstream in(page);
  const std::string html{std::istreambuf_iterator<char>(in), {}};
  EXPECT_NE(html.find("</html>"), std::string::npos);
  EXPECT_EQ(html.find(" src="), std::string::npos) << "the page must hold all that it shows";
}

TEST(Program, CompareTakesASingleProblemAndABatch) {
  const Outcome outcome = Lamina(std::string("compare --batch 2 --isa scalar --threads 1 --seconds 0.001 --machine ") +
                                 MachineFile() + " " + kConv);
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_TRUE(Has(outcome, "pw_dw")) << outcome.out;
  EXPECT_TRUE(Has(outcome, "2 images")) << outcome.out;
  EXPECT_FALSE(Has(outcome, "whole network")) << outcome.out;
}

}  // namespace
}  // namespace lamina
