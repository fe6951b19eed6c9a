// Random problems of one operator from its whole parameter space, for as long as the clock allows.
//
// LAMINA_FUZZ_SECONDS: for each test of this program, 6 unless set. LAMINA_FUZZ_SEED: else from the clock; it is
// printed. A failing problem is made smaller while it still fails, and printed as a line for `lamina check`.
#ifndef LAMINA_TESTS_FUZZ_FUZZ_H_
#define LAMINA_TESTS_FUZZ_FUZZ_H_

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "harness/parity.h"
#include "lamina/cost.h"

namespace lamina::fuzz {

class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  int64_t Below(int64_t bound) { return static_cast<int64_t>(Next() % static_cast<uint64_t>(bound)); }
  int64_t Between(int64_t least, int64_t most) { return least + Below(most - least + 1); }
  bool Chance(int percent) { return Below(100) < percent; }
  // A size in [1, most]: small ones often, tile edges (powers of two and their neighbours) often, any at times.
  int64_t Size(int64_t most);
  // A stride of a slice: usually 0, else `dense` and a bit more.
  int64_t Stride(int64_t dense) { return Chance(75) ? 0 : dense + Below(9); }
  template <class T>
  T Pick(std::initializer_list<T> values) {
    return values.begin()[Below(static_cast<int64_t>(values.size()))];
  }
  Activation AnyActivation();
  Residual AnyResidual() {
    return Pick({Residual::kNone, Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation});
  }

 private:
  uint64_t state_;
};

// The seed of this process, printed once, and the time that a test may take.
uint64_t Seed();
std::chrono::steady_clock::duration Duration();

// A text with something about it changed: bytes, words, values. Rarely still a valid problem.
std::string MutateText(const std::string& text, const std::vector<std::string>& fields, Rng& rng);
// A text in which one field got a value from the edges of its type. Often a problem that must be refused.
std::string MutateField(const std::string& text, const std::vector<std::string>& fields, Rng& rng);
// Texts with one word fewer or one number halved, those that take most away first.
std::vector<std::string> Smaller(const std::string& text);

// The largest number in a text: a stride among them says how far a tensor reaches, which no cost tells.
int64_t LargestNumber(const std::string& text);

// Supplied by tests/fuzz/<op>.cc for each operator.
template <class Op>
struct Draw {
  // static Desc Any(Rng&): a problem, usually a valid one.
  // static void RunTimeSizes(Desc&, Rng&): other values for the fields that Reshape may change.
  // static Result<Desc> Parse(std::string_view text)
};

// The names of an operator's fields, as the parser's refusal of an unknown one lists them.
template <class Op>
std::vector<std::string> FieldNames() {
  const std::string name = ToString(typename Op::Desc{}).substr(0, ToString(typename Op::Desc{}).find(' '));
  const std::string refusal = Draw<Op>::Parse(name + " ?=1").status().message();
  constexpr std::string_view kBefore = "the fields are ";
  std::vector<std::string> names;
  for (size_t at = refusal.find(kBefore) + kBefore.size(); at < refusal.size();) {
    const size_t end = std::min(refusal.find(' ', at), refusal.size());
    names.push_back(refusal.substr(at, end - at));
    at = end + 1;
  }
  return names;
}

// What a random problem may cost: the reference is slow, and many small problems find more than one large one.
template <class Desc>
bool SmallEnough(const Desc& desc) {
  const Cost cost = CostOf(desc);
  return cost.macs <= 600'000 && cost.bytes() <= 2'000'000 && cost.transcendentals <= 300'000;
}

inline harness::ParityOptions OptionsFor(uint64_t seed) {
  using harness::Fill;
  using harness::Guard;
  harness::ParityOptions options;
  options.seed = seed;
  options.threads = {1, 2 + seed % 3};
  const Guard side = seed & 8 ? Guard::kEnd : Guard::kBegin, other = seed & 8 ? Guard::kBegin : Guard::kEnd;
  options.tensors = {{Fill::kExact, side}, {Fill::kNormal, other}};
  return options;
}

// "" or what went wrong when an operator prepared for `from` is reshaped to `to`.
template <class Op>
std::string CheckReshape(const typename Op::Desc& from, const typename Op::Desc& to, uint64_t seed) {
  harness::TensorStore store(harness::Fill::kNormal, harness::Guard::kEnd, seed);
  const harness::Case<Op> c(to, store);
  const std::vector<harness::Expected> expected = harness::ReferenceFor(c, Accuracy::kDefault);
  store.ProtectInputs();
  const auto op = Op::Prepare(from, c.weights, {.pool = &harness::PoolOf(2)});
  if (!op.ok()) return "Prepare: " + op.status().message();  // parity has shown that some candidate takes it
  const auto reshaped = op->Reshape(to);
  if (!reshaped.ok()) return "";  // a candidate may refuse other sizes, with a reason
  const auto scratch = harness::GuardedScratch(reshaped->scratch_bytes());
  store.PoisonOutputs();
  if (Status s = harness::Case<Op>::RunOnce(*reshaped, c.tensors, scratch->data()); !s.ok())
    return "Run: " + s.message();
  for (const harness::Expected& e : expected) {
    if (const harness::Comparison comparison = Compare(e); !comparison.ok) return comparison.message;
  }
  return harness::CheckGaps(store, expected);
}

// Element types that some candidate of the CPU takes.
template <class Desc>
bool Served(const Desc& desc) {
  return desc.dtype == DType::kF32;
}

