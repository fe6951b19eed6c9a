// multi_head_attention on CUDA: attention, and the layer's four products round it.
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/image.h"
#include "kernels/cuda/workspace.h"
#include "kernels/operators/backends.h"

namespace lamina::cuda {
namespace {

using Desc = MultiHeadAttentionDesc;
using Tensors = MultiHeadAttentionTensors;

// The four products of a layer: channels in and out.
struct Sizes {
  int64_t memory_dim, q_row, k_row, v_row, o_row;
  explicit Sizes(const Desc& d)
      : memory_dim(d.memory_dim ? d.memory_dim : d.model_dim),
        q_row(d.num_heads * d.head_dim),
        k_row(d.kv_heads() * d.head_dim),
        v_row(d.kv_heads() * d.v_dim()),
        o_row(d.num_heads * d.v_dim()) {}
};

struct LayerWeights {
  std::shared_ptr<const GemmWeights> q, k, v, o;
  size_t bytes() const { return q == nullptr ? 0 : q->bytes() + k->bytes() + v->bytes() + o->bytes(); }
};

// Rows that a call adds to the keys.
int64_t NewRows(const Desc& d) { return d.memory_dim != 0 ? d.seqlen_kv : d.seqlen_q; }

AttentionStrides Dense(int64_t rows, int64_t heads, int64_t dim) { return {rows * heads * dim, heads * dim, dim}; }

// Where the pieces of workspace begin.
struct Workspace {
  Workspace(const Desc& d, const Attention& attention) {
    Add(attention.workspace_bytes());
    if (!d.projections) return;
    const Sizes sizes(d);
    const int64_t element = static_cast<int64_t>(SizeOf(d.dtype)), queries = d.batch * d.seqlen_q;
    q = Add(queries * sizes.q_row * element);
    o = Add(queries * sizes.o_row * element);
    k = Add(d.batch * NewRows(d) * sizes.k_row * element);
    v = Add(d.batch * NewRows(d) * sizes.v_row * element);
  }
  int64_t q = 0, o = 0, k = 0, v = 0, bytes = 0;

 private:
  int64_t Add(int64_t more) { return std::exchange(bytes, bytes + RoundUp(more, 256)); }
};

class AttentionOperator final : public Kernel<MultiHeadAttention> {
 public:
  static Result<std::shared_ptr<const Kernel<MultiHeadAttention>>> Make(AttentionForm form, const Desc& d,
                                                                        const Device* device, void* stream,
                                                                        const LayerWeights& weights,
                                                                        const DeviceWorkspace& known = nullptr) {
    auto made = std::make_shared<AttentionOperator>(form, d, device, stream, weights);
    auto own = WorkspaceOf(ToString(d), made->scratch_bytes(), known);
    if (!own.ok()) return own.status();
    made->own_ = *own;
    return std::shared_ptr<const Kernel<MultiHeadAttention>>(made);
  }

  AttentionOperator(AttentionForm form, const Desc& d, const Device* device, void* stream, const LayerWeights& weights)
      : form_(form),
        desc_(d),
        device_(device),
        stream_(stream),
        weights_(weights),
        attention_(form, d, *device),
        workspace_(d, attention_) {}

  size_t scratch_bytes() const override { return static_cast<size_t>(workspace_.bytes); }
  size_t packed_bytes() const override { return weights_.bytes(); }
  Result<std::shared_ptr<const Kernel<MultiHeadAttention>>> Reshape(const Desc& d) const override {
    return Make(form_, d, device_, stream_, weights_, own_);
  }

  Status Run(const Tensors& t, std::byte* scratch) const override {
    if (Validates()) {
      if (Status s = Check(t); !s.ok()) return s;
    }
    std::byte* memory = MemoryOf(scratch, own_);
    const Error error = desc_.projections ? RunLayer(t, memory) : RunPlain(t, memory);
    return error.ok() ? Status() : DeviceStatus(ToString(desc_), "starting the kernel", error);
  }

 private:
  Error RunPlain(const Tensors& t, std::byte* memory) const {
    const Desc& d = desc_;
    return attention_.Run(
        {t.q, t.k, t.v, t.o, d.q_strides(), d.k_strides(), d.v_strides(), d.o_strides(), d.seqlen_kv, &t}, memory,
        stream_);
  }

