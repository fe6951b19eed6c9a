// additive_attention on CUDA: core/additive.h says how the work is shared. One candidate; what its kernels' grids are
// is chosen for every descriptor anew, from sizes and device alone.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cuda/additive.h"
#include "kernels/cuda/core/cost.h"
#include "kernels/cuda/core/element.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/image.h"
#include "kernels/cuda/workspace.h"
#include "kernels/operators/additive_fold.h"
#include "kernels/operators/backends.h"
#include "kernels/operators/prepared_keys.h"

namespace lamina::cuda {
namespace {

using Op = AdditiveAttention::Base;
using Desc = AdditiveAttentionDesc;

int64_t StrideOf(int64_t asked, int64_t dense) { return asked ? asked : dense; }

// Shared by all operators that Reshape makes.
struct Packed {
  std::shared_ptr<const GemmWeights> query_w, key_w;  // units change their signs together with v'
  std::shared_ptr<const DeviceMemory> memory;
  ScoreVectors vectors;
  int unit_stride = 0;
  uint64_t writer = 0;  // what prepared keys are known by
};

// w [units, dim] and bias, each unit times its sign.
Result<std::shared_ptr<const GemmWeights>> PackSigned(const Desc& d, const void* w, int64_t dim, const void* bias,
                                                      const std::vector<float>& sign) {
  const size_t element = SizeOf(d.dtype);
  const auto negate = [&](const void* from, size_t row) {  // the highest bit of an element of any dtype is its sign
    const auto units = static_cast<size_t>(d.units);
    std::vector<std::byte> copy(units * row * element);
    std::memcpy(copy.data(), from, copy.size());
    for (size_t i = 0; i < units * row; ++i) {
      if (sign[i / row] < 0) copy[(i + 1) * element - 1] ^= std::byte{0x80};
    }
    return copy;
  };
  const auto signed_w = negate(w, static_cast<size_t>(dim));
  const auto signed_bias = bias != nullptr ? negate(bias, 1) : std::vector<std::byte>();
  return GemmWeights::Pack(ToString(d), NativeMath(d.dtype),
                           {.w = signed_w.data(),
                            .bias = bias != nullptr ? signed_bias.data() : nullptr,
                            .n = static_cast<int>(d.units),
                            .channels = static_cast<int>(dim),
                            .n_stride = dim});
}

Result<std::shared_ptr<const Packed>> Pack(const Desc& d, const AdditiveAttentionWeights& w) {
  auto packed = std::make_shared<Packed>();
  packed->writer = prepared_keys::NewWriter();
  const auto count = static_cast<size_t>(d.units), stride = static_cast<size_t>(RoundUp(d.units, kUnitChunk));
  packed->unit_stride = static_cast<int>(stride);
  std::vector<double> v(count);
  for (size_t u = 0; u < count; ++u) v[u] = LoadElement(w.v, d.dtype, static_cast<int64_t>(u));
  const double g = d.normalized ? LoadElement(w.g, d.dtype, 0) : 1.0f;
  additive::Normalize(d.normalized ? &g : nullptr, count, v.data());
  std::vector<float> vectors(3 * stride), sign(stride);
  additive::Fold fold{vectors.data(), vectors.data() + stride, vectors.data() + 2 * stride, sign.data(), 1, 0};
  additive::FoldVector(v.data(), count, stride, 1, fold);
  auto memory = DeviceMemory::Upload(ToString(d), vectors.data(), vectors.size() * sizeof(float));
  if (!memory.ok()) return memory.status();
  packed->memory = *memory;
  const auto* on_device = packed->memory->as<const float>();
  constexpr float kLog2E = 1.44269504f;
  packed->vectors = {on_device, on_device + stride, on_device + 2 * stride, kLog2E * fold.scale, -2 * kLog2E};
  auto query_w = PackSigned(d, w.query_w, d.query_dim, d.bias ? w.bias : nullptr, sign);
  if (!query_w.ok()) return query_w.status();
  auto key_w = PackSigned(d, w.key_w, d.key_dim, nullptr, sign);
  if (!key_w.ok()) return key_w.status();
  packed->query_w = *query_w;
  packed->key_w = *key_w;
  return std::shared_ptr<const Packed>(packed);
}

// How the queries are shared out.
struct Plan {
  Plan(const Desc& d, const Device& device) {
    band = static_cast<int>(std::clamp<int64_t>(d.queries, 1, kMostBand));
    bands = static_cast<int>(DivUp(d.queries, band));
    score_stride = RoundUp(d.keys, 4);
    const int64_t all = d.batch * bands, slots = device.multiprocessors;
    const int64_t fit = slots * kSlabBytesPerMultiprocessor / std::max<int64_t>(4 * band * score_stride, 1);
    slab_bands = static_cast<int>(std::clamp<int64_t>(fit, 1, std::max<int64_t>(all, 1)));
    // Tiles do a pair of query and key in about four fifths of the time, where they are full and fill the device.
    const int64_t tiles = all * DivUp(d.keys, kMostBand);
    tile_pairs = RoundUp(tiles, slots) * kMostBand * kMostBand;
    row_pairs = d.batch * RoundUp(d.queries, d.queries == 1 ? 1 : 4) * RoundUp(d.keys, 4);
    uses_tiles = 4 * tile_pairs <= 5 * row_pairs;
    const bool many = d.queries > 4 && all * DivUp(band, 16) * DivUp(d.context_dim(), 64) >= slots;
    score_queries = d.queries == 1 ? 1 : 4;
    context_queries = many ? 16 : score_queries;
  }
  int band, bands, slab_bands;
  int64_t score_stride, tile_pairs, row_pairs;
  bool uses_tiles;
  int score_queries, context_queries;  // that a block takes at a time
};

// Where the parts of prepared keys lie, in bytes from their beginning: after the head.
struct KeyLayout {
  KeyLayout(const Desc& d, int unit_stride) {
    peaks = prepared_keys::HeadBytes(d);
    rows = peaks + static_cast<size_t>(RoundUp(d.batch * d.keys, 64)) * sizeof(float);
    bytes = rows + static_cast<size_t>(d.batch * d.keys * unit_stride) * sizeof(float);
  }
  size_t peaks;  // float [batch, keys]
  size_t rows;   // float [batch, keys, unit_stride]
  size_t bytes;
};

// Scratch, in bytes from its beginning: after the queries' projections.
struct Layout {
  Layout(const Desc& d, const Plan& plan, int unit_stride) {
    const auto floats = [](int64_t count) { return static_cast<size_t>(RoundUp(count, 64)) * sizeof(float); };
    const size_t queries = floats(d.batch * d.queries * unit_stride);
    exponentials = queries;
    peaks = exponentials + (plan.uses_tiles ? queries : 0);
    scores = peaks + (plan.uses_tiles ? floats(d.batch * d.queries) : 0);
    keys = scores + floats(plan.slab_bands * plan.band * plan.score_stride);
    bytes = keys + static_cast<size_t>(RoundUp(static_cast<int64_t>(KeyLayout(d, unit_stride).bytes), 64));
  }
  size_t exponentials, peaks, scores, keys, bytes;
};

// Whether a tensor's rows of dim elements can be read four at a time.
bool TakesQuads(const void* data, int64_t dim, int64_t stride, DType dtype) {
  return dim % 4 == 0 && TakesVectors(4, {0, stride, 1}, data, SizeOf(dtype));
}

class AdditiveAttentionKernel final : public Kernel<Op> {
 public:
  static Result<std::shared_ptr<const Kernel>> Make(const Desc& d, const Device* device, void* stream,
                                                    std::shared_ptr<const Packed> packed,
                                                    const DeviceWorkspace& known = nullptr) {
    const std::shared_ptr<AdditiveAttentionKernel> kernel(
        new AdditiveAttentionKernel(d, device, stream, std::move(packed)));
    auto workspace = WorkspaceOf(ToString(d), kernel->layout_.bytes, known);
    if (!workspace.ok()) return workspace.status();
    kernel->workspace_ = std::move(*workspace);
    return std::shared_ptr<const Kernel>(kernel);
  }

