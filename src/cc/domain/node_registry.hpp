#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "common/base/result.hpp"

namespace educloud::cc {

/// Where a node's own HTTP server answers.
struct NodeAddress {
  std::string ip;  ///< address or host name
  int port = 0;
};

/// Where each node is, as its last heartbeat said. In memory only: five seconds after a restart it is
/// complete again. At most `kMaxNodes`; the one heard of longest ago makes room. Thread-safe.
class NodeRegistry {
 public:
  static constexpr std::size_t kMaxNodes = 1000;
  /// A node that was silent for longer is not asked any more.
  static constexpr std::int64_t kFreshMs = 60'000;

  /// Errors: invalid_argument if `address` is not a host name or IP address with a port.
  Result<> remember(const std::string& host, NodeAddress address, std::int64_t boot_ms);
  /// Errors: not_found (never heard of), unavailable (silent for too long; says for how long).
  Result<NodeAddress> find(const std::string& host, std::int64_t boot_ms) const;
  std::size_t size() const;

 private:
  struct Entry {
    NodeAddress address;
    std::int64_t seen_ms = 0;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Entry> nodes_;
};

}  // namespace educloud::cc
