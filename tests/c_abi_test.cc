// The C interface: what it takes, what it refuses and with which sentence, and that nothing but a status comes out.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "lamina/c.h"
#include "lamina/version.h"

extern "C" int lamina_test_convolution(char* message, size_t bytes);  // c_abi_test.c

namespace {

constexpr const char* kText = "conv2d ih=2 iw=3 ic=4 oc=5 residual=after";

lamina_context ReferenceContext() {
  lamina_context c = {};
  c.size = sizeof(c);
  c.backend = LAMINA_BACKEND_REFERENCE;
  return c;
}

// The tensors of a problem, each with memory of its own filled with ones.
struct Problem {
  explicit Problem(const char* text) {
    size_t count = 0;
    EXPECT_EQ(lamina_tensors(text, nullptr, 0, &count), LAMINA_OK) << lamina_last_error();
    tensors.resize(count);
    tensors[0].size = sizeof(lamina_tensor);
    EXPECT_EQ(lamina_tensors(text, tensors.data(), count, &count), LAMINA_OK) << lamina_last_error();
    memory.reserve(count);
    for (lamina_tensor& t : tensors) {
      size_t elements = 1;
      for (int i = 0; i < t.ndim; ++i) {
        if (t.shape[i] > 1) elements += static_cast<size_t>((t.shape[i] - 1) * t.strides[i]);
      }
      memory.emplace_back(elements, 1.0f);
      t.data = memory.back().data();
      if (t.dtype == LAMINA_BOOL) std::memset(t.data, 1, elements);
      if (t.optional) t.data = nullptr;
      weights += t.role == LAMINA_WEIGHT;
    }
  }
  lamina_tensor& operator[](const std::string& name) {
    for (lamina_tensor& t : tensors) {
      if (t.name == name) return t;
    }
    ADD_FAILURE() << "no tensor " << name;
    return tensors[0];
  }
  lamina_operator* Prepare(const char* text) {
    const lamina_context c = ReferenceContext();
    lamina_operator* op = nullptr;
    EXPECT_EQ(lamina_prepare(text, tensors.data(), weights, &c, &op), LAMINA_OK) << lamina_last_error();
    return op;
  }
  float first(const std::string& name) { return *static_cast<float*>((*this)[name].data); }
  int32_t Run(lamina_operator* op) { return lamina_run(op, &tensors[weights], tensors.size() - weights, nullptr, 0); }

