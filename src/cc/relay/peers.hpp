#pragma once

#include <string>

#include "cc/domain/node_registry.hpp"
#include "cc/domain/peer_table.hpp"
#include "cc/relay/chunk_relay.hpp"
#include "common/base/clock.hpp"
#include "common/http/message.hpp"

namespace educloud::cc {

/// Tells a node which neighbours have or are just getting a version, with a grant for each, so that a chunk
/// crosses this host's link about once however many nodes want it. Thread-safe.
class Peers {
 public:
  struct Options {
    bool enabled = true;
    std::string data_key;
  };

  Peers(Options options, PeerTable& table, const NodeRegistry& nodes, const ManifestCache& manifests,
        const Clock& clock);
  /// `GET /images/{id}/versions/{version}/peers?complete=0|1&<grant over version_path>`: the asking node
  /// counts as a member from now on. {"enabled", "members": [{"node", "url", "complete", "grant"}]}, at most
  /// PeerTable::kMaxMembers, without the asker and without nodes whose address is not known.
  void add_routes(http::Router& router);

 private:
  Result<nlohmann::json> answer(const http::Request& request);

  const Options options_;
  PeerTable& table_;
  const NodeRegistry& nodes_;
  const ManifestCache& manifests_;
  const Clock& clock_;
};

}  // namespace educloud::cc