  Error RunLayer(const Tensors& t, std::byte* memory) const {
    const Desc& d = desc_;
    const bool cross = d.memory_dim != 0;
    AttentionOperands operands;
    operands.tensors = &t;
    operands.key_length = cross ? d.seqlen_kv : t.position + d.seqlen_q;
    operands.q = memory + workspace_.q;
    operands.q_strides = Dense(d.seqlen_q, d.num_heads, d.head_dim);
    operands.o = memory + workspace_.o;
    operands.o_strides = Dense(d.seqlen_q, d.num_heads, d.v_dim());

    const int64_t x_stride = d.x_stride ? d.x_stride : d.model_dim;
    Error error = Project(*weights_.q, t.x, d.seqlen_q, x_stride, memory + workspace_.q, operands.q_strides);
    const void* source = cross ? t.memory : t.x;
    const int64_t stride = !cross ? x_stride : d.memory_stride ? d.memory_stride : d.memory_dim;
    const auto keys = [&](const GemmWeights& w, void* cache, std::byte* own, int64_t dim,
                          const AttentionStrides& cached) {
      const AttentionStrides dense = Dense(NewRows(d), d.kv_heads(), dim);
      if (error.ok() && source != nullptr && NewRows(d) > 0) {
        void* rows = cache == nullptr ? nullptr : static_cast<std::byte*>(cache) + t.position * cached.row * Element();
        // One product writes all heads where these follow each other.
        const bool direct = cache != nullptr && (cached.head == dim || d.kv_heads() == 1);
        error = Project(w, source, NewRows(d), stride, direct ? rows : own, direct ? cached : dense);
        if (error.ok() && cache != nullptr && !direct) {
          error = StoreRows(d.dtype,
                            {own,
                             rows,
                             static_cast<int>(d.batch),
                             static_cast<int>(NewRows(d)),
                             static_cast<int>(d.kv_heads()),
                             static_cast<int>(dim),
                             {cached.batch, cached.row, cached.head}},
                            stream_);
        }
      }
      using Placed = std::pair<const void*, AttentionStrides>;
      return cache == nullptr ? Placed(own, dense) : Placed(cache, cached);
    };
    std::tie(operands.k, operands.k_strides) =
        keys(*weights_.k, t.k_cache, memory + workspace_.k, d.head_dim, d.k_strides());
    std::tie(operands.v, operands.v_strides) =
        keys(*weights_.v, t.v_cache, memory + workspace_.v, d.v_dim(), d.v_strides());
    if (error.ok()) error = attention_.Run(operands, memory, stream_);
    if (!error.ok()) return error;
    const int64_t y_stride = d.y_stride ? d.y_stride : d.model_dim;
    return Project(*weights_.o, operands.o, d.seqlen_q, d.num_heads * d.v_dim(), t.y,
                   {d.seqlen_q * y_stride, y_stride, 0});
  }

  // y[b, i, channel] = bias[channel] + sum_c w[channel, c] * x[b, i, c] for `rows` rows of every batch element.
  Error Project(const GemmWeights& w, const void* x, int64_t rows, int64_t x_stride, void* y,
                const AttentionStrides& y_strides) const {
    GemmArgs a = RowsProduct(desc_.batch, rows, w.channels(), w.n(), {rows * x_stride, x_stride, 1},
                             {y_strides.batch, y_strides.row, 1});
    w.Describe(a);
    a.x = x;
    a.epilogue.y = y;
    return LaunchGemm(*device_, w.math(), a, stream_);
  }

  Status Check(const Tensors& t) const {
    const std::pair<const char*, const void*> named[] = {{"q", t.q},
                                                         {"k", t.k},
                                                         {"v", t.v},
                                                         {"o", t.o},
                                                         {"x", t.x},
                                                         {"memory", t.memory},
                                                         {"y", t.y},
                                                         {"k_cache", t.k_cache},
                                                         {"v_cache", t.v_cache},
                                                         {"key_lengths", t.key_lengths},
                                                         {"mask", t.mask},
                                                         {"bias", t.bias},
                                                         {"alibi_slopes", t.alibi_slopes},
                                                         {"lse", t.lse},
                                                         {"weights", t.weights}};
    for (const auto& [name, pointer] : named) {
      if (Status s = CheckDevicePointer(ToString(desc_), name, pointer); !s.ok()) return s;
    }
    if (t.key_lengths == nullptr) return {};
    std::vector<int32_t> lengths(static_cast<size_t>(desc_.batch));
    const Error error = Download(lengths.data(), t.key_lengths, lengths.size() * sizeof(int32_t), stream_);
    if (!error.ok()) return DeviceStatus(ToString(desc_), "reading key_lengths", error);
    for (size_t b = 0; b < lengths.size(); ++b) {
      if (lengths[b] < 0 || lengths[b] > desc_.seqlen_kv) {
        return InvalidArgument(ToString(desc_) + ": key_lengths must lie in [0, seqlen_kv], got batch=" +
                               std::to_string(b) + " key_length=" + std::to_string(lengths[b]));
      }
    }
    return {};
  }

