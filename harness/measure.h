// Times pieces of work in turns, so that a machine's slow moments fall on all of them alike.
#ifndef LAMINA_HARNESS_MEASURE_H_
#define LAMINA_HARNESS_MEASURE_H_

#include <cstdint>
#include <functional>
#include <vector>

namespace lamina::harness {

// Times of one call in nanoseconds; each sample is the mean of some calls in a row.
struct Timing {
  std::vector<double> samples;
  int64_t calls = 0;  // in all

  double median() const;
  double min() const;
  void Add(const Timing& other);
};

// Runs each of `bodies` for about `seconds` in all and at least three samples, taking turns sample by sample. A sample
// is at least about a millisecond. Each body is run twice beforehand.
std::vector<Timing> MeasureInTurns(const std::vector<std::function<void()>>& bodies, double seconds);

// As MeasureInTurns for one body, but each sample is one call, before which 64 MiB are written: what the body reads
// lies in no L1 or L2, and in an L3 that is shared at most in part.
Timing MeasureCold(const std::function<void()>& body, double seconds);

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_MEASURE_H_
