#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "common/chunk/frame.hpp"
#include "common/chunk/manifest.hpp"
#include "common/http/client.hpp"
#include "common/transfer/priority.hpp"

namespace educloud::transfer {

/// A version at one host, and the leave to read or write it there.
struct ChunkRemote {
  http::Url base;
  std::string imgid;
  int version = 0;
  std::string grant;  ///< query string over version_path(imgid, version)
  Priority priority = Priority::user;
  http::ClientOptions client = {};
};

/// The chunk protocol (chunk_routes.hpp) from the asking side: one kept-alive connection, blocking, for one
/// thread at a time. No call retries; every one ends within the client's timeouts or soon after `stop`.
/// Errors: what the other side says (not_found, permission_denied, conflict, exhausted, corrupt),
/// unavailable, timeout, cancelled.
class ChunkClient {
 public:
  explicit ChunkClient(ChunkRemote remote);
  ~ChunkClient();
  ChunkClient(ChunkClient&&) noexcept;

  const ChunkRemote& remote() const;
  /// Decoded and checked against `digest` (corrupt if it is another).
  Result<chunk::Manifest> manifest(const chunk::ChunkId& digest, std::stop_token stop);
  /// As it came, for a relay that does not know the digest; checked to be a manifest.
  Result<std::string> manifest_text(std::stop_token stop);
  using OnFrame = chunk::FrameReader::OnFrame;
  /// At most kMaxIds. Frames come in the order asked for; each is checked to be the one expected next, not
  /// its content.
  Result<> fetch(std::span<const chunk::ChunkId> ids, const OnFrame& on_frame, std::stop_token stop);
  /// By position: true where the receiver lacks it. Any number (asked in pieces).
  Result<std::vector<bool>> missing(std::span<const chunk::ChunkId> ids, std::stop_token stop);
  /// Frames one after the other, at most kMaxStoreBytes. Durable there when it returns.
  Result<> store(std::string_view frames, std::stop_token stop);
  struct Publish {
    std::string manifest;
    std::string parent;
    std::string if_current;
    std::string cmdid;
  };
  /// Returns the receipt.
  Result<std::string> publish(const Publish& request, std::stop_token stop);
  /// Any GET below the version, small JSON answer: "peers".
  Result<nlohmann::json> get_json(std::string_view what, std::stop_token stop);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// All groups of `manifest` that `have` does not hold are fetched (from `client`) and put together into a
/// map. `have`: maps of other versions that are here, looked at by group id.
Result<chunk::DiskMap> fetch_map(ChunkClient& client, const chunk::Manifest& manifest,
                                 std::span<const chunk::DiskMap* const> have, std::stop_token stop);

}  // namespace educloud::transfer
