#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <variant>
#include <vector>

#include "common/base/clock.hpp"
#include "common/chunk/chunk_store.hpp"
#include "common/chunk/manifest.hpp"
#include "common/http/message.hpp"
#include "common/transfer/priority.hpp"

namespace educloud::transfer {

/// Whom a request of the chunk protocol is from and about, after its ids and its grant were checked.
struct ChunkCaller {
  std::string imgid;
  int version = 0;
  std::string node;  ///< the grant's
  Priority priority = Priority::user;
  std::uint64_t request = 0;  ///< another number for each request: a sink tells concurrent ones apart by it
};

/// A frame to send on: in a file, or in memory.
using Frame = std::variant<chunk::FrameSlice, std::shared_ptr<const std::string>>;

/// What chunks:fetch is answered from: a store (walrus), a store that fills itself (cc), a node's cache (nc).
/// Called on worker threads.
class ChunkSource {
 public:
  virtual ~ChunkSource() = default;
  /// The version's manifest, encoded. Errors: not_found, unavailable, ...
  virtual Result<std::string> manifest(const ChunkCaller& caller, std::stop_token stop) = 0;

  /// One request for chunks; destroyed when it is answered or the client is gone.
  class Reading {
   public:
    virtual ~Reading() = default;
    /// Frame of the `i`-th id. Blocks while it is on its way, at most kFrameDeadline.
    /// Errors: not_found, unavailable, timeout, cancelled, corrupt.
    virtual Result<Frame> frame(std::size_t i) = 0;
  };
  /// Announces all ids at once, so that what is missing can be fetched ahead.
  virtual Result<std::unique_ptr<Reading>> read(const ChunkCaller& caller, std::vector<chunk::ChunkId> ids,
                                                std::stop_token stop) = 0;
};
inline constexpr std::chrono::seconds kFrameDeadline{60};

/// Where a submit goes: walrus' store, or a cc that hands it on.
class ChunkSink {
 public:
  virtual ~ChunkSink() = default;
  /// By position: true where the chunk must be sent.
  virtual Result<std::vector<bool>> missing(const ChunkCaller& caller, std::vector<chunk::ChunkId> ids) = 0;
  /// A frame of chunks:store, in order of arrival. `caller` is not trusted with its content. Called on a
  /// thread of the server: may compute and write to the disk, should not wait for another host.
  virtual Result<> store(const ChunkCaller& caller, const chunk::FrameHeader& header,
                         std::span<const char> stored) = 0;
  /// After the last frame of a request: all of them are durable when this returns.
  virtual Result<> stored(const ChunkCaller& caller) = 0;
  struct Publish {
    std::string manifest;    ///< encoded
    std::string parent;      ///< receipt.hpp make_parent: what the content was made from
    std::string if_current;  ///< make_parent: publish only if this is the version in use; empty: whatever is
    std::string cmdid;
  };
  /// Checks that everything is there and makes the version. Returns the receipt. Idempotent for the same
  /// digest. Errors: conflict (another version is in use, named; or the number is taken), corrupt (a chunk is
  /// missing, sizes lie).
  virtual Result<std::string> publish(const ChunkCaller& caller, const Publish& request,
                                      std::stop_token stop) = 0;
};

struct ChunkRouteOptions {
  std::string key;  ///< what grants are signed with: data_key, or the node's own
  const Clock* clock = nullptr;
  std::size_t max_readers = 64;  ///< requests answered at once; more get 503 with Retry-After
};

/// The routes, one code for walrus, cc and nc, below /images/{id}/versions/{n}. All want a grant (grant.hpp)
/// over version_path(id, n): GET for the first four, PUT for the rest.
///   GET  .../manifest           encoded manifest, ETag = its digest
///   GET  .../chunks/{digest}    the chunk's bytes, unpacked (sha256sum proves them)
///   GET  .../raw                the whole disk, Range, ETag, holes as zeros (HEAD too)
///   POST .../chunks:fetch       body: ids (encode_ids, at most kMaxIds); answer: frames in that order. If
///                               the first can not be had, the answer is its error; if a later one, the
///                               connection is cut
///   POST .../chunks:missing     body: ids; answer: {"missing": hex, bit i%8 of byte i/8}
///   POST .../chunks:store       body: frames, at most kMaxStoreBytes; 204 once durable
///   PUT  .../{n} itself         body: encoded manifest; If-Match: "<imgid>/<n>" in quotes (absent or *: no
///                               condition), Educloud-Parent, Educloud-Cmdid; 201 {"receipt"}, 409
/// `Educloud-Priority: user|prefetch|replication` orders requests (Priority; absent: user).
/// Every call of `source` and `sink` but store() is made on one of `max_readers` worker threads; while all
/// are busy, requests are answered 503 with Retry-After. store() runs on the server's own thread and should
/// not wait for the network.
class ChunkRoutes {
 public:
  /// `sink` null: no write routes (nc). Both outlive this; this outlives the server.
  ChunkRoutes(ChunkRouteOptions options, ChunkSource& source, ChunkSink* sink);
  ~ChunkRoutes();
  void add_routes(http::Router& router);
  /// Ends running answers. Idempotent.
  void stop();

  struct Impl;

 private:
  std::shared_ptr<Impl> impl_;
};
inline constexpr std::size_t kMaxIds = 1024;
inline constexpr std::uint64_t kMaxStoreBytes = 32ull << 20;

}  // namespace educloud::transfer
