#include "harness/measure.h"

#include <algorithm>
#include <chrono>

namespace lamina::harness {
namespace {

double NsOf(const std::function<void()>& body, int64_t calls) {
  const auto start = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < calls; ++i) body();
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

double Timing::median() const {
  if (samples.empty()) return 0;
  std::vector<double> sorted = samples;
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

double Timing::min() const { return samples.empty() ? 0 : *std::min_element(samples.begin(), samples.end()); }

void Timing::Add(const Timing& other) {
  samples.insert(samples.end(), other.samples.begin(), other.samples.end());
  calls += other.calls;
}

std::vector<Timing> MeasureInTurns(const std::vector<std::function<void()>>& bodies, double seconds) {
  constexpr double kSampleNs = 1e6;
  std::vector<Timing> timings(bodies.size());
  std::vector<int64_t> calls(bodies.size(), 1);
  double round_ns = 0;  // of one sample of each
  for (size_t i = 0; i < bodies.size(); ++i) {
    NsOf(bodies[i], 1);
    const double one = std::max(NsOf(bodies[i], 1), 10.0);
    calls[i] = std::max<int64_t>(1, static_cast<int64_t>(kSampleNs / one));
    round_ns += one * static_cast<double>(calls[i]);
  }
  const int rounds = std::max(3, static_cast<int>(seconds * 1e9 * static_cast<double>(bodies.size()) / round_ns));
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < bodies.size(); ++i) {
      timings[i].samples.push_back(NsOf(bodies[i], calls[i]) / static_cast<double>(calls[i]));
      timings[i].calls += calls[i];
    }
  }
  return timings;
}

Timing MeasureCold(const std::function<void()>& body, double seconds) {
  constexpr size_t kFlushedFloats = size_t{64} << 18, kLineFloats = 16;
  std::vector<float> lines(kFlushedFloats);
  NsOf(body, 1);
  Timing timing;
  const auto start = std::chrono::steady_clock::now();
  while (timing.calls < 3 ||
         std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds) {
    for (size_t i = 0; i < kFlushedFloats; i += kLineFloats) lines[i] += 1;
    timing.samples.push_back(NsOf(body, 1));
    ++timing.calls;
  }
  return timing;
}

}  // namespace lamina::harness
