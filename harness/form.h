// A convolution block in its forms: standard, depthwise-separable in both orders, and the steps of these.
#ifndef LAMINA_HARNESS_FORM_H_
#define LAMINA_HARNESS_FORM_H_

#include <optional>
#include <string_view>
#include <vector>

#include "harness/network.h"

namespace lamina::harness {

// A convolution block is a separable_conv2d, or a conv2d with one group, a kernel above 1x1 and more channels than an
// image has. As written, it may also be an inverted residual (pw_dw_pw).
enum class Form { kAsWritten, kStandard, kDwPw, kPwDw };
std::string_view ToString(Form form);  // "as_written", "standard", "dw_pw", "pw_dw"
Result<Form> ParseForm(std::string_view text);

bool IsBlock(const Problem& problem);

// The block's input, output, kernel, stride and last activation in another form; nullopt when it is no block.
// dw_pw has the block's activation after both steps, pw_dw none in the middle.
std::optional<Problem> InForm(const Problem& problem, Form form);

// Every block of the network in that form, the other layers as they are.
Network InForm(const Network& network, Form form);

// The two steps of a separable_conv2d in order dw_pw or pw_dw, each as a conv2d; empty for any other problem.
std::vector<Conv2dDesc> StepsOf(const Problem& problem);

// What theory says that a form needs of the standard convolution's parameters and multiply-accumulates, biases left
// out:
//   dw_pw  1 / oc + 1 / k^2 of both (Howard et al. 2017, section 3.1)
//   pw_dw  1 / k^2 + 1 / ic of the parameters, s^2 / k^2 + 1 / ic of the MACs: its pointwise step runs before the
//   stride
// with k^2 = kh * kw, s^2 = stride_h * stride_w (where stride divides the image). {1, 1} for any other problem.
struct TheoryRatio {
  double params = 1, macs = 1;
};
TheoryRatio TheoryOf(const Problem& problem);

}  // namespace lamina::harness

#endif  // LAMINA_HARNESS_FORM_H_
