// Parity on the emulated GPU, under both of its schedules: always the first thread that can go on, with copies that
// land at once; and always the last one, with copies that land when they are waited for.
#ifndef LAMINA_TESTS_CUDA_EMULATED_H_
#define LAMINA_TESTS_CUDA_EMULATED_H_

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "harness/parity.h"
#include "kernels/cuda/emulator/block.h"

namespace lamina::cuda::emulator {

// For what must not depend on the schedule.
template <class F>
void UnderBothSchedules(const F& f) {
  for (const bool other : {false, true}) {
    TheSchedule() = {.backward = other, .late = other};
    f();
  }
  TheSchedule() = {};
}

}  // namespace lamina::cuda::emulator

namespace lamina::harness {

// Every candidate of kCuda that takes `desc`, or the one of that name; `candidates` of them are expected, at least.
// They keep the tolerance of `accuracy`, or their own.
template <class Op>
void ExpectEmulatedParity(const typename Op::Desc& desc, int candidates = 1, uint64_t seed = 1,
                          const std::string& implementation = {}, std::optional<Accuracy> accuracy = {}) {
  cuda::emulator::UnderBothSchedules([&] {
    const ParityReport report = CheckParity<Op>(
        desc, {.backend = Backend::kCuda,
               .threads = {1},
               .implementation = implementation,
               .accuracy = accuracy,
               .seed = seed,
               .tensors = {{Fill::kExact, cuda::emulator::TheSchedule().late ? Guard::kBegin : Guard::kEnd},
                           {Fill::kNormal, Guard::kEnd}}});
    EXPECT_GE(report.passed, candidates) << ToString(desc);
    for (const std::string& failure : report.failures) ADD_FAILURE() << failure;
  });
}

}  // namespace lamina::harness

#endif  // LAMINA_TESTS_CUDA_EMULATED_H_
