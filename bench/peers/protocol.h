// What the programs that time a C++ library share. A program serves one library: it reads requests from its standard
// input, one line each, and answers each with one line of JSON.
//   request:  ROW SECONDS ALLOCATIONS COLD VARIANT OUTPUT OPERATOR field=value ... [; OPERATOR field=value ...]
//   answer:   {"row": ..., "us": ..., "implementation": ...} or {"row": ..., "refused": "the library's words"}
// COLD is 0 or 1, VARIANT "any" or "direct", OUTPUT a file for the result (float32, Lamina's layout) or "-". Several
// problems are the layers of a network: run in order, timed as one. Fields and layouts are those of include/lamina.
#ifndef LAMINA_BENCH_PEERS_PROTOCOL_H_
#define LAMINA_BENCH_PEERS_PROTOCOL_H_

#include <any>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace peers {

struct Problem {
  std::string op;
  std::map<std::string, std::string> fields;
  bool layer = false;  // of a network: weights are scaled so that values neither grow nor vanish

  int64_t Int(const std::string& name, int64_t otherwise) const;
  std::string Text(const std::string& name, const std::string& otherwise) const;
};

// "clamp(0,6)" as kind "clamp" with alpha 0 and beta 6. relu and relu6 are told as the clamps that they are.
struct Activation {
  std::string kind;
  float alpha = 0, beta = 0;
};
Activation ParseActivation(const std::string& text);

// A convolution; pointwise and depthwise steps of a separable one are of this form too.
struct Conv {
  int64_t n, ih, iw, ic, oc, kh, kw, stride_h, stride_w, dilation_h, dilation_w;
  int64_t pad_top, pad_left, pad_bottom, pad_right, groups;
  bool bias;
  Activation activation;
  std::string residual;  // none, before, after
  int weights_seed;      // of w; bias: one more
  float weights_scale;   // 1, or 1 / sqrt(terms) in a network

  int64_t oh() const { return (ih + pad_top + pad_bottom - dilation_h * (kh - 1) - 1) / stride_h + 1; }
  int64_t ow() const { return (iw + pad_left + pad_right - dilation_w * (kw - 1) - 1) / stride_w + 1; }
};
// The steps of a conv2d or separable_conv2d, in order.
std::vector<Conv> ConvSteps(const Problem& problem);

// count values, uniform in (-1, 1) times scale; the same for a seed in every program (reference.py has the formula).
std::vector<float> Uniform(int seed, int64_t count, float scale = 1);

// Memory at addresses whose last twelve bits differ from tensor to tensor and from allocation to allocation.
class Arena {
 public:
  explicit Arena(int allocation) : next_(allocation * 5) {}
  ~Arena();
  Arena(const Arena&) = delete;
  float* Floats(int64_t count);
  float* Copy(const std::vector<float>& values);

 private:
  int next_;
  std::vector<void*> blocks_;
};

struct Prepared {
  std::function<void()> run;
  std::function<std::vector<float>()> output;  // in Lamina's layout
  std::string implementation;
  std::any result;  // the library's own name of the output, for the layer after it
};

// Throws std::exception with the library's words where it refuses. before: the layer before in a network, or null; its
// result is to be the input where it has its shape.
using Prepare = std::function<Prepared(const Problem& problem, Arena& arena, const Prepared* before)>;

// Serves requests until the input ends.
int Serve(const Prepare& prepare);

}  // namespace peers

#endif  // LAMINA_BENCH_PEERS_PROTOCOL_H_
