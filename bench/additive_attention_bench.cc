// The suite's rows of additive_attention.
#include "bench/runner.h"

int main(int argc, char** argv) { return lamina::bench::RunSuite("additive_attention", argc, argv); }