  Status Run(const AdditiveAttentionTensors& t, std::byte* scratch) const override {
    scratch = MemoryOf(scratch, workspace_);
    if (Status s = Validate(t); !s.ok()) return s;
    const auto* keys = static_cast<const std::byte*>(t.prepared_keys);
    if (keys == nullptr) {
      if (Status s = Enqueue(EnqueueKeys(t.keys, t.key_lengths, scratch + layout_.keys)); !s.ok()) return s;
      keys = scratch + layout_.keys;
    }
    return Enqueue(EnqueueQueries(t, keys, scratch));
  }

  Status PrepareKeys(const void* keys, const int32_t* key_lengths, std::byte* prepared, std::byte*) const override {
    if (Status s = ValidatePointers(d_, {{"keys", keys}, {"key_lengths", key_lengths}, {"prepared_keys", prepared}});
        !s.ok()) {
      return s;
    }
    std::vector<int32_t> lengths;
    if (Status s = ValidateLengths(key_lengths, lengths); !s.ok()) return s;
    return Enqueue(EnqueueKeys(keys, key_lengths, prepared));
  }

  size_t prepared_keys_bytes() const override { return key_layout_.bytes; }
  size_t scratch_bytes() const override { return layout_.bytes; }
  size_t packed_bytes() const override {
    return packed_->query_w->bytes() + packed_->key_w->bytes() + packed_->memory->bytes();
  }
  Result<std::shared_ptr<const Kernel>> Reshape(const Desc& desc) const override {
    return Make(desc, device_, stream_, packed_, workspace_);
  }

