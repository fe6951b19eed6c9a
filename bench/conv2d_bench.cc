// The suite's rows of conv2d.
#include "bench/runner.h"

int main(int argc, char** argv) { return lamina::bench::RunSuite("conv2d", argc, argv); }
