// XNNPACK: nhwc operators with packed weights and the clamp inside; nchw where its few nchw operators take the problem.
// usage: peer_xnnpack THREADS
#include <pthreadpool.h>
#include <xnnpack.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <stdexcept>

#include "bench/peers/protocol.h"

namespace peers {
namespace {

pthreadpool_t pool = nullptr;

void Check(xnn_status status, const char* what) {
  if (status == xnn_status_unsupported_parameter) {
    throw std::runtime_error(std::string(what) + ": xnn_status_unsupported_parameter");
  }
  if (status != xnn_status_success) {
    throw std::runtime_error(std::string(what) + ": xnn_status " + std::to_string(status));
  }
}

// The clamp that XNNPACK fuses.
void Bounds(const Activation& activation, float& low, float& high) {
  low = -INFINITY, high = INFINITY;
  if (activation.kind == "clamp") {
    low = activation.alpha, high = activation.beta;
  } else if (activation.kind != "none") {
    throw std::invalid_argument("XNNPACK fuses no " + activation.kind);
  }
}

struct Output {
  const float* y;
  int64_t count;
};

// The output before, where it has as many values, else an input of its own.
const float* Input(Arena& arena, const Prepared* before, int64_t count) {
  if (before != nullptr) {
    const auto& output = std::any_cast<const Output&>(before->result);
    if (output.count == count) return output.y;
  }
  return arena.Copy(Uniform(1, count));
}

// [n, columns, rows] of [n, rows, columns]
std::vector<float> Moved(const std::vector<float>& from, int64_t n, int64_t rows, int64_t columns) {
  std::vector<float> to(from.size());
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        to[static_cast<size_t>((i * columns + c) * rows + r)] = from[static_cast<size_t>((i * rows + r) * columns + c)];
      }
    }
  }
  return to;
}

struct Step {
  xnn_operator_t op = nullptr;
  ~Step() { xnn_delete_operator(op); }
};
using Steps = std::vector<std::unique_ptr<Step>>;

Prepared Sequence(Steps steps, const float* y, int64_t count, const char* implementation) {
  const auto shared = std::make_shared<Steps>(std::move(steps));
  return {[shared] {
            for (const auto& step : *shared) Check(xnn_run_operator(step->op, pool), "xnn_run_operator");
          },
          [y, count] { return std::vector<float>(y, y + count); }, implementation, Output{y, count}};
}

Prepared Convolution(const Problem& problem, Arena& arena, const Prepared* before) {
  Steps steps;
  const std::vector<Conv> convs = ConvSteps(problem);
  const bool planes = problem.Text("layout", "nhwc") == "nchw";
  const Conv& first = convs.front();
  const float* x = planes ? arena.Copy(Moved(Uniform(1, first.n * first.ih * first.iw * first.ic), first.n,
                                             first.ih * first.iw, first.ic))
                          : Input(arena, before, first.n * first.ih * first.iw * first.ic);
  float* y = nullptr;
  int64_t count = 0;
  for (const Conv& c : convs) {
    if (c.residual != "none") throw std::invalid_argument("XNNPACK fuses no residual");
    float low, high;
    Bounds(c.activation, low, high);
    const int64_t per_group = c.ic / c.groups;
    std::vector<float> w = Uniform(c.weights_seed, c.oc * c.kh * c.kw * per_group, c.weights_scale);
    const std::vector<float> bias = c.bias ? Uniform(c.weights_seed + 1, c.oc) : std::vector<float>();
    count = c.n * c.oh() * c.ow() * c.oc;
    y = arena.Floats(count);
    auto step = std::make_unique<Step>();
    const auto u32 = [](int64_t value) { return static_cast<uint32_t>(value); };
    const auto size = [](int64_t value) { return static_cast<size_t>(value); };
    const auto create = planes ? xnn_create_convolution2d_nchw_f32 : xnn_create_convolution2d_nhwc_f32;
    const auto setup = planes ? xnn_setup_convolution2d_nchw_f32 : xnn_setup_convolution2d_nhwc_f32;
    Check(create(u32(c.pad_top), u32(c.pad_right), u32(c.pad_bottom), u32(c.pad_left), u32(c.kh), u32(c.kw),
                 u32(c.stride_h), u32(c.stride_w), u32(c.dilation_h), u32(c.dilation_w), u32(c.groups), size(per_group),
                 size(c.oc / c.groups), size(c.ic), size(c.oc), w.data(), c.bias ? bias.data() : nullptr, low, high, 0,
                 &step->op),
          planes ? "xnn_create_convolution2d_nchw_f32" : "xnn_create_convolution2d_nhwc_f32");
    Check(setup(step->op, size(c.n), size(c.ih), size(c.iw), x, y, pool), "xnn_setup_convolution2d");
    steps.push_back(std::move(step));
    x = y;
  }
  const Conv last = convs.back();
  if (!planes) return Sequence(std::move(steps), y, count, "convolution2d_nhwc_f32");
  Prepared prepared = Sequence(std::move(steps), y, count, "convolution2d_nchw_f32");
  prepared.output = [y, count, last] {
    return Moved(std::vector<float>(y, y + count), last.n, last.oc, last.oh() * last.ow());
  };
  return prepared;
}

Prepared FullyConnected(const Problem& p, Arena& arena, const Prepared* before) {
  if (p.Text("residual", "none") != "none") throw std::invalid_argument("XNNPACK fuses no residual");
  const int64_t m = p.Int("m", 1), ic = p.Int("ic", 0), oc = p.Int("oc", 0);
  float low, high;
  Bounds(ParseActivation(p.Text("activation", "none")), low, high);
  const std::vector<float> w = Uniform(2, ic * oc, p.layer ? 1.0f / std::sqrt(static_cast<float>(ic)) : 1.0f);
  const std::vector<float> bias = p.Int("bias", 1) != 0 ? Uniform(3, oc) : std::vector<float>();
  const float* x = Input(arena, before, m * ic);
  float* y = arena.Floats(m * oc);
  Steps steps;
  steps.push_back(std::make_unique<Step>());
  const size_t in = static_cast<size_t>(ic), out = static_cast<size_t>(oc);
  Check(xnn_create_fully_connected_nc_f32(in, out, in, out, w.data(), bias.empty() ? nullptr : bias.data(), low, high,
                                          0, &steps[0]->op),
        "xnn_create_fully_connected_nc_f32");
  Check(xnn_setup_fully_connected_nc_f32(steps[0]->op, static_cast<size_t>(m), x, y, pool),
        "xnn_setup_fully_connected_nc_f32");
  return Sequence(std::move(steps), y, m * oc, "fully_connected_nc_f32");
}

}  // namespace
}  // namespace peers

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  if (threads > 1) peers::pool = pthreadpool_create(static_cast<size_t>(threads));
  peers::Check(xnn_initialize(nullptr), "xnn_initialize");
  return peers::Serve([](const peers::Problem& problem, peers::Arena& arena, const peers::Prepared* before) {
    if (problem.op == "fully_connected") return peers::FullyConnected(problem, arena, before);
    if (problem.op == "conv2d" || problem.op == "separable_conv2d") return peers::Convolution(problem, arena, before);
    throw std::invalid_argument("XNNPACK has no " + problem.op);
  });
}