  int64_t Element() const { return static_cast<int64_t>(SizeOf(desc_.dtype)); }

  AttentionForm form_;
  Desc desc_;
  const Device* device_;
  void* stream_;
  LayerWeights weights_;
  Attention attention_;
  Workspace workspace_;
  DeviceWorkspace own_;  // for calls without scratch
};

// Rows, outputs and inputs of the four products.
struct Product {
  int64_t rows, n, k;
};
std::vector<Product> ProductsOf(const Desc& d) {
  if (!d.projections) return {};
  const Sizes sizes(d);
  const int64_t tokens = d.batch * d.seqlen_q, keys = d.batch * NewRows(d);
  return {{tokens, sizes.q_row, d.model_dim},
          {keys, sizes.k_row, sizes.memory_dim},
          {keys, sizes.v_row, sizes.memory_dim},
          {tokens, d.model_dim, sizes.o_row}};
}

template <AttentionForm kForm>
Judgement Judge(const Desc& d, const Context& context) {
  const Result<const Device*> device = DeviceFor(context.stream);
  if (!device.ok()) return Refused(device.status().message());
  if (std::string why = Attention::Refuses(kForm, d, **device); !why.empty()) return Refused(std::move(why));
  double ns = Attention(kForm, d, **device).PredictNs();
  for (const Product& p : ProductsOf(d)) {
    if (std::string why = RefusesGemm(p.rows, p.n, p.k, 1); !why.empty()) return Refused(std::move(why));
    ns += PredictGemm(**device, NativeMath(d.dtype), RowsProduct(1, p.rows, p.k, p.n, {}, {}));
  }
  return Accepted(ns);
}

template <AttentionForm kForm>
Result<std::shared_ptr<const Kernel<MultiHeadAttention>>> Prepare(const Desc& d, const MultiHeadAttentionWeights& w,
                                                                  const Context& context) {
  const Result<const Device*> device = DeviceFor(context.stream);
  if (!device.ok()) return device.status();
  LayerWeights packed;
  if (d.projections) {
    const Sizes s(d);
    const struct {
      std::shared_ptr<const GemmWeights>& to;
      const void *w, *bias;
      int64_t n, channels;
    } products[] = {{packed.q, w.wq, w.bq, s.q_row, d.model_dim},
                    {packed.k, w.wk, w.bk, s.k_row, s.memory_dim},
                    {packed.v, w.wv, w.bv, s.v_row, s.memory_dim},
                    {packed.o, w.wo, w.bo, d.model_dim, s.o_row}};
    for (const auto& p : products) {
      auto weights = GemmWeights::Pack(ToString(d), NativeMath(d.dtype),
                                       {.w = p.w,
                                        .bias = d.projection_bias ? p.bias : nullptr,
                                        .n = static_cast<int>(p.n),
                                        .channels = static_cast<int>(p.channels),
                                        .n_stride = p.channels});
      if (!weights.ok()) return weights.status();
      p.to = *weights;
    }
  }
  return AttentionOperator::Make(kForm, d, *device, context.stream, packed);
}

constexpr Candidate<MultiHeadAttention> kCandidates[] = {
    {"flash", Judge<AttentionForm::kFlash>, Prepare<AttentionForm::kFlash>},
    {"flash_wgmma", Judge<AttentionForm::kFlashWgmma>, Prepare<AttentionForm::kFlashWgmma>},
    {"split_kv", Judge<AttentionForm::kSplitKv>, Prepare<AttentionForm::kSplitKv>}};

}  // namespace

CandidateList<MultiHeadAttention> MultiHeadAttentionCandidates() { return kCandidates; }

}  // namespace lamina::cuda