 private:
  AdditiveAttentionKernel(const Desc& d, const Device* device, void* stream, std::shared_ptr<const Packed> packed)
      : d_(d),
        device_(device),
        stream_(stream),
        packed_(std::move(packed)),
        plan_(d, *device),
        key_layout_(d, packed_->unit_stride),
        layout_(d, plan_, packed_->unit_stride) {}

  Status Enqueue(Error error) const {
    return error.ok() ? Status() : DeviceStatus(ToString(d_), "starting the kernels", error);
  }

  // y[row, :] = w x[row] + bias in f32, for `images` times `rows` rows of which those behind a length count as zeros.
  Error Project(const GemmWeights& w, const void* x, int64_t stride, int64_t images, int64_t rows,
                const int32_t* lengths, float* y) const {
    GemmArgs a = RowsProduct(images, rows, w.channels(), w.n(), {rows * stride, stride, 1},
                             {rows * packed_->unit_stride, packed_->unit_stride, 1});
    w.Describe(a);
    a.lengths = lengths;
    a.x = x;
    a.epilogue.f32 = true;
    a.epilogue.y = y;
    return LaunchGemm(*device_, w.math(), a, stream_);
  }

  Error EnqueueKeys(const void* keys, const int32_t* key_lengths, std::byte* prepared) const {
    AdditiveKeysArgs a;
    a.key = reinterpret_cast<float*>(prepared + key_layout_.rows);
    if (d_.keys > 0) {
      const Error error =
          Project(*packed_->key_w, keys, StrideOf(d_.key_stride, d_.key_dim), d_.batch, d_.keys, key_lengths, a.key);
      if (!error.ok()) return error;
    }
    a.rows = static_cast<int>(d_.batch * d_.keys);
    a.keys = Divider::Of(static_cast<uint32_t>(std::max<int64_t>(d_.keys, 1)));
    a.units = static_cast<int>(d_.units);
    a.unit_stride = packed_->unit_stride;
    a.key_lengths = key_lengths;
    a.peak = reinterpret_cast<float*>(prepared + key_layout_.peaks);
    a.head = {packed_->writer, d_.batch, d_.keys};
    a.prepared = reinterpret_cast<prepared_keys::Head*>(prepared);
    return StartAdditiveKeys(a, stream_);
  }