// The first failure of parity, or "". On every target some candidate must take what is valid.
template <class Op>
std::string ParityFailure(const typename Op::Desc& desc, uint64_t seed) {
  const harness::ParityReport report = harness::CheckParity<Op>(desc, OptionsFor(seed));
  if (!report.failures.empty()) return report.failures.front();
  if (!Served(desc) || report.passed >= static_cast<int>(SupportedIsas().size())) return "";
  std::string refusals = "no candidate on some target";
  for (const std::string& refusal : report.refusals) refusals += "\n  " + refusal;
  return refusals;
}

template <class Op>
std::string Shrink(const typename Op::Desc& desc, uint64_t seed, std::string* failure) {
  std::string text = ToString(desc);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (bool smaller = true; smaller && std::chrono::steady_clock::now() < end;) {
    smaller = false;
    for (const std::string& attempt : Smaller(text)) {
      const auto d = Draw<Op>::Parse(attempt);
      if (!d.ok() || !d->Validate().ok()) continue;
      const std::string still = ParityFailure<Op>(*d, seed);
      if (still.empty()) continue;
      text = attempt;
      *failure = still;
      smaller = true;
      break;
    }
  }
  return text;
}

// A problem that is valid: parity of every candidate, and of one that was reshaped to it.
template <class Op>
void CheckValid(const typename Op::Desc& desc, Rng& rng, int* reshaped) {
  const uint64_t seed = rng.Next() % 100000;
  if (std::string failure = ParityFailure<Op>(desc, seed); !failure.empty()) {
    const std::string text = Shrink<Op>(desc, seed, &failure);
    ADD_FAILURE() << failure << "\nfound as: " << ToString(desc) << "\nagain by: lamina check \"" << text
                  << "\" --seed " << seed;
    return;
  }
  typename Op::Desc other = desc;
  Draw<Op>::RunTimeSizes(other, rng);
  if (Served(desc) && other.Validate().ok() && SmallEnough(other)) {
    const std::string failure = CheckReshape<Op>(desc, other, seed);
    EXPECT_EQ(failure, "") << "prepared for: " << ToString(desc) << "\nreshaped to:  " << ToString(other);
    ++*reshaped;
  }
}

// A problem that may be anything: refused with a sentence, or what it says.
template <class Op>
void CheckAny(const std::string& text, Rng& rng, int* refused, int* reshaped) {
  const auto desc = Draw<Op>::Parse(text);
  const Status status = desc.ok() ? desc->Validate() : desc.status();
  if (status.ok()) {
    if (SmallEnough(*desc) && LargestNumber(text) < 4096) {
      CheckValid<Op>(*desc, rng, reshaped);
    } else {
      EXPECT_TRUE(Op::Candidates(*desc).ok()) << text;
    }
    return;
  }
  ++*refused;
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << text;
  EXPECT_GT(status.message().size(), 20u) << text;
  if (!desc.ok()) return;
  EXPECT_EQ(status.message().rfind(ToString(*desc) + ": ", 0), 0u) << status.message();
  EXPECT_FALSE(Op::Prepare(*desc, {}).ok()) << text;
}

template <class Op>
void FuzzParity() {
  Rng rng(Seed());
  const std::vector<std::string> fields = FieldNames<Op>();
  const auto end = std::chrono::steady_clock::now() + Duration();
  int valid = 0, refused = 0, reshaped = 0;
  while (std::chrono::steady_clock::now() < end && !testing::Test::HasFailure()) {
    const auto desc = Draw<Op>::Any(rng);
    if (rng.Chance(15)) {
      CheckAny<Op>(MutateField(ToString(desc), fields, rng), rng, &refused, &reshaped);
    } else if (desc.Validate().ok() && SmallEnough(desc)) {
      ++valid;
      CheckValid<Op>(desc, rng, &reshaped);
    }
  }
  std::printf("%d problems in parity, %d of them reshaped too, %d refused\n", valid, reshaped, refused);
  EXPECT_GT(valid, 0);
}

// Whatever text the parser is given, it answers; and what it takes, it prints so that it reads the same again.
template <class Op>
void FuzzText() {
  Rng rng(Seed());
  const std::vector<std::string> fields = FieldNames<Op>();
  ASSERT_GT(fields.size(), 5u);
  const auto end = std::chrono::steady_clock::now() + Duration() / 6;
  int taken = 0, refused = 0;
  while (std::chrono::steady_clock::now() < end) {
    std::string text = ToString(Draw<Op>::Any(rng));
    for (int64_t i = rng.Below(3); i >= 0; --i) text = MutateText(text, fields, rng);
    const auto desc = Draw<Op>::Parse(text);
    if (!desc.ok()) {
      ++refused;
      EXPECT_FALSE(desc.status().message().empty()) << text;
      continue;
    }
    ++taken;
    const std::string printed = ToString(*desc);
    const auto again = Draw<Op>::Parse(printed);
    ASSERT_TRUE(again.ok()) << printed << "\n" << again.status().message();
    ASSERT_EQ(*again, *desc) << text << "\n" << printed;
    ASSERT_EQ(ToString(*again), printed);
    (void)desc->Validate();
  }
  std::printf("%d texts taken, %d refused\n", taken, refused);
  EXPECT_GT(taken, 0);
  EXPECT_GT(refused, 0);
}

}  // namespace lamina::fuzz

#define LAMINA_FUZZ(Op)                                \
  TEST(Fuzz, Op##Parity) { FuzzParity<lamina::Op>(); } \
  TEST(Fuzz, Op##Text) { FuzzText<lamina::Op>(); }

#endif  // LAMINA_TESTS_FUZZ_FUZZ_H_
