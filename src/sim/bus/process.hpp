#pragma once

#include <functional>

#include "sim/bus/timeline.hpp"

namespace educloud::sim {

/// Thrown at a point where a process is killed. No std::exception, so that nothing in the daemons takes it
/// for an error of its own: it unwinds up to Process::run.
struct Crash {};

/// A simulated process, as its bus sees it.
class Process {
 public:
  virtual ~Process() = default;
  /// Ends with the process.
  virtual const Life& life() const = 0;
  /// A place where a kill -9 shows: before and after each effect on the world. May throw Crash.
  virtual void crash_point() = 0;
  /// Lets the process do something, later if it is stopped now: so `what` refers to nothing on the stack. A
  /// Crash ends it.
  virtual void run(const std::function<void()>& what) = 0;
};

}  // namespace educloud::sim
