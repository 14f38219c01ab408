#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "common/http/client.hpp"

namespace educloud::nc {

/// A neighbour that has a version or is fetching it too.
struct Peer {
  std::string node;
  http::Url url;
  std::string grant;  ///< query string for reading that version there
  bool complete = false;
};

/// What the cc answers to GET peers.
struct PeerAnswer {
  bool enabled = false;
  std::vector<Peer> members;
};
/// Members that make no sense (name, URL, grant), `self`, and all beyond 64 are left out.
/// Errors: corrupt (not that kind of answer).
Result<PeerAnswer> parse_peers(const nlohmann::json& answer, std::string_view self);

/// The node that fetches a group from the cc for all: rendezvous hash, so that every node comes to the same
/// result from the same names, and a node that comes or goes moves only its own groups.
/// `nodes`: not empty; ties go to the smaller name.
const std::string& home_of(const std::vector<std::string>& nodes, std::uint32_t group);

/// The neighbours of one fill. Thread-safe.
class PeerSet {
 public:
  /// True if the nodes of live() changed.
  bool update(PeerAnswer answer);
  /// Not asked again in this fill.
  void drop(const std::string& node);
  std::vector<std::string> live() const;
  std::optional<Peer> find(const std::string& node) const;
  bool enabled() const;

 private:
  mutable std::mutex mutex_;
  bool enabled_ = false;
  std::vector<Peer> peers_;  ///< without the dropped ones
  std::set<std::string> dropped_;
};

}  // namespace educloud::nc
