// Packed weights as files: every candidate's come back as they were, and what is no such file is refused.
#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "harness/additive_attention.h"
#include "harness/conv2d.h"
#include "harness/fully_connected.h"
#include "harness/multi_head_attention.h"
#include "harness/problem.h"
#include "harness/separable_conv2d.h"
#include "lamina/problem.h"

namespace lamina {
namespace {

using harness::Case;
using harness::Fill;
using harness::Guard;
using harness::TensorStore;

class PackedWeights : public testing::Test {
 protected:
  PackedWeights() : path_(testing::TempDir() + "lamina_packed_" + std::to_string(getpid())) {}
  ~PackedWeights() override { std::remove(path_.c_str()); }

  std::string Bytes() const {
    std::ifstream in(path_, std::ios::binary);
    std::stringstream bytes;
    bytes << in.rdbuf();
    return bytes.str();
  }
  void Write(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }

  // Every candidate of every SIMD target that takes the problem.
  template <class Op>
  void ExpectRoundTrip(const Result<typename Op::Desc>& desc) {
    ASSERT_TRUE(desc.ok()) << desc.status().message();
    int trips = 0;
    for (const Isa isa : SupportedIsas()) {
      const auto reports = Op::Candidates(*desc, {.isa = isa});
      ASSERT_TRUE(reports.ok()) << reports.status().message();
      for (const CandidateReport& report : *reports) {
        if (report.accepted) ExpectRoundTrip<Op>(*desc, {.isa = isa, .implementation = report.name}), ++trips;
      }
    }
    EXPECT_GT(trips, 0) << ToString(*desc);
  }

  template <class Op>
  void ExpectRoundTrip(const typename Op::Desc& desc, const Context& context) {
    SCOPED_TRACE(ToString(desc) + " " + context.implementation);
    TensorStore store(Fill::kNormal, Guard::kEnd, 1);
    const Case<Op> c(desc, store);
    const auto op = Op::Prepare(desc, c.weights, context);
    ASSERT_TRUE(op.ok()) << op.status().message();
    ASSERT_TRUE(op->SavePacked(path_).ok());
    const std::string bytes = Bytes();
    mallopt(M_PERTURB, 0x5a);  // a byte that no packer has written would now be another
    const auto again = Op::Prepare(desc, c.weights, context);
    mallopt(M_PERTURB, 0);
    ASSERT_TRUE(again.ok() && again->SavePacked(path_).ok());
    EXPECT_TRUE(bytes == Bytes()) << "the same weights, other bytes";

    const auto loaded = Op::LoadPacked(path_);
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    EXPECT_EQ(loaded->implementation(), op->implementation());
    EXPECT_EQ(loaded->desc(), desc);
    EXPECT_EQ(loaded->packed_bytes(), op->packed_bytes());
    std::remove(path_.c_str());  // the mapping stays
    const auto outputs = [&](const Op& of) {
      store.PoisonOutputs();
      EXPECT_TRUE(Case<Op>::RunOnce(of, c.tensors, nullptr).ok());
      return store.OutputBytes();
    };
    EXPECT_TRUE(outputs(*op) == outputs(*loaded)) << "other bits";
    ASSERT_TRUE(loaded->SavePacked(path_).ok());  // what was loaded can be saved
    EXPECT_TRUE(bytes == Bytes());
  }

