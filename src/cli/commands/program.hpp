#pragma once

#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace educloud::cli {

struct Context;

/// The whole command line: every command and option, nothing run yet.
std::unique_ptr<CLI::App> make_app(Context& context);

/// Runs the program and returns its exit code (exit_code.hpp).
int run_program(int argc, const char* const* argv);

}  // namespace educloud::cli
