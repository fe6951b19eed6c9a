#include "bench/peers/protocol.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <stdexcept>

namespace peers {
namespace {

using Clock = std::chrono::steady_clock;

double NsOf(const std::function<void()>& run, int64_t calls) {
  const auto start = Clock::now();
  for (int64_t i = 0; i < calls; ++i) run();
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
}

// Evicts what the caches held by writing 64 MiB.
void Flush() {
  static std::vector<float> lines(16 << 20);
  for (size_t i = 0; i < lines.size(); i += 16) lines[i] += 1;
}

// As `lamina bench` samples (harness/measure.cc): each sample is the mean of the calls that fill a millisecond, at
// least three of them; cold: one call after a flush.
void Sample(const std::function<void()>& run, double seconds, bool cold, std::vector<double>& samples) {
  NsOf(run, 1);
  const double one = std::max(NsOf(run, 1), 10.0);
  const int64_t calls = cold ? 1 : std::max<int64_t>(1, static_cast<int64_t>(1e6 / one));
  if (one > 3e8) return samples.push_back(one);
  const int rounds =
      std::max(3, static_cast<int>(seconds * 1e9 / (one * static_cast<double>(calls) + (cold ? 1e7 : 0))));
  for (int i = 0; i < rounds; ++i) {
    if (cold) Flush();
    samples.push_back(NsOf(run, calls) / static_cast<double>(calls));
  }
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

struct Request {
  std::string row, variant, output;
  double seconds = 0;
  int allocations = 1, cold = 0;
  std::vector<Problem> problems;
};

Request Parse(const std::string& line) {
  Request request;
  std::istringstream words(line);
  words >> request.row >> request.seconds >> request.allocations >> request.cold >> request.variant >> request.output;
  bool begins = true;
  for (std::string word; words >> word;) {
    if (word == ";") {
      begins = true;
    } else if (begins) {
      request.problems.push_back({word, {}});
      begins = false;
    } else {
      const size_t equals = word.find('=');
      request.problems.back().fields[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }
  if (request.problems.empty()) throw std::invalid_argument("a request without a problem");
  for (Problem& problem : request.problems) problem.layer = request.problems.size() > 1;
  return request;
}

nlohmann::ordered_json Answer(const Request& request, const Prepare& prepare) {
  std::vector<double> samples;
  std::string implementation;
  for (int allocation = 0; allocation < request.allocations; ++allocation) {
    Arena arena(allocation + static_cast<int>(std::hash<std::string>()(request.row) % 7));
    std::vector<Prepared> steps;
    steps.reserve(request.problems.size());
    for (const Problem& problem : request.problems) {
      steps.push_back(prepare(problem, arena, steps.empty() ? nullptr : &steps.back()));
    }
    const auto run = [&] {
      for (const Prepared& step : steps) step.run();
    };
    if (allocation == 0 && request.output != "-") {
      run();
      const std::vector<float> y = steps.back().output();
      std::ofstream out(request.output, std::ios::binary);
      out.write(reinterpret_cast<const char*>(y.data()), static_cast<std::streamsize>(y.size() * sizeof(float)));
    }
    implementation = steps.size() == 1 ? steps[0].implementation : std::to_string(steps.size()) + " layers";
    Sample(run, request.seconds / request.allocations, request.cold != 0, samples);
    if (std::accumulate(samples.begin(), samples.end(), 0.0) > 4e9 * request.seconds) break;  // as serve.py
  }
  return {{"row", request.row}, {"us", Median(samples) * 1e-3}, {"implementation", implementation}};
}

}  // namespace

int64_t Problem::Int(const std::string& name, int64_t otherwise) const {
  const auto field = fields.find(name);
  return field == fields.end() ? otherwise : std::stoll(field->second);
}

std::string Problem::Text(const std::string& name, const std::string& otherwise) const {
  const auto field = fields.find(name);
  return field == fields.end() ? otherwise : field->second;
}

Activation ParseActivation(const std::string& text) {
  if (text == "relu") return {"clamp", 0, INFINITY};
  if (text == "relu6") return {"clamp", 0, 6};
  Activation activation{text.substr(0, text.find('('))};
  std::sscanf(text.c_str() + activation.kind.size(), "(%f,%f)", &activation.alpha, &activation.beta);
  return activation;
}

std::vector<Conv> ConvSteps(const Problem& p) {
  const auto scale = [&](int64_t terms) { return p.layer ? 1.0f / std::sqrt(static_cast<float>(terms)) : 1.0f; };
  Conv conv{p.Int("n", 1),
            p.Int("ih", 0),
            p.Int("iw", 0),
            p.Int("ic", 0),
            p.Int("oc", 0),
            p.Int("kh", 1),
            p.Int("kw", 1),
            p.Int("stride_h", 1),
            p.Int("stride_w", 1),
            p.Int("dilation_h", 1),
            p.Int("dilation_w", 1),
            p.Int("pad_top", 0),
            p.Int("pad_left", 0),
            p.Int("pad_bottom", 0),
            p.Int("pad_right", 0),
            p.Int("groups", 1),
            p.Int("bias", 1) != 0,
            ParseActivation(p.Text("activation", "none")),
            p.Text("residual", "none"),
            2,
            1};
  if (p.op == "conv2d") {
    conv.weights_scale = scale(conv.kh * conv.kw * conv.ic / conv.groups);
    return {conv};
  }
  conv.kh = p.Int("kh", 3);
  conv.kw = p.Int("kw", 3);
  const std::string order = p.Text("order", "dw_pw");
  std::vector<Conv> steps;
  const auto pointwise = [&](int64_t h, int64_t w, int64_t ic, int64_t oc, const std::string& name, int seed) {
    return Conv{conv.n,
                h,
                w,
                ic,
                oc,
                1,
                1,
                1,
                1,
                1,
                1,
                0,
                0,
                0,
                0,
                1,
                p.Int(name + "_bias", 1) != 0,
                ParseActivation(p.Text(name + "_activation", "none")),
                "none",
                seed,
                scale(ic)};
  };
  int64_t channels = conv.ic;
  if (order != "dw_pw") {
    const int64_t multiplier = p.Int("depth_multiplier", 1);
    const int64_t hidden = order == "pw_dw" ? conv.oc / multiplier : p.Int("hidden", 0);
    steps.push_back(pointwise(conv.ih, conv.iw, channels, hidden, "expand", 6));
    channels = hidden;
  }
  Conv depthwise = conv;
  depthwise.ic = depthwise.groups = channels;
  depthwise.oc = channels * p.Int("depth_multiplier", 1);
  depthwise.bias = p.Int("depthwise_bias", 1) != 0;
  depthwise.activation = ParseActivation(p.Text("depthwise_activation", "none"));
  depthwise.residual = "none";
  depthwise.weights_scale = scale(conv.kh * conv.kw);
  steps.push_back(depthwise);
  if (order != "pw_dw") {
    steps.push_back(pointwise(depthwise.oh(), depthwise.ow(), depthwise.oc, conv.oc, "project", 4));
  }
  steps.back().residual = conv.residual;
  return steps;
}

std::vector<float> Uniform(int seed, int64_t count, float scale) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {  // SplitMix64 of a counter: 24 bits of it are a float exactly
    uint64_t z = ((static_cast<uint64_t>(seed) << 32) + i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    values[i] = (static_cast<float>(z >> 40) * 0x1p-23f - 1.0f) * scale;
  }
  return values;
}

Arena::~Arena() {
  for (void* block : blocks_) std::free(block);
}

float* Arena::Floats(int64_t count) {
  const size_t offset = static_cast<size_t>(next_++ * 11 % 64) * 64;
  const size_t bytes = (static_cast<size_t>(count) * sizeof(float) + offset + 2 * 4096) / 4096 * 4096;
  void* block = std::aligned_alloc(4096, bytes);
  if (block == nullptr) throw std::bad_alloc();
  blocks_.push_back(block);
  float* floats = reinterpret_cast<float*>(static_cast<char*>(block) + offset);
  std::fill(floats, floats + count, 0.0f);
  return floats;
}

float* Arena::Copy(const std::vector<float>& values) {
  float* floats = Floats(static_cast<int64_t>(values.size()));
  std::copy(values.begin(), values.end(), floats);
  return floats;
}

int Serve(const Prepare& prepare) {
  for (std::string line; std::getline(std::cin, line);) {
    nlohmann::ordered_json answer;
    Request request;
    try {
      request = Parse(line);
      answer = Answer(request, prepare);
    } catch (const std::exception& error) {
      answer = {{"row", request.row}, {"refused", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
  return 0;
}

}  // namespace peers
