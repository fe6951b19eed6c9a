// The subcommands of `lamina`. Each adds its options to `app` and, when it is the one that was asked for, leaves its
// exit code in `exit_code`: 0 all is well, 1 something failed, 2 the request was wrong.
#ifndef LAMINA_TOOLS_COMMANDS_H_
#define LAMINA_TOOLS_COMMANDS_H_

#include <CLI/CLI.hpp>

namespace lamina::tools {

void AddBench(CLI::App& app, int& exit_code);
void AddCheck(CLI::App& app, int& exit_code);
void AddCompare(CLI::App& app, int& exit_code);
void AddCost(CLI::App& app, int& exit_code);
void AddExplain(CLI::App& app, int& exit_code);
void AddRegret(CLI::App& app, int& exit_code);
void AddRoof(CLI::App& app, int& exit_code);

}  // namespace lamina::tools

#endif  // LAMINA_TOOLS_COMMANDS_H_
