#pragma once

#include <chrono>
#include <optional>

#include "common/sys/file.hpp"

namespace educloud::sys {

/// First call of every main(), before any thread starts (threads inherit the mask): SIGTERM and
/// SIGINT are blocked, so that only the functions below see them, and SIGPIPE is ignored, so that a
/// closed connection is an error of write(2). Programs started by sys::run begin with both undone.
void block_stop_signals();

/// Waits until SIGTERM or SIGINT comes, or `timeout` is over (nullopt: for ever).
/// Returns the signal's number, nullopt after the timeout.
std::optional<int> wait_for_stop_signal(std::optional<std::chrono::milliseconds> timeout = std::nullopt);

/// A descriptor that becomes readable (one signalfd_siginfo) at SIGTERM or SIGINT, for a program
/// whose main thread runs an event loop. Use this or wait_for_stop_signal, not both.
Result<Fd> stop_signal_fd();

/// Sends this process SIGTERM: how a thread that found a fatal fault asks main() for an orderly end.
void raise_stop_signal();

}  // namespace educloud::sys
