#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/http/client.hpp"

// The load on the control path, for scripts/bench control. Arguments are trusted: it is a tool of this
// repository. Each part prints one line of JSON.
namespace educloud::bench {

using Words = std::vector<std::string>;
using Instant = std::chrono::steady_clock::time_point;

/// Where the API is, and the token of a session.
struct Api {
  http::Url url;
  std::string token;

  http::Headers headers() const;
};

/// One line of JSON on standard output, at once.
void say(const nlohmann::json& news);
double seconds_between(Instant from, Instant to);
/// The value below which `share` of them are; 0 for none.
double percentile(std::vector<double> values, double share);

/// IMGID COUNT CLIENTS pipeline|hold|one [TRACE]: desktops from their definition to their end. `pipeline`:
/// each is ended as soon as it runs. `hold`: all run, a line says so, and they are ended when standard input
/// ends. `one`: one after the other. TRACE: a file for "<unix microseconds> <tid> <phase>/<state>" per event.
Result<> lifecycles(const Api& api, const Words& words);
/// SECONDS CONNECTIONS TARGET...: GET requests over kept connections, one under way on each.
Result<> reads(const Api& api, const Words& words);
/// ADDRESS BYTES: an HTTP server that only sends a body of that size, until standard input ends.
Result<> serve_bytes(const Words& words);
/// SECRETS_DIR BROKER WORK_DIR LIFECYCLES NODES: rows and messages of that many lives, nothing decided.
Result<> limit(const Words& words);

}  // namespace educloud::bench
