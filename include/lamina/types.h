// The small words that descriptors are made of: element types, layouts, activations, residuals.
#ifndef LAMINA_TYPES_H_
#define LAMINA_TYPES_H_

#include <cstddef>
#include <cstdint>

namespace lamina {

enum class DType : int32_t { kF32 = 0, kBf16 = 1, kF16 = 2 };

// Bytes of one element.
constexpr size_t SizeOf(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

// Images: [n, h, w, c] or [n, c, h, w], slowest dimension first.
enum class Layout : int32_t { kNhwc = 0, kNchw = 1 };

// Convolution weights: [oc, kh, kw, ic / groups] or [oc, ic / groups, kh, kw], whatever the image's layout.
enum class WeightLayout : int32_t { kOhwi = 0, kOihw = 1 };

// Fully connected weights: [oc, ic] or [ic, oc].
enum class MatrixLayout : int32_t { kOi = 0, kIo = 1 };

enum class ActivationKind : int32_t {
  kNone = 0,
  kRelu = 1,         // max(x, 0)
  kRelu6 = 2,        // min(max(x, 0), 6)
  kClamp = 3,        // min(max(x, alpha), beta)
  kLeakyRelu = 4,    // x >= 0 ? x : alpha * x
  kHardswish = 5,    // x * clamp(x + 3, 0, 6) / 6
  kHardsigmoid = 6,  // clamp(alpha * x + beta, 0, 1)
  kSigmoid = 7,      // 1 / (1 + exp(-x))
  kSilu = 8,         // x * sigmoid(x)
  kGeluErf = 9,      // x / 2 * (1 + erf(x / sqrt(2)))
  kGeluTanh = 10,    // x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
  kTanh = 11,
  kElu = 12,  // x >= 0 ? x : alpha * (exp(x) - 1)
};

// An activation and its parameters, as text: "relu6", "clamp(0,6)", "leaky(0.1)", "elu(1)", "hardsigmoid(0.2,0.5)".
// NaN goes through every one of them.
struct Activation {
  ActivationKind kind = ActivationKind::kNone;
  float alpha = 0.0f;
  float beta = 0.0f;
  bool operator==(const Activation&) const = default;
};

// Where a residual tensor of the output's shape is added: y = act(sum + residual), or y = act(sum) + residual.
enum class Residual : int32_t { kNone = 0, kBeforeActivation = 1, kAfterActivation = 2 };

}  // namespace lamina

#endif  // LAMINA_TYPES_H_
