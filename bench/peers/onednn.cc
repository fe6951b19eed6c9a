// oneDNN: its own layouts (format any), weights reordered beforehand, activation and residual as post-ops. Attention is
// matmul, softmax, matmul, with the scale and the causal mask as post-ops. DNNL_MAX_CPU_ISA caps its instruction set.
// Images in nchw are computed as they are, or reordered to its own layouts and back: whichever is faster.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <dnnl.hpp>
#include <memory>
#include <stdexcept>
#include <unordered_map>

#include "bench/peers/protocol.h"

namespace peers {
namespace {

using dnnl::memory;
using Dims = memory::dims;
using Tag = memory::format_tag;
using Arguments = std::unordered_map<int, memory>;
constexpr auto kF32 = memory::data_type::f32;
constexpr auto kInference = dnnl::prop_kind::forward_inference;

dnnl::engine& Engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}
dnnl::stream& Stream() {
  static dnnl::stream stream(Engine());
  return stream;
}

memory::desc Described(const Dims& dims, Tag tag) { return {dims, kF32, tag}; }

memory Place(Arena& arena, const memory::desc& desc) {
  return memory(desc, Engine(), arena.Floats(static_cast<int64_t>(desc.get_size() / sizeof(float))));
}

// The values, given in `from`, in a memory laid out as `to`.
memory Fill(Arena& arena, std::vector<float> values, const memory::desc& from, const memory::desc& to) {
  memory source(from, Engine(), values.data()), filled = Place(arena, to);
  dnnl::reorder(source, filled).execute(Stream(), source, filled);
  Stream().wait();
  return filled;
}

std::vector<float> Read(const memory& from, const memory::desc& to) {
  std::vector<float> values(to.get_size() / sizeof(float));
  memory source = from, target(to, Engine(), values.data());
  dnnl::reorder(source, target).execute(Stream(), source, target);
  Stream().wait();
  return values;
}

void Append(dnnl::post_ops& post, const Activation& a) {
  using A = dnnl::algorithm;
  if (a.kind == "none") return;
  if (a.kind == "clamp" && a.alpha == 0 && std::isinf(a.beta)) return post.append_eltwise(A::eltwise_relu, 0, 0);
  if (a.kind == "clamp") return post.append_eltwise(A::eltwise_clip, a.alpha, a.beta);
  if (a.kind == "gelu_erf") return post.append_eltwise(A::eltwise_gelu_erf, 0, 0);
  if (a.kind == "gelu_tanh") return post.append_eltwise(A::eltwise_gelu_tanh, 0, 0);
  if (a.kind == "tanh") return post.append_eltwise(A::eltwise_tanh, 0, 0);
  throw std::invalid_argument("activation " + a.kind + " is not set up here");
}

// Activation and residual, in the order that the descriptor names; says at which place the residual stands, or -1.
int PostOps(dnnl::primitive_attr& attributes, const Activation& activation, const std::string& residual,
            const memory::desc& dst) {
  dnnl::post_ops post;
  int place = -1;
  const auto add = [&] {
    place = post.len();
    post.append_binary(dnnl::algorithm::binary_add, dst);
  };
  if (residual == "before") add();
  Append(post, activation);
  if (residual == "after") add();
  attributes.set_post_ops(post);
  return place;
}

struct Step {
  dnnl::primitive primitive;
  Arguments arguments;
};

Prepared Sequence(std::vector<Step> steps, std::function<std::vector<float>()> output, std::string implementation,
                  memory result) {
  const auto shared = std::make_shared<std::vector<Step>>(std::move(steps));
  return {[shared] {
            for (const Step& step : *shared) step.primitive.execute(Stream(), step.arguments);
            Stream().wait();
          },
          std::move(output), std::move(implementation), std::move(result)};
}

// How images in nchw are taken: kPlain reads and writes them, kReordered moves them to and from the best layouts.
enum class Planes { kNone, kPlain, kReordered };

Prepared Convolution(const Problem& problem, Arena& arena, const Prepared* before, Planes planes) {
  std::vector<Step> steps;
  memory x;
  std::string implementation;
  const std::vector<Conv> convs = ConvSteps(problem);
  if (before != nullptr) {
    const memory& y = std::any_cast<const memory&>(before->result);
    if (y.get_desc().get_dims() == Dims{convs[0].n, convs[0].ic, convs[0].ih, convs[0].iw}) x = y;
  }
  if (planes != Planes::kNone) {
    const Conv& c = convs[0];
    const Dims src{c.n, c.ic, c.ih, c.iw};
    x = Fill(arena, Uniform(1, c.n * c.ih * c.iw * c.ic), Described(src, Tag::nhwc), Described(src, Tag::nchw));
  }
  for (const Conv& c : convs) {
    const bool first = &c == &convs.front(), plain_y = planes == Planes::kPlain && &c == &convs.back();
    const Dims src{c.n, c.ic, c.ih, c.iw}, dst{c.n, c.oc, c.oh(), c.ow()};
    const bool grouped = c.groups > 1;
    const Dims w =
        grouped ? Dims{c.groups, c.oc / c.groups, c.ic / c.groups, c.kh, c.kw} : Dims{c.oc, c.ic, c.kh, c.kw};
    const memory::desc bias = c.bias ? Described({c.oc}, Tag::a) : memory::desc();
    dnnl::primitive_attr attributes;
    const int residual = PostOps(attributes, c.activation, c.residual, Described(dst, Tag::any));
    const auto describe = [&](const memory::desc& source) {
      return dnnl::convolution_forward::primitive_desc(
          Engine(), kInference, dnnl::algorithm::convolution_direct, source, Described(w, Tag::any), bias,
          Described(dst, plain_y ? Tag::nchw : Tag::any), {c.stride_h, c.stride_w},
          {c.dilation_h - 1, c.dilation_w - 1}, {c.pad_top, c.pad_left}, {c.pad_bottom, c.pad_right}, attributes);
    };
    const memory::desc any = Described(src, Tag::any);
    dnnl::convolution_forward::primitive_desc pd = describe(x ? x.get_desc() : any);
    const bool slow = x && std::string(pd.impl_info_str()).find("ref") == 0;  // nothing fast reads that layout
    if (slow || (first && planes == Planes::kReordered)) {
      pd = describe(any);
      memory reordered = Place(arena, pd.src_desc());
      steps.push_back({dnnl::reorder(x, reordered), {{DNNL_ARG_FROM, x}, {DNNL_ARG_TO, reordered}}});
      x = reordered;
    }
    if (!x) x = Fill(arena, Uniform(1, c.n * c.ih * c.iw * c.ic), Described(src, Tag::nhwc), pd.src_desc());
    const memory::desc ohwi = Described(w, grouped ? Tag::gohwi : Tag::ohwi);
    const int64_t count = c.oc * c.kh * c.kw * (c.ic / c.groups);
    memory y = Place(arena, pd.dst_desc());
    Arguments arguments = {
        {DNNL_ARG_SRC, x},
        {DNNL_ARG_WEIGHTS, Fill(arena, Uniform(c.weights_seed, count, c.weights_scale), ohwi, pd.weights_desc())},
        {DNNL_ARG_DST, y}};
    if (c.bias) arguments[DNNL_ARG_BIAS] = Fill(arena, Uniform(c.weights_seed + 1, c.oc), bias, bias);
    if (residual >= 0) {
      arguments[DNNL_ARG_ATTR_MULTIPLE_POST_OP(residual) | DNNL_ARG_SRC_1] =
          Fill(arena, Uniform(9, c.n * c.oh() * c.ow() * c.oc), Described(dst, Tag::nhwc), pd.dst_desc());
    }
    steps.push_back({dnnl::convolution_forward(pd), arguments});
    implementation += (implementation.empty() ? "" : ", ") + std::string(pd.impl_info_str());
    x = y;
  }
  const Conv last = convs.back();
  if (planes == Planes::kReordered) {
    memory y = Place(arena, Described({last.n, last.oc, last.oh(), last.ow()}, Tag::nchw));
    steps.push_back({dnnl::reorder(x, y), {{DNNL_ARG_FROM, x}, {DNNL_ARG_TO, y}}});
    implementation = "reorder, " + implementation + ", reorder";
    x = y;
  }
  return Sequence(
      std::move(steps),
      [x, last] {
        return Read(x, Described({last.n, last.oc, last.oh(), last.ow()}, Tag::nhwc));
      },
      implementation, x);
}

double Seconds(const std::function<void()>& run) {
  run();
  double least = INFINITY;
  for (int i = 0; i < 3; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return least;
}

Prepared ConvolutionOf(const Problem& problem, Arena& arena, const Prepared* before) {
  if (problem.Text("layout", "nhwc") != "nchw") return Convolution(problem, arena, before, Planes::kNone);
  if (problem.Text("residual", "none") != "none") throw std::invalid_argument("a residual in nchw is not set up here");
  Prepared reordered = Convolution(problem, arena, before, Planes::kReordered);
  Prepared plain = Convolution(problem, arena, before, Planes::kPlain);
  if (plain.implementation.find("ref") != std::string::npos) return reordered;
  return Seconds(plain.run) < Seconds(reordered.run) ? plain : reordered;
}

// y[m, oc] = x[m, ic] w[oc, ic]' + bias
Prepared FullyConnected(const Problem& p, Arena& arena, const Prepared* before) {
  const int64_t m = p.Int("m", 1), ic = p.Int("ic", 0), oc = p.Int("oc", 0);
  const memory::desc dst = Described({m, oc}, Tag::ab), src = Described({m, ic}, Tag::ab);
  const bool has_bias = p.Int("bias", 1) != 0;
  const memory::desc bias = has_bias ? Described({1, oc}, Tag::ab) : memory::desc();
  dnnl::primitive_attr attributes;
  const int residual =
      PostOps(attributes, ParseActivation(p.Text("activation", "none")), p.Text("residual", "none"), dst);
  const dnnl::matmul::primitive_desc pd(Engine(), src, Described({ic, oc}, Tag::any), bias, dst, attributes);
  const float scale = p.layer ? 1.0f / std::sqrt(static_cast<float>(ic)) : 1.0f;
  memory y = Place(arena, dst);
  memory x;
  if (before != nullptr) {
    const memory& z = std::any_cast<const memory&>(before->result);
    if (z.get_desc() == src) x = z;
  }
  if (!x) x = Fill(arena, Uniform(1, m * ic), src, src);
  Arguments arguments = {
      {DNNL_ARG_SRC, x},
      {DNNL_ARG_WEIGHTS, Fill(arena, Uniform(2, ic * oc, scale), Described({ic, oc}, Tag::ba), pd.weights_desc())},
      {DNNL_ARG_DST, y}};
  if (has_bias) arguments[DNNL_ARG_BIAS] = Fill(arena, Uniform(3, oc), bias, bias);
  if (residual >= 0) {
    arguments[DNNL_ARG_ATTR_MULTIPLE_POST_OP(residual) | DNNL_ARG_SRC_1] = Fill(arena, Uniform(9, m * oc), dst, dst);
  }
  return Sequence(
      {{dnnl::matmul(pd), arguments}}, [y, dst] { return Read(y, dst); }, pd.impl_info_str(), y);
}

Prepared MultiHeadAttention(const Problem& p, Arena& arena) {
  if (p.Int("projections", 0) != 0 || p.Text("layout", "bshd") != "bhsd") {
    throw std::invalid_argument("attention with projections or layout=bshd is not set up here");
  }
  const int64_t b = p.Int("batch", 1), h = p.Int("num_heads", 1), sq = p.Int("seqlen_q", 0),
                skv = p.Int("seqlen_kv", 0);
  const int64_t d = p.Int("head_dim", 0);
  const memory::desc q = Described({b, h, sq, d}, Tag::abcd), k = Described({b, h, d, skv}, Tag::abdc);
  const memory::desc v = Described({b, h, skv, d}, Tag::abcd), s = Described({b, h, sq, skv}, Tag::abcd);
  const memory::desc mask = Described({1, 1, sq, skv}, Tag::abcd);
  const bool causal = p.Text("causal", "none") != "none";
  dnnl::post_ops post;
  post.append_eltwise(dnnl::algorithm::eltwise_linear, 1.0f / std::sqrt(static_cast<float>(d)), 0);
  if (causal) post.append_binary(dnnl::algorithm::binary_add, mask);
  dnnl::primitive_attr attributes;
  attributes.set_post_ops(post);
  const dnnl::matmul::primitive_desc scores(Engine(), q, k, s, attributes), weighted(Engine(), s, v, q);
  const dnnl::softmax_forward::primitive_desc softmax(Engine(), kInference, dnnl::algorithm::softmax_accurate, s, s, 3);
  memory S = Place(arena, s), O = Place(arena, q);
  Arguments first = {{DNNL_ARG_SRC, Fill(arena, Uniform(1, b * h * sq * d), q, q)},
                     {DNNL_ARG_WEIGHTS, Fill(arena, Uniform(2, b * h * skv * d), k, k)},
                     {DNNL_ARG_DST, S}};
  if (causal) {
    std::vector<float> values(static_cast<size_t>(sq * skv), 0.0f);
    for (int64_t i = 0; i < sq; ++i) {
      for (int64_t j = i + 1; j < skv; ++j) values[static_cast<size_t>(i * skv + j)] = -INFINITY;
    }
    first[DNNL_ARG_ATTR_MULTIPLE_POST_OP(1) | DNNL_ARG_SRC_1] = Fill(arena, values, mask, mask);
  }
  return Sequence(
      {{dnnl::matmul(scores), first},
       {dnnl::softmax_forward(softmax), {{DNNL_ARG_SRC, S}, {DNNL_ARG_DST, S}}},
       {dnnl::matmul(weighted),
        {{DNNL_ARG_SRC, S}, {DNNL_ARG_WEIGHTS, Fill(arena, Uniform(3, b * h * skv * d), v, v)}, {DNNL_ARG_DST, O}}}},
      [O, q] { return Read(O, q); }, std::string(scores.impl_info_str()) + ", softmax, matmul", O);
}

// Prepared keys [b, 1, keys, units] and the query's projection [b, queries, 1, units] meet in one binary primitive.
Prepared AdditiveAttention(const Problem& p, Arena& arena) {
  const int64_t b = p.Int("batch", 1), q = p.Int("queries", 1), t = p.Int("keys", 0), u = p.Int("units", 0);
  const int64_t qd = p.Int("query_dim", 0), kd = p.Int("key_dim", 0);
  const memory::desc query = Described({b * q, qd}, Tag::ab), projected = Described({b * q, u}, Tag::ab);
  const memory::desc one = Described({b, q, 1, u}, Tag::abcd), keys = Described({b, 1, t, u}, Tag::abcd);
  const memory::desc sum = Described({b, q, t, u}, Tag::abcd), rows = Described({b * q * t, u}, Tag::ab);
  const memory::desc v = Described({u, 1}, Tag::ab), score = Described({b * q * t, 1}, Tag::ab);
  const memory::desc weights = Described({b, q, t}, Tag::abc), value = Described({b, t, kd}, Tag::abc);
  const memory::desc context = Described({b, q, kd}, Tag::abc);
  dnnl::post_ops post;
  post.append_eltwise(dnnl::algorithm::eltwise_tanh, 0, 0);
  dnnl::primitive_attr attributes;
  attributes.set_post_ops(post);
  const dnnl::matmul::primitive_desc project(Engine(), query, Described({qd, u}, Tag::any), projected);
  const dnnl::binary::primitive_desc add(Engine(), dnnl::algorithm::binary_add, keys, one, sum, attributes);
  const dnnl::matmul::primitive_desc dot(Engine(), rows, v, score), mix(Engine(), weights, value, context);
  const dnnl::softmax_forward::primitive_desc softmax(Engine(), kInference, dnnl::algorithm::softmax_accurate, weights,
                                                      weights, 2);
  // The keys' projection, beforehand.
  const memory::desc flat = Described({b * t, kd}, Tag::ab), prepared = Described({b * t, u}, Tag::ab);
  const dnnl::matmul::primitive_desc prepare(Engine(), flat, Described({kd, u}, Tag::ba), prepared);
  const memory values = Fill(arena, Uniform(2, b * t * kd), value, value), P = Place(arena, projected);
  const memory K = Place(arena, keys), T = Place(arena, sum), S = Place(arena, score), C = Place(arena, context);
  const auto as = [](const memory& m, const memory::desc& d) { return memory(d, Engine(), m.get_data_handle()); };
  const memory::desc kw = Described({kd, u}, Tag::ba);
  dnnl::matmul(prepare).execute(Stream(), {{DNNL_ARG_SRC, as(values, flat)},
                                           {DNNL_ARG_WEIGHTS, Fill(arena, Uniform(4, u * kd), kw, kw)},
                                           {DNNL_ARG_DST, as(K, prepared)}});
  Stream().wait();
  const memory W = Fill(arena, Uniform(3, u * qd), Described({qd, u}, Tag::ba), project.weights_desc());
  return Sequence(
      {{dnnl::matmul(project),
        {{DNNL_ARG_SRC, Fill(arena, Uniform(1, b * q * qd), query, query)}, {DNNL_ARG_WEIGHTS, W}, {DNNL_ARG_DST, P}}},
       {dnnl::binary(add), {{DNNL_ARG_SRC_0, K}, {DNNL_ARG_SRC_1, as(P, one)}, {DNNL_ARG_DST, T}}},
       {dnnl::matmul(dot),
        {{DNNL_ARG_SRC, as(T, rows)}, {DNNL_ARG_WEIGHTS, Fill(arena, Uniform(5, u), v, v)}, {DNNL_ARG_DST, S}}},
       {dnnl::softmax_forward(softmax), {{DNNL_ARG_SRC, as(S, weights)}, {DNNL_ARG_DST, as(S, weights)}}},
       {dnnl::matmul(mix), {{DNNL_ARG_SRC, as(S, weights)}, {DNNL_ARG_WEIGHTS, values}, {DNNL_ARG_DST, C}}}},
      [C, context] { return Read(C, context); }, "matmul, binary, matmul, softmax, matmul", C);
}

}  // namespace
}  // namespace peers

int main() {
  return peers::Serve([](const peers::Problem& problem, peers::Arena& arena, const peers::Prepared* before) {
    if (problem.op == "fully_connected") return peers::FullyConnected(problem, arena, before);
    if (problem.op == "multi_head_attention") return peers::MultiHeadAttention(problem, arena);
    if (problem.op == "additive_attention") return peers::AdditiveAttention(problem, arena);
    return peers::ConvolutionOf(problem, arena, before);
  });
}
