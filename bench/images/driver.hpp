#pragma once

#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/http/message.hpp"

// One part of the image path in a process of its own, for scripts/bench images. Arguments are trusted: it is
// a tool of this repository.
namespace educloud::bench {

using Words = std::vector<std::string>;

/// The key of all grants in a run: $EDUCLOUD_BENCH_KEY.
std::string data_key();
/// One line of JSON on standard output, at once.
void say(const nlohmann::json& news);
/// Serves `router` on address:port until standard input ends.
Result<> serve(http::Router router, const std::string& address, const std::string& port);
void wait_for_end_of_input();

/// DIR IMG VERSION FILE: a raw file becomes a version of the walrus in DIR.
Result<> import_disk(const Words& words);
/// DIR ADDRESS PORT
Result<> serve_walrus(const Words& words);
/// DIR ADDRESS PORT WALRUS_URL peers|alone [NODE=ADDRESS]...
Result<> serve_cc(const Words& words);
/// DIR HOST ADDRESS UPSTREAM_URL IMG VERSION DIGEST peers|alone: says when the version is there, then serves
/// its neighbours.
Result<> fill(const Words& words);
/// DIR HOST UPSTREAM_URL IMG VERSION BASE_VERSION OVERLAY
Result<> submit(const Words& words);

}  // namespace educloud::bench
