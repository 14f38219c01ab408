#pragma once

#include <chrono>
#include <stop_token>

namespace educloud::sys {

/// Sleeps for `time`, or until `stop` is requested. False: it is.
bool pause(std::chrono::milliseconds time, const std::stop_token& stop = {});

}  // namespace educloud::sys
