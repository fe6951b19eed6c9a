// A second oracle: oneDNN computes the same problems, and both results, each within its bound of the true value, may
// differ by two bounds. It would show a mistake that the reference and the kernels have in common.
#include <gtest/gtest.h>

#include <cmath>
#include <dnnl.hpp>
#include <functional>
#include <unordered_map>
#include <vector>

#include "harness/additive_attention.h"
#include "harness/conv2d.h"
#include "harness/fully_connected.h"
#include "harness/multi_head_attention.h"
#include "harness/separable_conv2d.h"

namespace lamina {
namespace {

using dnnl::algorithm;
using dnnl::memory;
using Arguments = std::unordered_map<int, memory>;

dnnl::engine& Engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// A view of floats for oneDNN.
memory View(const void* data, const memory::dims& dims, const memory::dims& strides) {
  return memory({dims, memory::data_type::f32, strides}, Engine(), const_cast<void*>(data));
}

void Execute(const dnnl::primitive& primitive, const Arguments& arguments) {
  dnnl::stream stream(Engine());
  primitive.execute(stream, arguments);
  stream.wait();
}

dnnl::primitive_attr After(const Activation& a) {
  dnnl::post_ops ops;
  switch (a.kind) {
    case ActivationKind::kNone: return {};
    case ActivationKind::kRelu: ops.append_eltwise(algorithm::eltwise_relu, 0.0f, 0.0f); break;
    case ActivationKind::kRelu6: ops.append_eltwise(algorithm::eltwise_clip, 0.0f, 6.0f); break;
    case ActivationKind::kLeakyRelu: ops.append_eltwise(algorithm::eltwise_relu, a.alpha, 0.0f); break;
    case ActivationKind::kSigmoid: ops.append_eltwise(algorithm::eltwise_logistic, 0.0f, 0.0f); break;
    case ActivationKind::kSilu: ops.append_eltwise(algorithm::eltwise_swish, 1.0f, 0.0f); break;
    case ActivationKind::kGeluErf: ops.append_eltwise(algorithm::eltwise_gelu_erf, 0.0f, 0.0f); break;
    case ActivationKind::kGeluTanh: ops.append_eltwise(algorithm::eltwise_gelu_tanh, 0.0f, 0.0f); break;
    case ActivationKind::kTanh: ops.append_eltwise(algorithm::eltwise_tanh, 0.0f, 0.0f); break;
    case ActivationKind::kElu: ops.append_eltwise(algorithm::eltwise_elu, a.alpha, 0.0f); break;
    default: ADD_FAILURE() << "no oneDNN name for activation " << static_cast<int>(a.kind);
  }
  dnnl::primitive_attr attributes;
  attributes.set_post_ops(ops);
  return attributes;
}

// Runs the operator and the reference on normal data and compares every output, in the order of the case, with what
// oneDNN makes of the same tensors: rows * row values, dense, or none where oneDNN has nothing to say.
template <class Op>
void CompareWithOneDnn(const typename Op::Desc& desc,
                       const std::function<std::vector<std::vector<float>>(const harness::Case<Op>&)>& onednn) {
  harness::TensorStore store(harness::Fill::kNormal, harness::Guard::kEnd, 1);
  const harness::Case<Op> c(desc, store);
  std::vector<harness::Expected> expected = harness::ReferenceFor(c, Accuracy::kDefault);
  const std::vector<std::vector<float>> theirs = onednn(c);
  ASSERT_GE(expected.size(), theirs.size());
  for (size_t i = 0; i < theirs.size(); ++i) {
    ASSERT_EQ(theirs[i].size(), expected[i].want.size());
    expected[i].want.assign(theirs[i].begin(), theirs[i].end());
    for (double& tolerance : expected[i].tolerance) tolerance *= 2;
  }
  for (const Backend backend : {Backend::kReference, Backend::kCpu}) {
    const auto op = Op::Prepare(desc, c.weights, {.backend = backend});
    ASSERT_TRUE(op.ok()) << op.status().message();
    store.PoisonOutputs();
    ASSERT_TRUE(harness::Case<Op>::RunOnce(*op, c.tensors, nullptr).ok());
    for (size_t i = 0; i < theirs.size(); ++i) {
      const harness::Comparison comparison = Compare(expected[i]);
      EXPECT_TRUE(comparison.ok) << ToString(desc) << " on " << op->implementation() << ": " << comparison.message;
    }
  }
}

// ---- Convolution.

memory::dims ImageStrides(Layout layout, int64_t h, int64_t w, int64_t c) {
  return layout == Layout::kNhwc ? memory::dims{h * w * c, 1, w * c, c} : memory::dims{c * h * w, h * w, w, 1};
}

// Dense y of a convolution without slices or residual.
std::vector<float> Convolve(const Conv2dDesc& d, const void* x, const void* w, const void* bias) {
  const int64_t g = d.groups, ic = d.ic / g, oc = d.oc / g, oh = d.oh(), ow = d.ow();
  const memory::dims inner = d.weight_layout == WeightLayout::kOhwi
                                 ? memory::dims{d.kh * d.kw * ic, 1, d.kw * ic, ic}
                                 : memory::dims{ic * d.kh * d.kw, d.kh * d.kw, d.kw, 1};
  std::vector<float> y(static_cast<size_t>(d.n * oh * ow * d.oc));
  const memory mx = View(x, {d.n, d.ic, d.ih, d.iw}, ImageStrides(d.layout, d.ih, d.iw, d.ic));
  const memory my = View(y.data(), {d.n, d.oc, oh, ow}, ImageStrides(d.layout, oh, ow, d.oc));
  const memory mw = View(w, {g, oc, ic, d.kh, d.kw}, {oc * inner[0], inner[0], inner[1], inner[2], inner[3]});
  const memory mb = d.bias ? View(bias, {d.oc}, {1}) : memory();
  const dnnl::convolution_forward::primitive_desc pd(
      Engine(), dnnl::prop_kind::forward_inference, algorithm::convolution_direct, mx.get_desc(), mw.get_desc(),
      d.bias ? mb.get_desc() : memory::desc(), my.get_desc(), {d.stride_h, d.stride_w},
      {d.dilation_h - 1, d.dilation_w - 1}, {d.pad_top, d.pad_left}, {d.pad_bottom, d.pad_right}, After(d.activation));
  Execute(dnnl::convolution_forward(pd),
          {{DNNL_ARG_SRC, mx}, {DNNL_ARG_WEIGHTS, mw}, {DNNL_ARG_BIAS, mb}, {DNNL_ARG_DST, my}});
  return y;
}

TEST(OneDnn, Conv2d) {
  const Activation silu{.kind = ActivationKind::kSilu}, leaky{ActivationKind::kLeakyRelu, 0.25f};
  Conv2dDesc grouped{.n = 2, .ih = 9, .iw = 11, .ic = 12, .oc = 18, .kh = 3, .kw = 2, .pad_bottom = 2, .groups = 3};
  grouped.bias = false;
  const Conv2dDesc cases[] = {
      {.n = 2,
       .ih = 14,
       .iw = 13,
       .ic = 32,
       .oc = 48,
       .kh = 3,
       .kw = 3,
       .pad_top = 1,
       .pad_left = 1,
       .pad_bottom = 1,
       .pad_right = 1,
       .activation = silu},
      {.ih = 17,
       .iw = 18,
       .ic = 3,
       .oc = 16,
       .kh = 3,
       .kw = 3,
       .stride_h = 2,
       .stride_w = 2,
       .pad_bottom = 1,
       .pad_right = 1,
       .activation = {.kind = ActivationKind::kRelu6}},
      {.ih = 15,
       .iw = 15,
       .ic = 8,
       .oc = 8,
       .kh = 3,
       .kw = 5,
       .dilation_h = 2,
       .dilation_w = 3,
       .pad_top = 2,
       .pad_left = 6,
       .pad_bottom = 1,
       .pad_right = 5,
       .activation = leaky},
      {.n = 3, .ih = 7, .iw = 7, .ic = 64, .oc = 96, .activation = {.kind = ActivationKind::kGeluErf}},
      {.ih = 28,
       .iw = 28,
       .ic = 40,
       .oc = 40,
       .kh = 3,
       .kw = 3,
       .stride_h = 2,
       .stride_w = 1,
       .pad_top = 1,
       .pad_left = 1,
       .pad_bottom = 1,
       .pad_right = 1,
       .groups = 40},
      {.ih = 12,
       .iw = 12,
       .ic = 10,
       .oc = 20,
       .kh = 5,
       .kw = 5,
       .pad_top = 2,
       .pad_left = 2,
       .pad_bottom = 2,
       .pad_right = 2,
       .groups = 10},
      {.ih = 1, .iw = 100, .ic = 16, .oc = 24, .kh = 1, .kw = 9, .stride_w = 4},
      grouped,
  };
  for (const Conv2dDesc& one : cases) {
    for (const Layout layout : {Layout::kNhwc, Layout::kNchw}) {
      for (const WeightLayout weight_layout : {WeightLayout::kOhwi, WeightLayout::kOihw}) {
        Conv2dDesc d = one;
        d.layout = layout;
        d.weight_layout = weight_layout;
        CompareWithOneDnn<Conv2d>(d, [&](const harness::Case<Conv2d>& c) -> std::vector<std::vector<float>> {
          return {Convolve(d, c.tensors.x, c.weights.w, c.weights.bias)};
        });
      }
    }
  }
}

// ---- Separable convolution, as the pair or three that it stands for.

// The next convolution of a chain: its input sizes are the output's before.
Conv2dDesc Follow(const Conv2dDesc& before, int64_t oc, bool bias, const Activation& activation) {
  Conv2dDesc d{.n = before.n, .ih = before.oh(), .iw = before.ow(), .ic = before.oc, .oc = oc, .bias = bias};
  d.activation = activation;
  d.layout = before.layout;
  return d;
}

std::vector<float> ConvolveSeparably(const SeparableConv2dDesc& d, const SeparableConv2dTensors& t,
                                     const SeparableConv2dWeights& w) {
  // What comes before anything: a 1x1 convolution's output that is x itself.
  Conv2dDesc at{.n = d.n, .ih = d.ih, .iw = d.iw, .ic = d.ic, .oc = d.ic, .layout = d.layout};
  std::vector<float> y;
  const void* x = t.x;
  const auto step = [&](const Conv2dDesc& conv, const void* weights, const void* bias) {
    y = Convolve(conv, x, weights, bias);
    x = y.data();
    at = conv;
  };
  if (d.has_expand()) {
    step(Follow(at, d.depthwise_in(), d.expand_bias, d.expand_activation), w.expand_w, w.expand_bias);
  }
  const std::vector<float> expanded = y;
  if (d.has_expand()) x = expanded.data();
  Conv2dDesc depthwise = Follow(at, d.depthwise_out(), d.depthwise_bias, d.depthwise_activation);
  depthwise.groups = d.depthwise_in();
  depthwise.kh = d.kh, depthwise.kw = d.kw;
  depthwise.stride_h = d.stride_h, depthwise.stride_w = d.stride_w;
  depthwise.dilation_h = d.dilation_h, depthwise.dilation_w = d.dilation_w;
  depthwise.pad_top = d.pad_top, depthwise.pad_left = d.pad_left;
  depthwise.pad_bottom = d.pad_bottom, depthwise.pad_right = d.pad_right;
  step(depthwise, w.depthwise_w, w.depthwise_bias);
  const std::vector<float> filtered = y;
  x = filtered.data();
  if (d.has_project()) step(Follow(at, d.oc, d.project_bias, d.project_activation), w.project_w, w.project_bias);
  return y;
}

TEST(OneDnn, SeparableConv2d) {
  const Activation relu6{.kind = ActivationKind::kRelu6}, silu{.kind = ActivationKind::kSilu};
  const SeparableConv2dDesc cases[] = {
      {.n = 2,
       .ih = 14,
       .iw = 15,
       .ic = 32,
       .oc = 48,
       .pad_top = 1,
       .pad_left = 1,
       .pad_bottom = 1,
       .pad_right = 1,
       .depthwise_activation = relu6,
       .project_activation = relu6},
      {.ih = 17,
       .iw = 16,
       .ic = 24,
       .oc = 40,
       .stride_h = 2,
       .stride_w = 2,
       .pad_bottom = 1,
       .pad_right = 1,
       .order = SeparableOrder::kPwDw,
       .depthwise_activation = silu},
      {.ih = 13,
       .iw = 13,
       .ic = 16,
       .hidden = 96,
       .oc = 24,
       .kh = 5,
       .kw = 3,
       .dilation_w = 2,
       .pad_top = 2,
       .pad_left = 2,
       .pad_bottom = 2,
       .pad_right = 2,
       .order = SeparableOrder::kPwDwPw,
       .expand_activation = relu6,
       .depthwise_activation = relu6},
      {.ih = 9, .iw = 9, .ic = 7, .oc = 11, .depth_multiplier = 2, .depthwise_bias = false},
  };
  for (const SeparableConv2dDesc& one : cases) {
    for (const Layout layout : {Layout::kNhwc, Layout::kNchw}) {
      SeparableConv2dDesc d = one;
      d.layout = layout;
      CompareWithOneDnn<SeparableConv2d>(
          d, [&](const harness::Case<SeparableConv2d>& c) -> std::vector<std::vector<float>> {
            return {ConvolveSeparably(d, c.tensors, c.weights)};
          });
    }
  }
}

// ---- Matrices.

// rows x cols floats, row_stride and col_stride apart.
struct Matrix {
  const float* data;
  int64_t rows, cols, row_stride, col_stride = 1;
  memory view() const { return View(data, {rows, cols}, {row_stride, col_stride}); }
};
Matrix Transposed(const Matrix& m) { return {m.data, m.cols, m.rows, m.col_stride, m.row_stride}; }
Matrix Dense(const std::vector<float>& v, int64_t rows, int64_t cols) { return {v.data(), rows, cols, cols}; }

// act(a b + bias); bias [b.cols] or null.
std::vector<float> MatMul(const Matrix& a, const Matrix& b, const void* bias = nullptr,
                          const Activation& activation = {}) {
  std::vector<float> c(static_cast<size_t>(a.rows * b.cols));
  const memory ma = a.view(), mb = b.view(), mc = Dense(c, a.rows, b.cols).view();
  const memory mbias = bias ? View(bias, {1, b.cols}, {b.cols, 1}) : memory();
  const dnnl::matmul::primitive_desc pd(Engine(), ma.get_desc(), mb.get_desc(),
                                        bias ? mbias.get_desc() : memory::desc(), mc.get_desc(), After(activation));
  Execute(dnnl::matmul(pd), {{DNNL_ARG_SRC, ma}, {DNNL_ARG_WEIGHTS, mb}, {DNNL_ARG_BIAS, mbias}, {DNNL_ARG_DST, mc}});
  return c;
}

std::vector<float> Softmax(const std::vector<float>& x, int64_t rows, int64_t cols) {
  std::vector<float> y(x.size());
  const memory mx = Dense(x, rows, cols).view(), my = Dense(y, rows, cols).view();
  const dnnl::softmax_forward::primitive_desc pd(Engine(), dnnl::prop_kind::forward_inference,
                                                 algorithm::softmax_accurate, mx.get_desc(), my.get_desc(), 1);
  Execute(dnnl::softmax_forward(pd), {{DNNL_ARG_SRC, mx}, {DNNL_ARG_DST, my}});
  return y;
}

TEST(OneDnn, FullyConnected) {
  const FullyConnectedDesc cases[] = {
      {.m = 1, .ic = 300, .oc = 100},
      {.m = 7, .ic = 129, .oc = 65, .activation = {.kind = ActivationKind::kGeluTanh}, .x_stride = 140},
      {.m = 50, .ic = 256, .oc = 96, .activation = {ActivationKind::kElu, 0.5f}, .weight_layout = MatrixLayout::kIo},
      {.m = 33, .ic = 1024, .oc = 10, .bias = false},
  };
  for (const FullyConnectedDesc& d : cases) {
    CompareWithOneDnn<FullyConnected>(
        d, [&](const harness::Case<FullyConnected>& c) -> std::vector<std::vector<float>> {
          const Matrix x{static_cast<const float*>(c.tensors.x), d.m, d.ic, d.x_stride ? d.x_stride : d.ic};
          const auto* w = static_cast<const float*>(c.weights.w);
          const bool oi = d.weight_layout == MatrixLayout::kOi;
          return {MatMul(x, oi ? Transposed({w, d.oc, d.ic, d.ic}) : Matrix{w, d.ic, d.oc, d.oc}, c.weights.bias,
                         d.activation)};
        });
  }
}

// ---- Attention, head by head over the live keys.

TEST(OneDnn, MultiHeadAttention) {
  const MultiHeadAttentionDesc cases[] = {
      {.batch = 2, .num_heads = 4, .seqlen_q = 20, .seqlen_kv = 33, .head_dim = 64},
      {.num_heads = 6,
       .num_kv_heads = 2,
       .seqlen_q = 1,
       .seqlen_kv = 100,
       .head_dim = 40,
       .value_dim = 24,
       .scale = 0.3f,
       .layout = AttentionLayout::kBhsd},
  };
  for (const MultiHeadAttentionDesc& d : cases) {
    CompareWithOneDnn<MultiHeadAttention>(d, [&](const harness::Case<MultiHeadAttention>& c) {
      const MultiHeadAttentionTensors& t = c.tensors;
      const AttentionStrides q = d.q_strides(), k = d.k_strides(), v = d.v_strides();
      std::vector<std::vector<float>> out;
      for (int64_t b = 0; b < d.batch; ++b) {
        const int64_t live = t.key_lengths != nullptr ? t.key_lengths[b] : d.seqlen_kv;
        for (int64_t h = 0; h < d.num_heads; ++h) {
          const int64_t kv = h / (d.num_heads / d.kv_heads());
          const Matrix qs{static_cast<const float*>(t.q) + b * q.batch + h * q.head, d.seqlen_q, d.head_dim, q.row};
          const Matrix ks{static_cast<const float*>(t.k) + b * k.batch + kv * k.head, live, d.head_dim, k.row};
          const Matrix vs{static_cast<const float*>(t.v) + b * v.batch + kv * v.head, live, d.v_dim(), v.row};
          if (live == 0) {
            out.emplace_back(static_cast<size_t>(d.seqlen_q * d.v_dim()), 0.0f);
            continue;
          }
          std::vector<float> scores = MatMul(qs, Transposed(ks));
          for (float& s : scores) s *= d.score_scale();
          out.push_back(MatMul(Dense(Softmax(scores, d.seqlen_q, live), d.seqlen_q, live), vs));
        }
      }
      return out;
    });
  }
}

TEST(OneDnn, AdditiveAttention) {
  const AdditiveAttentionDesc cases[] = {
      {.batch = 2, .queries = 3, .keys = 25, .query_dim = 40, .key_dim = 48, .units = 64, .bias = true},
      {.queries = 5, .keys = 60, .query_dim = 30, .key_dim = 20, .units = 33, .value_dim = 50},
  };
  for (const AdditiveAttentionDesc& d : cases) {
    CompareWithOneDnn<AdditiveAttention>(
        d, [&](const harness::Case<AdditiveAttention>& c) -> std::vector<std::vector<float>> {
          const AdditiveAttentionTensors& t = c.tensors;
          const auto matrix = [](const void* data, int64_t rows, int64_t cols) {
            return Matrix{static_cast<const float*>(data), rows, cols, cols};
          };
          const auto row_of = [](const void* data, int64_t row, int64_t cols) {
            return static_cast<const float*>(data) + row * cols;
          };
          std::vector<float> context;
          for (int64_t b = 0; b < d.batch; ++b) {
            const int64_t live = t.key_lengths != nullptr ? t.key_lengths[b] : d.keys;
            if (live == 0) {
              context.resize(context.size() + static_cast<size_t>(d.queries * d.context_dim()), 0.0f);
              continue;
            }
            const std::vector<float> queries =
                MatMul(matrix(row_of(t.query, b * d.queries, d.query_dim), d.queries, d.query_dim),
                       Transposed(matrix(c.weights.query_w, d.units, d.query_dim)), c.weights.bias);
            const Matrix keys = matrix(row_of(t.keys, b * d.keys, d.key_dim), live, d.key_dim);
            const Matrix values =
                d.value_dim ? matrix(row_of(t.values, b * d.keys, d.value_dim), live, d.value_dim) : keys;
            const Matrix key_w = Transposed(matrix(c.weights.key_w, d.units, d.key_dim));
            std::vector<float> scores;
            for (int64_t i = 0; i < d.queries; ++i) {  // the projected query is the bias of the projected keys
              const std::vector<float> hidden =
                  MatMul(keys, key_w, queries.data() + i * d.units, {.kind = ActivationKind::kTanh});
              const std::vector<float> score = MatMul(Dense(hidden, live, d.units), matrix(c.weights.v, d.units, 1));
              scores.insert(scores.end(), score.begin(), score.end());
            }
            const std::vector<float> rows = MatMul(Dense(Softmax(scores, d.queries, live), d.queries, live), values);
            context.insert(context.end(), rows.begin(), rows.end());
          }
          return {context};
        });
  }
}

}  // namespace
}  // namespace lamina
