// MobileNetV1's blocks as standard convolutions and as separable ones in both orders, row by row.
#include <cstdio>

#include "bench/runner.h"
#include "harness/form.h"

int main(int argc, char** argv) {
  using namespace lamina::harness;
  const auto network = LoadNetwork("mobilenet_v1");
  if (!network.ok()) {
    std::fprintf(stderr, "%s\n", network.status().message().c_str());
    return 2;
  }
  for (const Layer& layer : network->layers) {
    for (Form form : {Form::kStandard, Form::kDwPw, Form::kPwDw}) {
      if (const auto problem = InForm(layer.problem, form)) {
        lamina::bench::AddRows(layer.name + "/" + std::string(ToString(form)), *problem);
      }
    }
  }
  return lamina::bench::Run(argc, argv);
}
