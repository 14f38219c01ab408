#include "cc/domain/node_registry.hpp"

#include <algorithm>

namespace educloud::cc {
namespace {

bool is_address(std::string_view text) {
  return !text.empty() && text.size() <= 45 && text.front() != '-' &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEF0123456789.:-") == std::string_view::npos;
}

}  // namespace

Result<> NodeRegistry::remember(const std::string& host, NodeAddress address, std::int64_t boot_ms) {
  if (!is_address(address.ip) || address.port < 1 || address.port > 65535) {
    return fail(ErrorCode::invalid_argument,
                "node " + host + " tells no usable address ('" + address.ip + "' port " +
                    std::to_string(address.port) + "); set `advertise` and `port` in its nc.conf",
                "net_data.ip0");
  }
  const std::lock_guard lock(mutex_);
  if (!nodes_.contains(host) && nodes_.size() >= kMaxNodes) {
    nodes_.erase(std::min_element(nodes_.begin(), nodes_.end(), [](const auto& a, const auto& b) {
      return a.second.seen_ms < b.second.seen_ms;
    }));
  }
  nodes_[host] = {std::move(address), boot_ms};
  return {};
}

Result<NodeAddress> NodeRegistry::find(const std::string& host, std::int64_t boot_ms) const {
  const std::lock_guard lock(mutex_);
  const auto it = nodes_.find(host);
  if (it == nodes_.end()) {
    return fail(
        ErrorCode::not_found,
        "node " + host + " has sent no heartbeat to this cluster controller; is educloud-nc running there?");
  }
  const std::int64_t silent_ms = boot_ms - it->second.seen_ms;
  if (silent_ms > kFreshMs) {
    return fail(ErrorCode::unavailable,
                "node " + host + " was last heard of " + std::to_string(silent_ms / 1000) + " s ago");
  }
  return it->second.address;
}

std::size_t NodeRegistry::size() const {
  const std::lock_guard lock(mutex_);
  return nodes_.size();
}

}  // namespace educloud::cc
