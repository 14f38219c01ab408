#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/msg/host_status.hpp"

namespace educloud::cc {

/// Which nodes have or are just getting which version: those that asked for their neighbours lately, and
/// those whose heartbeat names it. In memory only. Thread-safe; pure otherwise.
class PeerTable {
 public:
  /// A node counts for so long after it asked, or after the heartbeat that named the version.
  static constexpr std::int64_t kFreshMs = 15'000;
  static constexpr std::size_t kMaxNodes = 1000;
  static constexpr std::size_t kMaxVersions = 1000;
  static constexpr std::size_t kMaxMembers = 64;  ///< in one answer

  struct Member {
    std::string node;
    bool complete = false;
    bool operator==(const Member&) const = default;
  };

  /// `node` is getting that version, or has all of it.
  void join(const std::string& imgid, int version, const std::string& node, bool complete,
            std::int64_t boot_ms);
  /// What a heartbeat of `node` told of its cache.
  void remember(const std::string& node, const std::vector<msg::CachedImage>& images, std::int64_t boot_ms);
  /// Neighbours of `asker`: complete ones first, then by name, so that all nodes see the same ones.
  /// `digest`: of the version (64 hex); a heartbeat that names another is not believed, nor is any if it is
  /// empty.
  std::vector<Member> members(const std::string& imgid, int version, const std::string& digest,
                              const std::string& asker, std::int64_t boot_ms) const;

 private:
  using Key = std::pair<std::string, int>;
  struct Seen {
    bool complete = false;
    std::int64_t at_ms = 0;
  };
  struct Cache {
    std::map<Key, std::string> digests;
    std::int64_t at_ms = 0;
  };

  void forget_old(std::int64_t boot_ms);

  mutable std::mutex mutex_;
  std::map<Key, std::map<std::string, Seen>> joined_;
  std::map<std::string, Cache> caches_;
};

}  // namespace educloud::cc
