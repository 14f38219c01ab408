#pragma once

#include <chrono>
#include <cstdint>
#include <stop_token>
#include <string>

#include "common/http/client.hpp"
#include "common/transfer/progress.hpp"

namespace educloud::image {
class VersionStore;
}

namespace educloud::transfer {

/// A version to fetch, as msg::ImageVersion names it.
struct FetchRequest {
  http::Url base;          ///< of the source: cc for a node, walrus for a cc
  std::string grant = {};  ///< query string of a GET grant for raw_path(imgid, version)
  std::string imgid = {};
  int version = 0;
  std::string digest = {};       ///< SHA-256 hex that the whole file must have
  std::uint64_t size_bytes = 0;  ///< of the file; 0: as the source says
  std::string format = "qcow2";
  std::chrono::seconds timeout{24 * 3600};  ///< for the whole fetch
  std::chrono::seconds stall_timeout{120};  ///< without any new byte, retries and relay waits included
  http::ClientOptions client = {};
};

/// Makes the version present in `store`: asks the source, waits while a relay is still fetching it itself
/// (503 + Retry-After), downloads into staging, continues there after any interruption (also of this
/// process), checks length and SHA-256, publishes. Runs of zeros become holes. Present already: returns at
/// once. Blocking; for a worker thread. Two calls for one version at once: the caller must not (single flight
/// is his). Errors: corrupt (digest or length; what was staged is removed), permission_denied, not_found,
/// exhausted (disk full, named), timeout, cancelled, unavailable (the last reason is in the message).
Result<> fetch_version(image::VersionStore& store, const FetchRequest& request,
                       const OnProgress& on_progress = {}, std::stop_token stop = {});

}  // namespace educloud::transfer