  AdditiveArgs Args(const AdditiveAttentionTensors& t, const std::byte* keys, std::byte* scratch) const {
    AdditiveArgs a;
    a.queries = static_cast<int>(d_.queries);
    a.keys = static_cast<int>(d_.keys);
    a.units = static_cast<int>(d_.units);
    a.unit_stride = packed_->unit_stride;
    a.key_lengths = t.key_lengths;
    a.prepared_lengths = reinterpret_cast<const int32_t*>(keys + sizeof(prepared_keys::Head));
    a.mask = d_.mask ? t.mask : nullptr;
    a.mask_queries = static_cast<int>(d_.mask_queries);
    a.vectors = packed_->vectors;
    a.query = reinterpret_cast<const float*>(scratch);
    a.query_exponential = reinterpret_cast<const float*>(scratch + layout_.exponentials);
    a.query_peak = reinterpret_cast<const float*>(scratch + layout_.peaks);
    a.key = reinterpret_cast<const float*>(keys + key_layout_.rows);
    a.key_peak = reinterpret_cast<const float*>(keys + key_layout_.peaks);
    a.band = plan_.band;
    a.bands = plan_.bands;
    a.scores = reinterpret_cast<float*>(scratch + layout_.scores);
    a.score_stride = plan_.score_stride;
    const int64_t dim = d_.context_dim();
    a.dim = static_cast<int>(dim);
    a.values = d_.value_dim ? t.values : t.keys;
    a.value_stride = StrideOf(d_.value_dim ? d_.value_stride : d_.key_stride, dim);
    a.value_quads = TakesQuads(a.values, dim, a.value_stride, d_.dtype);
    a.context = t.context;
    a.context_stride = StrideOf(d_.context_stride, dim);
    a.context_quads = TakesQuads(a.context, dim, a.context_stride, d_.dtype);
    a.weights = t.weights;
    return a;
  }

  Error EnqueueQueries(const AdditiveAttentionTensors& t, const std::byte* keys, std::byte* scratch) const {
    AdditiveArgs a = Args(t, keys, scratch);
    const int64_t rows = d_.batch * d_.queries;
    Error error = Project(*packed_->query_w, t.query, StrideOf(d_.query_stride, d_.query_dim), 1, rows, nullptr,
                          reinterpret_cast<float*>(scratch));
    if (error.ok() && plan_.uses_tiles) {
      error = StartAdditiveQueries(
          {static_cast<int>(rows), a.units, a.unit_stride, a.query, a.vectors.factor,
           reinterpret_cast<float*>(scratch + layout_.exponentials), reinterpret_cast<float*>(scratch + layout_.peaks)},
          stream_);
    }
    const int all = static_cast<int>(d_.batch) * plan_.bands;
    for (a.first_band = 0; a.first_band < all && error.ok(); a.first_band += plan_.slab_bands) {
      a.slab_bands = std::min(plan_.slab_bands, all - a.first_band);
      if (d_.keys > 0) {
        error = plan_.uses_tiles ? StartAdditiveTiles(a, stream_) : StartAdditiveRows(a, plan_.score_queries, stream_);
      }
      if (error.ok()) error = StartContext(a);
    }
    return error;
  }

  Error StartContext(const AdditiveArgs& a) const {
    switch (d_.dtype) {
      case DType::kBf16: return StartAdditiveContext<Bf16>(a, plan_.context_queries, stream_);
      case DType::kF16: return StartAdditiveContext<F16>(a, plan_.context_queries, stream_);
      default: return StartAdditiveContext<float>(a, plan_.context_queries, stream_);
    }
  }

