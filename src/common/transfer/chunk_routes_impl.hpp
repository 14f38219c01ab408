#pragma once

#include <list>
#include <mutex>

#include "common/sys/thread_pool.hpp"
#include "common/transfer/chunk_routes.hpp"
#include "common/transfer/disk_body.hpp"

namespace educloud::transfer {

inline constexpr std::string_view kVersionPattern = "/images/{id}/versions/{version}";

/// One request that a worker answers.
struct Answering {
  http::Request request;
  ChunkCaller caller;
  std::shared_ptr<http::BodyStream> stream;
  std::stop_token stop;  ///< the client is gone, or we stop
};

struct ChunkRoutes::Impl : std::enable_shared_from_this<ChunkRoutes::Impl> {
  Impl(ChunkRouteOptions route_options, ChunkSource& chunk_source, ChunkSink* chunk_sink);

  using Work = std::function<void(Answering&)>;
  /// Grant for `method` over the request's version.
  Result<ChunkCaller> check(const http::Request& request, std::string_view method) const;
  /// A response that `work` fills on a worker thread. `head`: status and headers if it pushes a body.
  http::Response later(const http::Request& request, ChunkCaller caller, http::Response head, Work work);
  void add_read_routes(http::Router& router);
  void add_write_routes(http::Router& router);
  void stop_all();

  void send_manifest(Answering& job);
  void send_chunk(Answering& job, const chunk::ChunkId& id);
  void send_disk(Answering& job, const chunk::Manifest& disk, DiskPart part);
  void send_frames(Answering& job, std::vector<chunk::ChunkId> ids);
  http::Response serve_disk(const http::Request& request);
  http::Response serve_frames(const http::Request& request);
  http::Response serve_missing(const http::Request& request);
  http::Response serve_stored(const http::Request& request, const ChunkCaller& caller);
  http::Response serve_publish(const http::Request& request, const ChunkCaller& caller,
                               ChunkSink::Publish publish);

  const ChunkRouteOptions options;
  ChunkSource& source;
  ChunkSink* const sink;
  std::mutex mutex;
  bool stopped = false;
  std::list<std::stop_source> running;  ///< of requests that have or wait for a worker
  sys::ThreadPool workers;              ///< last: its jobs use what is above
};

/// An error as answer, with Retry-After where a retry helps.
http::Response refuse(const Error& error);

}  // namespace educloud::transfer