  std::vector<lamina_tensor> tensors;
  std::vector<std::vector<float>> memory;
  size_t weights = 0;
};

TEST(CAbi, ServesC11) {
  char message[512] = "";
  EXPECT_EQ(lamina_test_convolution(message, sizeof(message)), 0) << message;
}

TEST(CAbi, TellsVersionAndBuild) {
  EXPECT_EQ(std::string(lamina_version()), lamina::BuildInfo().version);
  const std::string info = lamina_build_info();
  EXPECT_NE(info.find(lamina_version()), std::string::npos) << info;
  EXPECT_NE(info.find(lamina::BuildInfo().cuda ? "with CUDA" : "built without CUDA"), std::string::npos) << info;
  for (lamina::Isa isa : lamina::SupportedIsas()) {
    EXPECT_NE(info.find(lamina::ToString(isa)), std::string::npos) << info;
  }
}

TEST(CAbi, RunsAndAnswersQuestions) {
  Problem p(kText);
  lamina_operator* op = p.Prepare(kText);
  ASSERT_NE(op, nullptr);
  ASSERT_EQ(p.Run(op), LAMINA_OK) << lamina_last_error();
  for (size_t i = 0; i < 30; ++i)
    EXPECT_EQ(static_cast<float*>(p["y"].data)[i], 4 + 1 + 1) << i;  // sum, bias, residual
  const char* text = nullptr;
  ASSERT_EQ(lamina_implementation(op, &text), LAMINA_OK);
  EXPECT_EQ(std::string(text), "reference/naive");
  ASSERT_EQ(lamina_descriptor(op, &text), LAMINA_OK);
  EXPECT_EQ(std::string(text), kText);
  ASSERT_EQ(lamina_explain(op, &text), LAMINA_OK);
  EXPECT_NE(std::string(text).find("reference/naive"), std::string::npos);
  size_t bytes = 0;
  ASSERT_EQ(lamina_packed_bytes(op, &bytes), LAMINA_OK);
  EXPECT_EQ(bytes, (4 * 5 + 5) * sizeof(float));
  ASSERT_EQ(lamina_scratch_bytes(op, &bytes), LAMINA_OK);

  // Scratch of one's own, too small and right.
  std::vector<std::byte> memory(bytes + 64);
  void* scratch = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  ASSERT_GT(bytes, 0u);
  const lamina_tensor* tensors = &p.tensors[p.weights];
  EXPECT_EQ(lamina_run(op, tensors, 3, scratch, bytes - 1), LAMINA_INVALID_ARGUMENT);
  EXPECT_NE(std::string(lamina_last_error()).find("scratch must be " + std::to_string(bytes) + " bytes"),
            std::string::npos);
  EXPECT_EQ(lamina_run(op, tensors, 3, scratch, bytes), LAMINA_OK) << lamina_last_error();

  // Reshape shares the weights; what must not change is refused.
  lamina_operator* more = nullptr;
  const char* larger = "conv2d n=2 ih=3 iw=3 ic=4 oc=5 residual=after";
  ASSERT_EQ(lamina_reshape(op, larger, &more), LAMINA_OK) << lamina_last_error();
  lamina_destroy(op);
  Problem q(larger);
  ASSERT_EQ(q.Run(more), LAMINA_OK) << lamina_last_error();
  EXPECT_EQ(static_cast<float*>(q["y"].data)[2 * 9 * 5 - 1], 6);
  lamina_operator* other = nullptr;
  EXPECT_EQ(lamina_reshape(more, "conv2d ih=3 iw=3 ic=4 oc=6 residual=after", &other), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(other, nullptr);
  EXPECT_EQ(lamina_reshape(more, "fully_connected ic=1 oc=1", &other), LAMINA_INVALID_ARGUMENT);
  EXPECT_NE(std::string(lamina_last_error()).find("Reshape keeps the operator"), std::string::npos);
  lamina_destroy(more);
}

// Inputs and weights are ones, so that outputs are known.
TEST(CAbi, ServesEveryOperator) {
  const struct {
    const char *text, *output;
    float want;
  } cases[] = {
      {"conv2d ih=3 iw=3 ic=2 oc=4 kh=3 kw=3 layout=nchw weight_layout=oihw x_stride=20 groups=2", "y", 10},
      {"separable_conv2d ih=4 iw=4 ic=2 oc=3 order=pw_dw x_stride=3", "y", 28},
      {"separable_conv2d ih=4 iw=4 ic=2 oc=3 hidden=4 order=pw_dw_pw residual=after depthwise_bias=0", "y", 110},
      {"fully_connected m=3 ic=5 oc=7 x_stride=6 y_stride=9 weight_layout=io residual=before", "y", 7},
      {"additive_attention queries=2 keys=3 query_dim=4 key_dim=5 units=6 mask=1 normalized=1 bias=1", "context", 1},
      {"multi_head_attention num_heads=4 num_kv_heads=2 seqlen_q=2 seqlen_kv=3 head_dim=8 mask=1 bias=1 alibi=1 "
       "layout=bhsd",
       "o", 1},
      {"multi_head_attention num_heads=2 seqlen_q=3 seqlen_kv=3 head_dim=4 projections=1 model_dim=5 y_stride=6", "y",
       49},
  };
  for (const auto& c : cases) {
    for (int32_t backend : {LAMINA_BACKEND_REFERENCE, LAMINA_BACKEND_CPU}) {
      Problem p(c.text);
      lamina_context context = ReferenceContext();
      context.backend = backend;
      lamina_operator* op = nullptr;
      ASSERT_EQ(lamina_prepare(c.text, p.tensors.data(), p.weights, &context, &op), LAMINA_OK) << lamina_last_error();
      ASSERT_EQ(p.Run(op), LAMINA_OK) << lamina_last_error();
      EXPECT_NEAR(p.first(c.output), c.want, 1e-4) << c.text;
      lamina_destroy(op);
    }
  }
}

TEST(CAbi, PreparesKeysOnce) {
  const char* text = "additive_attention queries=2 keys=3 query_dim=4 key_dim=5 units=6 value_dim=7";
  Problem p(text);
  lamina_operator* op = nullptr;
  ASSERT_EQ(lamina_prepare(text, p.tensors.data(), p.weights, nullptr, &op), LAMINA_OK) << lamina_last_error();
  size_t bytes = 0;
  ASSERT_EQ(lamina_prepared_keys_bytes(op, &bytes), LAMINA_OK) << lamina_last_error();
  std::vector<std::byte> memory(bytes + 64);
  void* prepared = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  std::vector<float> keys(3 * 5, 1.0f);
  lamina_tensor& given = p["keys"];
  given.data = keys.data();
  ASSERT_EQ(lamina_prepare_keys(op, &given, 1, prepared, nullptr, 0), LAMINA_OK) << lamina_last_error();
  given.data = nullptr;
  EXPECT_EQ(p["prepared_keys"].shape[0], -1);
  p["prepared_keys"].data = prepared;
  EXPECT_EQ(p.Run(op), LAMINA_INVALID_ARGUMENT);
  EXPECT_NE(
      std::string(lamina_last_error()).find("tensor prepared_keys: shape must be [" + std::to_string(bytes) + "]"),
      std::string::npos)
      << lamina_last_error();
  p["prepared_keys"].shape[0] = static_cast<int64_t>(bytes);
  EXPECT_EQ(p.Run(op), LAMINA_OK) << lamina_last_error();
  EXPECT_NEAR(p.first("context"), 1, 1e-5);
  lamina_destroy(op);
}

TEST(CAbi, KnowsCostAndCandidates) {
  lamina_cost cost = {};
  cost.size = sizeof(cost);
  ASSERT_EQ(lamina_cost_of(kText, &cost), LAMINA_OK) << lamina_last_error();
  EXPECT_EQ(cost.macs, 2 * 3 * 4 * 5);
  EXPECT_EQ(cost.flops, 2 * cost.macs);
  EXPECT_EQ(cost.params, 4 * 5 + 5);
  EXPECT_EQ(cost.size, sizeof(cost));
  const lamina_context context = ReferenceContext();
  std::vector<std::string> names;
  const auto visit = [](void* arg, const lamina_candidate* c) {
    EXPECT_EQ(c->refusal, nullptr);
    static_cast<std::vector<std::string>*>(arg)->push_back(c->name);
  };
  ASSERT_EQ(lamina_candidates(kText, &context, visit, &names), LAMINA_OK) << lamina_last_error();
  EXPECT_EQ(names, std::vector<std::string>{"reference/naive"});
}

TEST(CAbi, ThreadPools) {
  lamina_pool* pool = nullptr;
  EXPECT_EQ(lamina_pool_create(0, LAMINA_IDLE_SLEEP, &pool), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(pool, nullptr);
  EXPECT_EQ(lamina_pool_create(2, 7, &pool), LAMINA_INVALID_ARGUMENT);
  EXPECT_STREQ(lamina_last_error(), "thread pool: idle must be a member of Idle, got 7");
  ASSERT_EQ(lamina_pool_create(2, LAMINA_IDLE_SPIN, &pool), LAMINA_OK);
  lamina_pool_destroy(pool);

  lamina_pool_functions functions = {};
  functions.size = sizeof(functions);
  EXPECT_EQ(lamina_pool_wrap(&functions, &pool), LAMINA_INVALID_ARGUMENT);
  static int calls;
  functions.num_threads = [](void*) { return size_t{3}; };
  functions.parallel_for = [](void*, size_t count, void (*task)(void*, size_t), void* arg) {
    ++calls;
    for (size_t i = count; i-- > 0;) task(arg, i);  // any order will do
  };
  ASSERT_EQ(lamina_pool_wrap(&functions, &pool), LAMINA_OK) << lamina_last_error();
  lamina_context context = ReferenceContext();
  context.pool = pool;
  Problem p(kText);
  lamina_operator* op = nullptr;
  ASSERT_EQ(lamina_prepare(kText, p.tensors.data(), p.weights, &context, &op), LAMINA_OK) << lamina_last_error();
  EXPECT_EQ(p.Run(op), LAMINA_OK) << lamina_last_error();
  lamina_destroy(op);
  lamina_pool_destroy(pool);
  lamina_pool_destroy(nullptr);
  lamina_destroy(nullptr);
}

// ---- What is refused. Each changes one thing of a problem that runs and wants these words in the sentence.

class Refusals : public testing::Test {
 protected:
  void SetUp() override { op_ = problem_.Prepare(kText); }
  void TearDown() override { lamina_destroy(op_); }
  void Expect(const std::string& words) {
    EXPECT_EQ(problem_.Run(op_), LAMINA_INVALID_ARGUMENT);
    EXPECT_EQ(std::string(lamina_last_error()), std::string(kText) + ": " + words);
  }
  Problem problem_{kText};
  lamina_operator* op_ = nullptr;
};

TEST_F(Refusals, DType) {
  problem_["x"].dtype = LAMINA_BF16;
  Expect("tensor x: dtype must be f32, got bf16");
}
TEST_F(Refusals, UnknownDType) {
  problem_["x"].dtype = 77;
  Expect("tensor x: dtype must be f32, got 77");
}
TEST_F(Refusals, Device) {
  problem_["y"].device = LAMINA_DEVICE_CUDA;
  Expect("tensor y: device must be cpu, got cuda");
}
TEST_F(Refusals, Shape) {
  problem_["x"].shape[3] = 5;
  Expect("tensor x: shape must be [1, 2, 3, 4], got [1, 2, 3, 5]");
}
TEST_F(Refusals, Dimensions) {
  problem_["x"].ndim = 3;
  Expect("tensor x: shape must be [1, 2, 3, 4], got [1, 2, 3]");
  problem_["x"].ndim = 99;
  Expect("tensor x: shape must be [1, 2, 3, 4], got ndim=99");
}
TEST_F(Refusals, LayoutByStrides) {
  const int64_t nchw[] = {24, 3, 1, 6};
  std::copy(nchw, nchw + 4, problem_["x"].strides);
  Expect("tensor x: strides must be [24, 12, 4, 1], got [24, 3, 1, 6]");
}
TEST_F(Refusals, DenseStridesMayBeLeftOut) {
  std::fill_n(problem_["x"].strides, LAMINA_MAX_DIMS, 0);
  problem_["x"].shape[4] = 9;  // behind ndim: not looked at
  EXPECT_EQ(problem_.Run(op_), LAMINA_OK) << lamina_last_error();
}
TEST_F(Refusals, Misaligned) {
  problem_["x"].data = static_cast<char*>(problem_["x"].data) + 2;
  Expect("tensor x: data must lie at a multiple of 4 bytes, got remainder=2");
}
TEST_F(Refusals, UnknownName) {
  problem_["x"].name = "input";
  Expect("unknown tensor \"input\", this call takes x y residual");
}
TEST_F(Refusals, NoName) {
  problem_["x"].name = nullptr;
  Expect("name of tensors[0] must not be null");
}
TEST_F(Refusals, Twice) {
  problem_["residual"].name = "x";
  problem_["x"].shape[0] = 1;
  Expect("tensor x is given twice");
}
TEST_F(Refusals, Missing) {
  problem_["residual"].data = nullptr;
  Expect("residual must not be null when the descriptor has one");
}
TEST_F(Refusals, StructSize) {
  problem_["x"].size = 16;
  Expect("size of tensors[0] must be sizeof(lamina_tensor)=" + std::to_string(sizeof(lamina_tensor)) + ", got 16");
}
TEST_F(Refusals, NullArray) {
  EXPECT_EQ(lamina_run(op_, nullptr, 2, nullptr, 0), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(std::string(lamina_last_error()), std::string(kText) + ": tensors must not be null, got count=2");
}
TEST_F(Refusals, PrepareKeysOfAnotherOperator) {
  size_t bytes = 0;
  EXPECT_EQ(lamina_prepared_keys_bytes(op_, &bytes), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(lamina_prepare_keys(op_, nullptr, 0, nullptr, nullptr, 0), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(std::string(lamina_last_error()), std::string(kText) + ": only additive_attention has keys to prepare");
}

TEST(CAbi, RefusesNonsense) {
  lamina_operator* op = reinterpret_cast<lamina_operator*>(1);
  EXPECT_EQ(lamina_prepare(nullptr, nullptr, 0, nullptr, &op), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(op, nullptr);
  EXPECT_EQ(std::string(lamina_last_error()), "desc must not be null");
  EXPECT_EQ(lamina_prepare("dense m=1", nullptr, 0, nullptr, &op), LAMINA_INVALID_ARGUMENT);
  EXPECT_NE(std::string(lamina_last_error()).find("one of conv2d"), std::string::npos) << lamina_last_error();
  EXPECT_EQ(lamina_prepare("", nullptr, 0, nullptr, &op), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(lamina_prepare("conv2d ih=0", nullptr, 0, nullptr, &op), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(lamina_prepare("conv2d ih=1 iw=1 ic=1 oc=1", nullptr, 0, nullptr, &op), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(std::string(lamina_last_error()), "conv2d ih=1 iw=1 ic=1 oc=1: weights.w must not be null");
  EXPECT_EQ(lamina_prepare("conv2d ih=1 iw=1 ic=1 oc=1", nullptr, 0, nullptr, nullptr), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(lamina_run(nullptr, nullptr, 0, nullptr, 0), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(lamina_reshape(nullptr, "conv2d", &op), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(lamina_tensors(kText, nullptr, 3, nullptr), LAMINA_INVALID_ARGUMENT);
  lamina_cost cost = {};
  EXPECT_EQ(lamina_cost_of(kText, &cost), LAMINA_INVALID_ARGUMENT);
  EXPECT_NE(std::string(lamina_last_error()).find("cost: size must be"), std::string::npos);
  lamina_context context = ReferenceContext();
  context.size = 8;
  EXPECT_EQ(lamina_candidates(
                kText, &context, [](void*, const lamina_candidate*) {}, nullptr),
            LAMINA_INVALID_ARGUMENT);
  context = ReferenceContext();
  context.backend = 9;
  EXPECT_EQ(lamina_candidates(
                kText, &context, [](void*, const lamina_candidate*) {}, nullptr),
            LAMINA_INVALID_ARGUMENT);
  context.backend = LAMINA_BACKEND_CUDA;
  const int32_t cuda = lamina_candidates(
      kText, &context, [](void*, const lamina_candidate*) {}, nullptr);
  EXPECT_TRUE(lamina::BuildInfo().cuda ? cuda == LAMINA_OK || cuda == LAMINA_UNSUPPORTED_HARDWARE
                                       : cuda == LAMINA_NOT_BUILT)
      << cuda;
  context = ReferenceContext();
  context.machine = "nonsense";
  EXPECT_EQ(lamina_candidates(
                kText, &context, [](void*, const lamina_candidate*) {}, nullptr),
            LAMINA_INVALID_ARGUMENT);
}

// A later version's struct: fields behind those known here must be zero, or the caller asks for what this cannot do.
TEST(CAbi, TakesLargerStructsWhoseNewFieldsAreZero) {
  struct Later {
    lamina_context context;
    int64_t more;
  } later = {ReferenceContext(), 0};
  later.context.size = sizeof(later);
  const auto visit = [](void*, const lamina_candidate*) {};
  EXPECT_EQ(lamina_candidates(kText, &later.context, visit, nullptr), LAMINA_OK) << lamina_last_error();
  later.more = 1;
  EXPECT_EQ(lamina_candidates(kText, &later.context, visit, nullptr), LAMINA_INVALID_ARGUMENT);
}

// What needs more memory than there is comes back as a status.
TEST(CAbi, OutOfMemoryIsAStatus) {
  Problem p("conv2d ih=1 iw=1 ic=1 oc=1");
  lamina_operator* op = p.Prepare("conv2d ih=1 iw=1 ic=1 oc=1");
  lamina_operator* huge = nullptr;
  ASSERT_EQ(lamina_reshape(op, "conv2d n=1000000000000000 ih=1 iw=1 ic=1 oc=1", &huge), LAMINA_OK)
      << lamina_last_error();
  std::fill_n(p["x"].strides, LAMINA_MAX_DIMS, 0);
  std::fill_n(p["y"].strides, LAMINA_MAX_DIMS, 0);
  p["x"].shape[0] = p["y"].shape[0] = 1000000000000000;
  EXPECT_EQ(p.Run(huge), LAMINA_OUT_OF_MEMORY);  // the reference's scratch: eight bytes an element
  EXPECT_NE(std::string(lamina_last_error()).find("no memory for"), std::string::npos) << lamina_last_error();
  lamina_destroy(huge);
  lamina_destroy(op);
}

TEST(CAbi, PackedWeightsGoThroughAFile) {
  const char* const text = "fully_connected m=2 ic=3 oc=5";
  const std::string path = testing::TempDir() + "lamina_c_packed_" + std::to_string(getpid());
  Problem p(text);
  lamina_operator *op = nullptr, *loaded = nullptr;
  ASSERT_EQ(lamina_prepare(text, p.tensors.data(), p.weights, nullptr, &op), LAMINA_OK) << lamina_last_error();
  ASSERT_EQ(lamina_save_packed(op, path.c_str()), LAMINA_OK) << lamina_last_error();
  ASSERT_EQ(lamina_load_packed(path.c_str(), nullptr, &loaded), LAMINA_OK) << lamina_last_error();
  const char* desc = nullptr;
  EXPECT_EQ(lamina_descriptor(loaded, &desc), LAMINA_OK);
  EXPECT_STREQ(desc, text);
  EXPECT_EQ(p.Run(loaded), LAMINA_OK) << lamina_last_error();
  EXPECT_EQ(p.first("y"), 4);
  lamina_destroy(loaded);
  lamina_destroy(op);
  std::remove(path.c_str());
  EXPECT_EQ(lamina_load_packed(path.c_str(), nullptr, &loaded), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(loaded, nullptr);
  EXPECT_EQ(std::string(lamina_last_error()), path + ": cannot read it: No such file or directory");
  EXPECT_EQ(lamina_load_packed(nullptr, nullptr, &loaded), LAMINA_INVALID_ARGUMENT);
  EXPECT_EQ(lamina_save_packed(nullptr, path.c_str()), LAMINA_INVALID_ARGUMENT);
}

TEST(CAbi, LastErrorBelongsToTheThread) {
  EXPECT_EQ(lamina_run(nullptr, nullptr, 0, nullptr, 0), LAMINA_INVALID_ARGUMENT);
  std::string there = "unset";
  std::thread([&] { there = lamina_last_error(); }).join();
  EXPECT_EQ(there, "");
  EXPECT_EQ(std::string(lamina_last_error()), "op must not be null");
}

}  // namespace