  const std::string path_;
};

TEST_F(PackedWeights, Conv2d) {
  for (const char* layout : {"", " layout=nchw", " weight_layout=oihw", " bias=0"}) {
    const std::string end = layout;
    ExpectRoundTrip<Conv2d>(ParseConv2d("conv2d n=2 ih=9 iw=11 ic=19 oc=35 kh=3 kw=3 pad_top=1 pad_left=1" + end));
    ExpectRoundTrip<Conv2d>(ParseConv2d("conv2d ih=9 iw=11 ic=24 oc=33" + end));
    ExpectRoundTrip<Conv2d>(ParseConv2d("conv2d ih=9 iw=11 ic=24 oc=36 groups=12 kh=3 kw=2" + end));
    ExpectRoundTrip<Conv2d>(ParseConv2d("conv2d ih=9 iw=11 ic=40 oc=44 groups=2 kh=3 kw=2" + end));
    ExpectRoundTrip<Conv2d>(ParseConv2d("conv2d ih=9 iw=11 ic=21 oc=21 groups=21 kh=3 kw=3 stride_w=2" + end));
  }
}

TEST_F(PackedWeights, SeparableConv2d) {
  for (const char* order : {"", " layout=nchw", " order=pw_dw", " order=pw_dw_pw hidden=30 ic=20 oc=20"}) {
    const std::string sizes = std::string(order).find("ic=") == std::string::npos ? " ic=20 oc=35" : "";
    ExpectRoundTrip<SeparableConv2d>(
        ParseSeparableConv2d("separable_conv2d ih=9 iw=8 pad_top=1 pad_left=1" + sizes + order));
  }
}

TEST_F(PackedWeights, FullyConnected) {
  for (const char* rows : {" m=1", " m=20", " m=20 weight_layout=io"}) {
    ExpectRoundTrip<FullyConnected>(ParseFullyConnected(std::string("fully_connected ic=50 oc=90") + rows));
  }
}

TEST_F(PackedWeights, AdditiveAttention) {
  for (const char* options : {"", " normalized=1 bias=1"}) {
    ExpectRoundTrip<AdditiveAttention>(ParseAdditiveAttention(
        std::string("additive_attention batch=2 queries=3 keys=9 query_dim=10 key_dim=12 units=21") + options));
  }
}

TEST_F(PackedWeights, MultiHeadAttention) {
  for (const char* options : {"", " projections=1 model_dim=32", " projections=1 model_dim=32 memory_dim=20"}) {
    ExpectRoundTrip<MultiHeadAttention>(ParseMultiHeadAttention(
        std::string("multi_head_attention num_heads=2 seqlen_q=5 seqlen_kv=5 head_dim=16") + options));
  }
}

// A matrix for one row is packed in wider panels than one for many: what is saved is what was prepared.
TEST_F(PackedWeights, AReshapedOperatorSavesWhatWasPrepared) {
  const FullyConnectedDesc one = *ParseFullyConnected("fully_connected m=1 ic=50 oc=90");
  TensorStore store(Fill::kNormal, Guard::kEnd, 1);
  const Case<FullyConnected> c(one, store);
  const auto op = FullyConnected::Prepare(one, c.weights);
  FullyConnectedDesc many = one;
  many.m = 30;
  ASSERT_TRUE(op.ok() && op->Reshape(many).ok());
  ASSERT_TRUE(op->Reshape(many)->SavePacked(path_).ok());
  const auto loaded = FullyConnected::LoadPacked(path_);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  EXPECT_EQ(loaded->desc(), one);
  EXPECT_TRUE(loaded->Reshape(many).ok());
}

class PackedFile : public PackedWeights {
 protected:
  PackedFile()
      : desc_(*ParseFullyConnected("fully_connected m=3 ic=20 oc=33")),
        store_(Fill::kNormal, Guard::kEnd, 1),
        case_(desc_, store_) {
    const auto op = FullyConnected::Prepare(desc_, case_.weights, {.isa = SupportedIsas().back()});
    EXPECT_TRUE(op.ok() && op->SavePacked(path_).ok());
    good_ = Bytes();
  }
  void ExpectRefused(const std::string& sentence, const Context& context = {}) const {
    const auto op = FullyConnected::LoadPacked(path_, context);
    ASSERT_FALSE(op.ok()) << sentence;
    EXPECT_EQ(op.status().message().find(path_), 0u) << op.status().message();
    EXPECT_NE(op.status().message().find(sentence), std::string::npos) << op.status().message();
  }
  // The file with the line that begins with `key` written anew.
  std::string With(const std::string& key, const std::string& value) const {
    const size_t at = good_.find("\n" + key + " ") + 1, end = good_.find('\n', at);
    return good_.substr(0, at) + key + " " + value + good_.substr(end);
  }

