#pragma once

#include <cstdio>

namespace educloud::test {

/// Tells scripts/faults that a fault of that row of tests/faults/table.py was injected `count` times.
inline void injected(const char* row, int count = 1) {
  std::printf("FAULT %s %d\n", row, count);
  std::fflush(stdout);
}

}  // namespace educloud::test
