// An operator that is one matrix product: conv2d and fully_connected differ in GemmTraits<Op> alone.
#ifndef LAMINA_KERNELS_CUDA_GEMM_OPERATOR_H_
#define LAMINA_KERNELS_CUDA_GEMM_OPERATOR_H_

#include <memory>
#include <string>
#include <utility>

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/sm90_gemm.h"
#include "kernels/cuda/workspace.h"
#include "kernels/operators/candidate.h"

namespace lamina::cuda {

// GemmTraits<Op>::
//   Shape(desc)            GemmArgs without pointers
//   Host(desc, weights)    where the weights lie
//   Sizes(desc)            rows, n, k, groups
template <class Op>
struct GemmTraits;

struct GemmSizes {
  int64_t rows, n, k, groups;
};

// The portable kernel, as WgmmaProduct (sm90_gemm.h) is Hopper's.
class PortableProduct {
 public:
  static constexpr int Parts(Math) { return 1; }
  static std::string Refuses(const Device&, Math, const GemmArgs&) { return ""; }
  static double Predict(const Device& device, Math math, const GemmArgs& a) { return PredictGemm(device, math, a); }
  static Result<std::shared_ptr<const PortableProduct>> Make(const std::string&, const Device* device, Math math,
                                                             const GemmArgs& args) {
    return std::make_shared<const PortableProduct>(device, math, PartialBytes(*device, math, args));
  }
  PortableProduct(const Device* device, Math math, size_t scratch_bytes)
      : device_(device), math_(math), scratch_bytes_(scratch_bytes) {}
  size_t scratch_bytes() const { return scratch_bytes_; }
  // `scratch`: scratch_bytes() on the device.
  Error Launch(const GemmArgs& args, std::byte* scratch, void* stream) const {
    return LaunchGemm(*device_, math_, args, stream, scratch_bytes_ > 0 ? scratch : nullptr);
  }

 private:
  const Device* device_;
  Math math_;
  size_t scratch_bytes_;
};

template <class Op, class Product>
class GemmOperator final : public Kernel<Op> {
 public:
  using Desc = typename Op::Desc;

  GemmOperator(const Desc& desc, const Device* device, void* stream, std::shared_ptr<const GemmWeights> weights,
               std::shared_ptr<const Product> product, const GemmArgs& args, DeviceWorkspace own)
      : desc_(desc),
        device_(device),
        stream_(stream),
        weights_(std::move(weights)),
        product_(std::move(product)),
        args_(args),
        own_(std::move(own)) {}

  Status Run(const typename Op::Tensors& t, std::byte* scratch) const override {
    if (Status s = ValidatePointers(desc_, {{"x", t.x}, {"y", t.y}, {"residual", t.residual}, {"scratch", scratch}});
        !s.ok()) {
      return s;
    }
    GemmArgs args = args_;
    args.x = t.x;
    args.epilogue.y = t.y;
    args.epilogue.residual = t.residual;
    const Error error = product_->Launch(args, MemoryOf(scratch, own_), stream_);
    return error.ok() ? Status() : DeviceStatus(ToString(desc_), "starting the kernel", error);
  }

  size_t scratch_bytes() const override { return product_->scratch_bytes(); }
  size_t packed_bytes() const override { return weights_->bytes(); }
  Result<std::shared_ptr<const Kernel<Op>>> Reshape(const Desc& desc) const override {
    return Make(desc, device_, stream_, weights_, own_);
  }

  template <Math kMath>
  static Judgement Judge(const Desc& d, const Context& context) {
    const Result<const Device*> device = DeviceFor(context.stream);
    if (!device.ok()) return Refused(device.status().message());
    if (kMath != Math::kF32 && d.dtype != DType::kF32) return Refused("computes in f32, got another dtype");
    const GemmSizes s = GemmTraits<Op>::Sizes(d);
    if (std::string why = RefusesGemm(s.rows, s.n, s.k, s.groups); !why.empty()) return Refused(std::move(why));
    const GemmArgs args = GemmTraits<Op>::Shape(d);
    const Math math = MathOf(kMath, d.dtype);
    if (std::string why = Product::Refuses(**device, math, args); !why.empty()) return Refused(std::move(why));
    return Accepted(Product::Predict(**device, math, args));
  }

  template <Math kMath>
  static Result<std::shared_ptr<const Kernel<Op>>> Prepare(const Desc& d, const typename Op::Weights& weights,
                                                           const Context& context) {
    const Result<const Device*> device = DeviceFor(context.stream);
    if (!device.ok()) return device.status();
    const Math math = MathOf(kMath, d.dtype);
    auto packed = GemmWeights::Pack(ToString(d), math, GemmTraits<Op>::Host(d, weights), Product::Parts(math));
    if (!packed.ok()) return packed.status();
    return Make(d, *device, context.stream, std::move(*packed));
  }

 private:
  static Result<std::shared_ptr<const Kernel<Op>>> Make(const Desc& d, const Device* device, void* stream,
                                                        std::shared_ptr<const GemmWeights> weights,
                                                        const DeviceWorkspace& known = nullptr) {
    GemmArgs args = GemmTraits<Op>::Shape(d);
    weights->Describe(args);
    auto product = Product::Make(ToString(d), device, weights->math(), args);
    if (!product.ok()) return product.status();
    auto own = WorkspaceOf(ToString(d), (*product)->scratch_bytes(), known);
    if (!own.ok()) return own.status();
    return std::shared_ptr<const Kernel<Op>>(std::make_shared<GemmOperator>(
        d, device, stream, std::move(weights), std::move(*product), args, std::move(*own)));
  }

  Desc desc_;
  const Device* device_;
  void* stream_;
  std::shared_ptr<const GemmWeights> weights_;
  std::shared_ptr<const Product> product_;
  GemmArgs args_;
  DeviceWorkspace own_;  // for calls without scratch
};

template <class Op, class Product, Math kMath>
constexpr Candidate<Op> GemmCandidate(std::string_view name, Accuracy accuracy = Accuracy::kStrict) {
  using Kernel = GemmOperator<Op, Product>;
  return {name, Kernel::template Judge<kMath>, Kernel::template Prepare<kMath>, accuracy};
}

// One candidate for each kind of products. TF32 drops 13 bits of every factor; 3 x TF32 keeps f32's accuracy in theory,
// and stays among the reduced ones until a GPU's own sums have borne that out.
template <class Op>
inline constexpr Candidate<Op> kGemmCandidates[] = {
    GemmCandidate<Op, WgmmaProduct, Math::kF32>("implicit_gemm_wgmma"),
    GemmCandidate<Op, WgmmaProduct, Math::kTf32x3>("implicit_gemm_wgmma_tf32x3", Accuracy::kReduced),
    GemmCandidate<Op, WgmmaProduct, Math::kTf32>("implicit_gemm_wgmma_tf32", Accuracy::kReduced),
    GemmCandidate<Op, PortableProduct, Math::kF32>("implicit_gemm"),
    GemmCandidate<Op, PortableProduct, Math::kTf32x3>("implicit_gemm_tf32x3", Accuracy::kReduced),
    GemmCandidate<Op, PortableProduct, Math::kTf32>("implicit_gemm_tf32", Accuracy::kReduced)};

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_GEMM_OPERATOR_H_