  FullyConnectedDesc desc_;
  TensorStore store_;
  Case<FullyConnected> case_;
  std::string good_;
};

TEST_F(PackedFile, TruncatedOrAlteredIsRefused) {
  for (const size_t bytes : {size_t{0}, size_t{5}, size_t{40}, size_t{150}, good_.size() / 2, good_.size() - 1}) {
    Write(good_.substr(0, bytes));
    const auto op = FullyConnected::LoadPacked(path_);
    EXPECT_FALSE(op.ok()) << bytes;
  }
  Write(good_.substr(0, good_.size() - 1));
  ExpectRefused("is cut short or altered: it must have " + std::to_string(good_.size()) + " bytes, got ");
  Write(good_.substr(0, good_.size() / 2));
  ExpectRefused("is cut short: part 1 of ");
  Write(good_ + "x");
  ExpectRefused("is cut short or altered: it must have ");
  // Every byte counts, padding too.
  for (size_t at = 0; at < good_.size(); at += at < 512 ? 1 : 61) {
    std::string altered = good_;
    altered[at] = static_cast<char>(altered[at] ^ 1);
    Write(altered);
    EXPECT_FALSE(FullyConnected::LoadPacked(path_).ok()) << at;
  }
  Write(good_);
  EXPECT_TRUE(FullyConnected::LoadPacked(path_).ok());
}

TEST_F(PackedFile, ForeignOnesAreRefused) {
  Write("GIF89a and more");
  ExpectRefused("is no file of packed weights");
  Write(With("format", "2"));
  ExpectRefused("has format 2, this library reads 1");
  Write(With("library", "9.9.9 abc"));
  ExpectRefused("was packed by lamina 9.9.9 abc, this is 0.");
  Write(With("cpu", "a Z80"));
  ExpectRefused("was packed for a Z80, this CPU is ");
  std::remove(path_.c_str());
  ExpectRefused("cannot read it: No such file or directory");
  EXPECT_FALSE(FullyConnected::LoadPacked(testing::TempDir()).ok());
}

TEST_F(PackedFile, OfAnotherOperatorOrContextIsRefused) {
  const auto other = Conv2d::LoadPacked(path_);
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.status().message().find("the text must begin with this name"), std::string::npos)
      << other.status().message();
  const std::string name = "cpu/" + std::string(ToString(SupportedIsas().back())) + "/packed_gemm";
  ExpectRefused("was packed for " + name + ", the context asks for reference/best", {.backend = Backend::kReference});
  ExpectRefused("the context asks for cpu/best and another", {.implementation = "another"});
  if (SupportedIsas().size() > 1) ExpectRefused("the context asks for cpu/", {.isa = SupportedIsas().front()});
  EXPECT_TRUE(FullyConnected::LoadPacked(path_, {.implementation = "packed_gemm"}).ok());
  EXPECT_TRUE(FullyConnected::LoadPacked(path_, {.isa = SupportedIsas().back()}).ok());
  const auto problem = PackedProblem(path_);
  ASSERT_TRUE(problem.ok());
  EXPECT_EQ(ToString(*problem), ToString(desc_));
}

TEST_F(PackedFile, OnlyTheCpusOperatorsAreSavedAndOnlyWhereItCanBeWritten) {
  const auto reference = FullyConnected::Prepare(desc_, case_.weights, {.backend = Backend::kReference});
  ASSERT_TRUE(reference.ok());
  EXPECT_NE(reference->SavePacked(path_).message().find("saved of the backend cpu, got reference/naive"),
            std::string::npos);
  EXPECT_EQ(Bytes(), good_) << "left alone";
  const auto op = FullyConnected::Prepare(desc_, case_.weights);
  ASSERT_TRUE(op.ok());
  EXPECT_EQ(op->SavePacked("/no/such/folder/file").message(),
            "/no/such/folder/file.part: cannot write it: No such file or directory");
}

}  // namespace
}  // namespace lamina
