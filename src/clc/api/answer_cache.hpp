#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "common/http/message.hpp"

namespace educloud::clc::api {

/// Answers as they were sent, until the database changes or they are `kMaxAge` old (what they say of nodes
/// comes from heartbeats). A classroom that watches its desktops asks the same far more often than anything
/// changes. Bounded; thread-safe.
class AnswerCache {
 public:
  static constexpr std::size_t kEntries = 4096;
  static constexpr std::size_t kBytes = 16u << 20;
  static constexpr std::chrono::seconds kMaxAge{2};

  /// What `make` answered last for `key` while the database was at `version`, or makes it now. Only answers
  /// with status 200 are kept. `key` must name the account that asks. `version` must have been read before
  /// `make` reads anything.
  http::Response answer(const std::string& key, std::uint64_t version,
                        const std::function<http::Response()>& make);

 private:
  struct Entry {
    std::shared_ptr<const http::Response> response;
    std::chrono::steady_clock::time_point made_at;
  };
  std::shared_ptr<const http::Response> find(const std::string& key, std::uint64_t version);
  void keep(const std::string& key, std::uint64_t version, const http::Response& response);

  std::mutex mutex_;
  std::uint64_t version_ = 0;                       // under mutex_: of all entries
  std::size_t bytes_ = 0;                           // under mutex_
  std::unordered_map<std::string, Entry> entries_;  // under mutex_
};

}  // namespace educloud::clc::api
