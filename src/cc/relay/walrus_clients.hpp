#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "common/base/clock.hpp"
#include "common/transfer/chunk_client.hpp"

namespace educloud::cc {

/// Connections to walrus with this host's own grants. A client that is given back is used again for the same
/// version, method and priority; a few idle ones are kept. Thread-safe.
class WalrusClients {
 public:
  struct Options {
    http::Url walrus;
    http::ClientOptions client = {};
    std::string data_key;
    std::string host;  ///< this cc's, which the grants name
    std::size_t max_idle = 32;
  };
  struct Key {
    std::string imgid;
    int version = 0;
    std::string method;  ///< "GET" or "PUT"
    transfer::Priority priority = transfer::Priority::user;
    bool operator==(const Key&) const = default;
  };

  WalrusClients(Options options, const Clock& clock);

  /// Goes back to the idle ones when it is destroyed; call `discard` after an error on the connection.
  class Lease {
   public:
    Lease(WalrusClients& owner, Key key, std::int64_t since_ms, std::unique_ptr<transfer::ChunkClient> client)
        : owner_(&owner), key_(std::move(key)), since_ms_(since_ms), client_(std::move(client)) {}
    ~Lease();
    Lease(Lease&& other) noexcept = default;
    Lease& operator=(Lease&&) = delete;
    transfer::ChunkClient* operator->() const { return client_.get(); }
    void discard() { client_.reset(); }

   private:
    WalrusClients* owner_;
    Key key_;
    std::int64_t since_ms_;
    std::unique_ptr<transfer::ChunkClient> client_;
  };
  /// `patience`: io_timeout of a fresh connection that is not kept, for calls that walrus thinks about for
  /// long; 0: as configured.
  Lease take(Key key, std::chrono::seconds patience = {});

 private:
  struct Idle {
    Key key;
    std::int64_t since_ms = 0;
    std::unique_ptr<transfer::ChunkClient> client;
  };
  void give_back(Key key, std::int64_t since_ms, std::unique_ptr<transfer::ChunkClient> client);

  const Options options_;
  const Clock& clock_;
  std::mutex mutex_;
  std::list<Idle> idle_;  ///< given back last stands first
};

}  // namespace educloud::cc
