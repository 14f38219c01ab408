#include "cli/commands/program.hpp"

int main(int argc, char** argv) {
  return educloud::cli::run_program(argc, argv);
}
