// The suite's rows of separable_conv2d.
#include "bench/runner.h"

int main(int argc, char** argv) { return lamina::bench::RunSuite("separable_conv2d", argc, argv); }
