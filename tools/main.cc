// The `lamina` program.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "tools/commands.h"

int main(int argc, char** argv) {
  CLI::App app(
      "Kernels for the layers that make neural networks efficient: what they cost, how fast they run here, and "
      "whether\n"
      "they are right. Problems are written as text, e.g. \"conv2d ih=56 iw=56 ic=64 oc=64 kh=3 kw=3 pad_top=1\".\n"
      "Exit code: 0 fine, 1 something failed, 2 the request was wrong.",
      "lamina");
  app.require_subcommand(1);
  int exit_code = 0;
  lamina::tools::AddCompare(app, exit_code);
  lamina::tools::AddCheck(app, exit_code);
  lamina::tools::AddBench(app, exit_code);
  lamina::tools::AddCost(app, exit_code);
  lamina::tools::AddExplain(app, exit_code);
  lamina::tools::AddRegret(app, exit_code);
  lamina::tools::AddRoof(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;  // --help is no error
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lamina: %s\n", error.what());
    return 1;
  }
  return exit_code;
}
