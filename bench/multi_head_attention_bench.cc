// The suite's rows of multi_head_attention.
#include "bench/runner.h"

int main(int argc, char** argv) { return lamina::bench::RunSuite("multi_head_attention", argc, argv); }
