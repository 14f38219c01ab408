#pragma once

#include <functional>
#include <stop_token>

#include "nc/cache/local_versions.hpp"

namespace educloud::nc {

/// Makes a raw file of its own of a version that stands on others, proving each chunk, and puts it in its
/// place. `may_go_on`: asked every few MiB; false waits, so that it never slows a fill down.
/// Errors: exhausted (no room: try later), conflict (in use by now), corrupt (the chain is damaged),
/// cancelled.
Result<> flatten(LocalVersions& local, const image::VersionInfo& info, const std::function<bool()>& may_go_on,
                 std::stop_token stop);

}  // namespace educloud::nc
