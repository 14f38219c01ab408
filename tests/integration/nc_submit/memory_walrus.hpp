#pragma once

#include <condition_variable>
#include <map>
#include <mutex>

#include "common/http/server.hpp"
#include "common/transfer/chunk_client.hpp"
#include "common/transfer/chunk_routes.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::nc {

/// The far end of the chunk protocol behind the real routes, in memory. It proves what it gets, and gives out
/// a version it knows.
class MemoryWalrus : public transfer::ChunkSource, public transfer::ChunkSink {
 public:
  static constexpr const char* kImage = "IMG00000001";
  static constexpr int kVersion = 2;
  inline static const std::string kKey = std::string(64, 'k');

  MemoryWalrus() {
    transfer::ChunkRouteOptions options;
    options.key = kKey;
    options.clock = &clock_;
    routes_ = std::make_unique<transfer::ChunkRoutes>(options, *this, this);
    http::Router router;
    routes_->add_routes(router);
    server_ = std::make_unique<http::Server>(http::ServerOptions{}, std::move(router));
    started_ = server_->start().has_value();
  }
  ~MemoryWalrus() override {
    routes_->stop();
    server_->stop();
  }
  bool is_up() const { return started_; }
  transfer::ChunkRemote remote() const {
    const auto path = transfer::version_path(kImage, kVersion);
    return {.base = *http::Url::parse("http://127.0.0.1:" + std::to_string(server_->port())),
            .imgid = kImage,
            .version = kVersion,
            .grant = transfer::sign_grant(kKey, {"PUT", path, "nc1", clock_.wall_ms() / 1000 + 600})};
  }

  std::string url() const { return "http://127.0.0.1:" + std::to_string(server_->port()); }
  /// For a node to fetch version 1.
  std::string read_grant() const {
    return transfer::sign_grant(
        kKey, {"GET", transfer::version_path(kImage, 1), "nc1", clock_.wall_ms() / 1000 + 600});
  }
  Result<std::string> manifest(const transfer::ChunkCaller&, std::stop_token) override {
    const std::lock_guard lock(mutex_);
    return given_.encode();
  }
  Result<std::unique_ptr<Reading>> read(const transfer::ChunkCaller&, std::vector<chunk::ChunkId> ids,
                                        std::stop_token stop) override {
    return std::make_unique<Given>(*this, std::move(ids), stop);
  }
  /// This one is not given out until `let_go`.
  void hold(const chunk::ChunkId& id) {
    const std::lock_guard lock(mutex_);
    held_ = id;
  }
  void let_go() {
    const std::lock_guard lock(mutex_);
    held_ = {};
    changed_.notify_all();
  }
  Result<std::vector<bool>> missing(const transfer::ChunkCaller&, std::vector<chunk::ChunkId> ids) override {
    const std::lock_guard lock(mutex_);
    std::vector<bool> all;
    for (const auto& id : ids) all.push_back(!chunks_.contains(id));
    return all;
  }
  Result<> store(const transfer::ChunkCaller&, const chunk::FrameHeader& header,
                 std::span<const char> stored) override {
    const std::lock_guard lock(mutex_);
    if (accept_frames == 0) return fail(ErrorCode::permission_denied, "not now");
    --accept_frames;
    std::string raw(header.raw_bytes, '\0');
    if (auto ok = decoder_.decode(header, stored, raw); !ok) return ok;
    stored_frames += 1;
    chunks_[header.id] = std::move(raw);
    return {};
  }
  Result<> stored(const transfer::ChunkCaller&) override {
    const std::lock_guard lock(mutex_);
    if (busy > 0) return --busy, fail(ErrorCode::unavailable, "busy");
    return {};
  }
  Result<std::string> publish(const transfer::ChunkCaller&, const Publish& request,
                              std::stop_token) override {
    const std::lock_guard lock(mutex_);
    if (!request.if_current.empty() && request.if_current != current) {
      return fail(ErrorCode::conflict, current + " is in use, not " + request.if_current);
    }
    auto manifest = chunk::Manifest::decode(request.manifest);
    if (!manifest) return fail(manifest.error());
    published = *manifest;
    last_publish = request;
    return "receipt of " + manifest->digest().hex();
  }

  /// What was published, put together. Empty: something is missing.
  std::string disk() {
    const std::lock_guard lock(mutex_);
    std::string all(published.disk_bytes, '\0');
    for (const auto& ref : published.groups) {
      auto group = chunk::Group::decode(chunks_[ref.id], chunk::chunks_in_group(all.size(), ref.index));
      if (!group) return {};
      for (std::uint32_t i = 0; i < chunk::kGroupChunks; ++i) {
        if (group->chunks[i].is_hole()) continue;
        if (!chunks_.contains(group->chunks[i])) return {};
        all.replace(ref.index * chunk::kGroupBytes + i * chunk::kChunkBytes, chunks_[group->chunks[i]].size(),
                    chunks_[group->chunks[i]]);
      }
    }
    return all;
  }
  /// As if the content had been published before. Returns its map.
  chunk::DiskMap know(const std::string& disk) {
    const std::lock_guard lock(mutex_);
    chunk::DiskMap map(disk.size());
    for (std::uint64_t i = 0; i < chunk::chunk_count(disk.size()); ++i) {
      const auto piece = disk.substr(i * chunk::kChunkBytes, chunk::kChunkBytes);
      if (piece.find_first_not_of('\0') == std::string::npos) continue;
      const auto id = chunk::ChunkId::of(piece);
      chunks_[id] = piece;
      map.set(i, id);
    }
    for (const auto& [index, group] : map.groups()) {
      chunks_[chunk::ChunkId::of(group.encode())] = group.encode();
    }
    given_ = map.manifest();
    return map;
  }

  int accept_frames = 1'000'000;  ///< then it refuses for good
  int busy = 0;                   ///< so many answers "try again"
  int stored_frames = 0;
  std::string current = "IMG00000001/1";
  chunk::Manifest published;
  Publish last_publish;

 private:
  class Given : public Reading {
   public:
    Given(MemoryWalrus& walrus, std::vector<chunk::ChunkId> ids, std::stop_token stop)
        : walrus_(walrus), ids_(std::move(ids)), stop_(std::move(stop)) {}
    Result<transfer::Frame> frame(std::size_t i) override {
      std::unique_lock lock(walrus_.mutex_);
      const bool given = walrus_.changed_.wait_for(lock, stop_, transfer::kFrameDeadline,
                                                   [&] { return ids_[i] != walrus_.held_; });
      if (!given) return fail(ErrorCode::timeout, "held back");
      auto frame = std::make_shared<std::string>();
      const auto& raw = walrus_.chunks_[ids_[i]];
      if (auto made = walrus_.encoder_.append(raw, *frame); !made) return fail(made.error());
      return std::shared_ptr<const std::string>(std::move(frame));
    }

   private:
    MemoryWalrus& walrus_;
    const std::vector<chunk::ChunkId> ids_;
    const std::stop_token stop_;
  };

  const SystemClock clock_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  chunk::ChunkId held_;
  chunk::Manifest given_;
  chunk::FrameEncoder encoder_;
  chunk::FrameDecoder decoder_;
  std::map<chunk::ChunkId, std::string> chunks_;
  std::unique_ptr<transfer::ChunkRoutes> routes_;
  std::unique_ptr<http::Server> server_;
  bool started_ = false;
};

}  // namespace educloud::nc
