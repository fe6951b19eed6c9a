// The suite's rows of fully_connected.
#include "bench/runner.h"

int main(int argc, char** argv) { return lamina::bench::RunSuite("fully_connected", argc, argv); }
