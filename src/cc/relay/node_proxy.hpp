#pragma once

#include <atomic>
#include <string>

#include "cc/domain/node_registry.hpp"
#include "common/base/clock.hpp"
#include "common/http/message.hpp"

namespace educloud::cc {

/// Lets clc read a VM's console log and screenshot through this cc: nodes need not be reachable from clc.
/// The grant is the node's own (signed with its node key), so it is checked here and there.
class NodeProxy {
 public:
  /// Of one answer, kept in memory.
  static constexpr std::uint64_t kBodyBytes = 16ull << 20;
  /// At once. More are answered 503, so that a silent node cannot take all of the server's threads.
  static constexpr int kMaxCalls = 4;

  NodeProxy(const NodeRegistry& nodes, const Clock& clock, std::string data_key);
  /// `GET /nodes/{nc}/instances/{insid}/console` and `.../screenshot`.
  void add_routes(http::Router& router);

 private:
  http::Response forward(const http::Request& request, const std::string& what);
  Result<http::Response> ask(const http::Request& request, const std::string& what);

  const NodeRegistry& nodes_;
  const Clock& clock_;
  const std::string data_key_;
  std::atomic<int> calls_{0};
};

}  // namespace educloud::cc