  // What LAMINA_VALIDATE=1 asks for.
  Status Validate(const AdditiveAttentionTensors& t) const {
    if (Status s = ValidatePointers(d_, {{"query", t.query},
                                         {"keys", t.keys},
                                         {"values", t.values},
                                         {"prepared_keys", t.prepared_keys},
                                         {"key_lengths", t.key_lengths},
                                         {"mask", t.mask},
                                         {"context", t.context},
                                         {"weights", t.weights}});
        !s.ok() || !Validates()) {
      return s;
    }
    std::vector<int32_t> lengths;
    if (Status s = ValidateLengths(t.key_lengths, lengths); !s.ok() || t.prepared_keys == nullptr) return s;
    std::vector<std::byte> head(prepared_keys::HeadBytes(d_));
    if (const Error e = Download(head.data(), t.prepared_keys, head.size(), stream_); !e.ok()) {
      return DeviceStatus(ToString(d_), "reading prepared_keys", e);
    }
    return prepared_keys::CheckHead(d_, packed_->writer, lengths.empty() ? nullptr : lengths.data(), head.data());
  }
  // Fills `lengths` where there are any and Validates() asks to look at them.
  Status ValidateLengths(const int32_t* key_lengths, std::vector<int32_t>& lengths) const {
    if (key_lengths == nullptr || !Validates()) return {};
    lengths.resize(static_cast<size_t>(d_.batch));
    if (const Error e = Download(lengths.data(), key_lengths, lengths.size() * sizeof(int32_t), stream_); !e.ok()) {
      return DeviceStatus(ToString(d_), "reading key_lengths", e);
    }
    return prepared_keys::CheckLengths(d_, lengths.data());
  }

  Desc d_;
  const Device* device_;
  void* stream_;
  std::shared_ptr<const Packed> packed_;
  Plan plan_;
  KeyLayout key_layout_;
  Layout layout_;
  DeviceWorkspace workspace_;
};

Judgement Judge(const Desc& d, const Context& context) {
  const Result<const Device*> found = DeviceFor(context.stream);
  if (!found.ok()) return Refused(found.status().message());
  const Device& device = **found;
  const int64_t rows = d.batch * d.queries, key_rows = d.batch * d.keys;
  for (const auto& [m, k] : {std::pair{std::max(rows, d.batch), d.query_dim}, {key_rows, d.key_dim}}) {
    if (std::string why = RefusesGemm(m, d.units, k, 1); !why.empty()) return Refused(std::move(why));
  }
  if (rows * DivUp(d.context_dim(), 64) > INT32_MAX) return Refused("takes at most 2^31 - 1 blocks of 64 outputs");
  const Plan plan(d, device);
  const Math math = NativeMath(d.dtype);
  const auto slots = static_cast<double>(device.multiprocessors);
  // Instructions: 3.6 for an element of a score, one for a product of the context with its share of the softmax.
  const auto pairs = static_cast<double>(plan.uses_tiles ? plan.tile_pairs : plan.row_pairs * 5 / 4);
  const double instructions =
      pairs * static_cast<double>(RoundUp(d.units, kUnitChunk)) * 3.6 +
      static_cast<double>(rows) * static_cast<double>(d.keys) * static_cast<double>(d.context_dim()) * 1.3;
  const double bytes = static_cast<double>(key_rows) * static_cast<double>(d.units * 4 + d.context_dim() * 4);
  return Accepted(PredictGemm(device, math, RowsProduct(1, rows, d.query_dim, d.units, {}, {})) +
                  PredictGemm(device, math, RowsProduct(1, key_rows, d.key_dim, d.units, {}, {})) + 2 * kLaunchNs +
                  PredictNs(device.figures(), instructions, PortableFlopsPerClock(device.capability, Math::kF32) / 2,
                            bytes, slots, 1));
}

Result<std::shared_ptr<const Kernel<Op>>> Prepare(const Desc& d, const AdditiveAttentionWeights& weights,
                                                  const Context& context) {
  const Result<const Device*> device = DeviceFor(context.stream);
  if (!device.ok()) return device.status();
  auto packed = Pack(d, weights);
  if (!packed.ok()) return packed.status();
  return AdditiveAttentionKernel::Make(d, *device, context.stream, std::move(*packed));
}

constexpr Candidate<Op> kCandidates[] = {{"reciprocal_quad", &Judge, &Prepare}};

}  // namespace

CandidateList<Op> AdditiveAttentionCandidates() { return kCandidates; }

}  // namespace lamina::cuda
