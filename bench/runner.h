// What all bench programs share: rows of problems, each prepared, checked once against the reference, then timed by
// Google Benchmark on one thread and on all.
#ifndef LAMINA_BENCH_RUNNER_H_
#define LAMINA_BENCH_RUNNER_H_

#include <string>
#include <string_view>

#include "lamina/problem.h"

namespace lamina::bench {

// Adds rows "<name>/threads:1" and, with more than one at hand, "<name>/threads:<all>". Counters: GFLOP/s, GB/s (bytes
// that must move), params, percent of the roof that is measured here first. The label is the implementation.
void AddRows(const std::string& name, const Problem& problem);

// Adds the rows of bench/suite.txt that are of this operator, and runs. Returns main's exit code.
int RunSuite(std::string_view op, int argc, char** argv);

// Runs what was added.
int Run(int argc, char** argv);

}  // namespace lamina::bench

#endif  // LAMINA_BENCH_RUNNER_H_
