#pragma once

namespace educloud::sim {

/// `educloud-sim nodes`: lightweight nodes of the configs that `educloud init` wrote, until SIGTERM. They use
/// the real bus, inbox and operations; only the hypervisor and the image cache do nothing. Call it before any
/// thread starts. Returns the exit code: 0 stopped, 1 could not start, 2 wrong usage.
int run_nodes(int argc, char** argv);

}  // namespace educloud::sim
