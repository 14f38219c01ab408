#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/clock.hpp"
#include "common/chunk/chunk_store.hpp"
#include "common/chunk/manifest.hpp"
#include "common/http/server.hpp"
#include "common/transfer/chunk_routes.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/receipt.hpp"
#include "support/temp_dir.hpp"

namespace educloud::test {

inline const std::string kDataKey(64, 'a');

/// A disk of random chunks (about half compressible) with holes between them, and its frames.
struct SampleDisk {
  chunk::DiskMap map{0};
  std::map<chunk::ChunkId, std::string> frames;  ///< whole frames: of the chunks and of the groups
  std::vector<chunk::ChunkId> order;             ///< groups first, then chunks by place
  std::uint64_t frame_bytes = 0;

  SampleDisk(int chunks, unsigned seed) : map(std::uint64_t(chunks) * 2 * chunk::kChunkBytes) {
    std::mt19937_64 random(seed);
    chunk::FrameEncoder encoder;
    std::vector<chunk::ChunkId> places;
    for (int i = 0; i < chunks; ++i) {
      std::string raw(chunk::kChunkBytes, 'x');
      for (std::size_t at = 0; at + 8 <= raw.size() / 2; at += 8) {
        const std::uint64_t value = random();
        std::memcpy(raw.data() + at, &value, sizeof value);
      }
      places.push_back(add(encoder, raw));
      map.set(std::uint64_t(i) * 2, places.back());
    }
    for (const auto& [index, group] : map.groups()) order.push_back(add(encoder, group.encode()));
    order.insert(order.end(), places.begin(), places.end());
  }
  std::string manifest() const { return map.manifest().encode(); }
  chunk::ChunkId digest() const { return map.manifest().digest(); }

 private:
  chunk::ChunkId add(chunk::FrameEncoder& encoder, const std::string& raw) {
    std::string frame;
    const auto header = encoder.append(raw, frame);
    frame_bytes += frame.size();
    frames[header->id] = std::move(frame);
    return header->id;
  }
};

/// walrus' side of the chunk protocol over a real store and the real routes, with everything counted. Chunks
/// are sent when `allow` lets them.
class ChunkWalrus : public transfer::ChunkSource, public transfer::ChunkSink {
 public:
  explicit ChunkWalrus(int port = 0) : port_(port) { start(); }
  ~ChunkWalrus() override { stop(); }

  void start() {
    store_ = *chunk::ChunkStore::open(dir_.path() / "chunks", {});
    transfer::ChunkRouteOptions options;
    options.key = kDataKey;
    options.clock = &clock_;
    routes_ = std::make_unique<transfer::ChunkRoutes>(options, *this, this);
    http::Router router;
    routes_->add_routes(router);
    server_ = std::make_unique<http::Server>(http::ServerOptions{.port = port_}, std::move(router));
    auto started = server_->start();
    if (!started) std::abort();
    port_ = server_->port();
  }
  void stop() {
    if (routes_) routes_->stop();
    if (server_) server_->stop(std::chrono::seconds{0});
    server_.reset();
    routes_.reset();
    store_.reset();
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

  void add(const std::string& imgid, int version, const SampleDisk& disk) {
    for (const auto& id : disk.order) put(disk.frames.at(id));
    auto flushed = store_->flush();
    ASSERT_TRUE(flushed) << flushed.error().message;
    const std::lock_guard lock(mutex_);
    manifests_[{imgid, version}] = disk.manifest();
  }
  /// Only so many more frames are sent until the next call; -1: any number.
  void allow(int frames) {
    {
      const std::lock_guard lock(mutex_);
      allowed_ = frames;
    }
    may_send_.notify_all();
  }
  void set_current(const std::string& imgid, int version) {
    const std::lock_guard lock(mutex_);
    current_[imgid] = version;
  }
  std::string published(const std::string& imgid, int version) {
    const std::lock_guard lock(mutex_);
    const auto it = manifests_.find({imgid, version});
    return it == manifests_.end() ? std::string() : it->second;
  }
  /// Ids in the order in which they were sent.
  std::vector<chunk::ChunkId> sent() {
    const std::lock_guard lock(mutex_);
    return sent_;
  }
  std::set<std::string> askers() {
    const std::lock_guard lock(mutex_);
    return askers_;
  }

  std::atomic<std::uint64_t> sent_bytes{0}, stored_bytes{0}, manifests_read{0}, requests{0};

  Result<std::string> manifest(const transfer::ChunkCaller& caller, std::stop_token) override {
    ++manifests_read;
    auto text = published(caller.imgid, caller.version);
    if (text.empty()) return fail(ErrorCode::not_found, "no such version here");
    return text;
  }
  Result<std::unique_ptr<Reading>> read(const transfer::ChunkCaller& caller, std::vector<chunk::ChunkId> ids,
                                        std::stop_token stop) override {
    ++requests;
    {
      const std::lock_guard lock(mutex_);
      askers_.insert(caller.node);
    }
    auto found = store_->find(ids);
    if (!found) return fail(found.error());
    return std::make_unique<Sending>(*this, std::move(ids), std::move(*found), std::move(stop));
  }
  Result<std::vector<bool>> missing(const transfer::ChunkCaller&, std::vector<chunk::ChunkId> ids) override {
    return store_->missing(ids, true);
  }
  Result<> store(const transfer::ChunkCaller&, const chunk::FrameHeader& header,
                 std::span<const char> stored) override {
    stored_bytes += header.frame_bytes();
    std::vector<char> raw(chunk::kChunkBytes);
    chunk::FrameDecoder decoder;
    if (auto ok = decoder.decode(header, stored, raw); !ok) return ok;
    return store_->put(header, stored);
  }
  Result<> stored(const transfer::ChunkCaller&) override { return store_->flush(); }
  Result<std::string> publish(const transfer::ChunkCaller& caller, const Publish& request,
                              std::stop_token) override {
    auto manifest = chunk::Manifest::decode(request.manifest);
    if (!manifest) return fail(manifest.error());
    const std::lock_guard lock(mutex_);
    const auto current = transfer::make_parent(caller.imgid, current_[caller.imgid]);
    if (!request.if_current.empty() && request.if_current != current) {
      return fail(ErrorCode::conflict, "the version in use is " + current + ", not " + request.if_current);
    }
    manifests_[{caller.imgid, caller.version}] = request.manifest;
    current_[caller.imgid] = caller.version;
    transfer::Receipt receipt;
    receipt.imgid = caller.imgid;
    receipt.version = caller.version;
    receipt.digest = manifest->digest().hex();
    receipt.size_bytes = static_cast<std::int64_t>(manifest->data_bytes);
    receipt.virtual_size_bytes = static_cast<std::int64_t>(manifest->disk_bytes);
    receipt.format = "raw";
    receipt.parent = request.parent;
    receipt.cmdid = request.cmdid;
    return transfer::sign_receipt(kDataKey, receipt);
  }

 private:
  class Sending : public Reading {
   public:
    Sending(ChunkWalrus& walrus, std::vector<chunk::ChunkId> ids,
            std::vector<std::optional<chunk::FrameSlice>> found, std::stop_token stop)
        : walrus_(walrus), ids_(std::move(ids)), found_(std::move(found)), stop_(std::move(stop)) {}
    Result<transfer::Frame> frame(std::size_t i) override {
      if (!found_[i]) return fail(ErrorCode::not_found, "no chunk " + ids_[i].hex());
      std::unique_lock lock(walrus_.mutex_);
      walrus_.may_send_.wait(lock, stop_, [&] { return walrus_.allowed_ != 0; });
      if (stop_.stop_requested()) return fail(ErrorCode::cancelled, "gone");
      if (walrus_.allowed_ > 0) --walrus_.allowed_;
      walrus_.sent_.push_back(ids_[i]);
      walrus_.sent_bytes += found_[i]->length;
      return transfer::Frame(*found_[i]);
    }

   private:
    ChunkWalrus& walrus_;
    std::vector<chunk::ChunkId> ids_;
    std::vector<std::optional<chunk::FrameSlice>> found_;
    std::stop_token stop_;
  };

  void put(const std::string& frame) {
    auto header = chunk::decode_header(std::span(frame).first(chunk::kFrameHeaderBytes));
    ASSERT_TRUE(header);
    auto ok = store_->put(*header, std::span(frame).subspan(chunk::kFrameHeaderBytes));
    ASSERT_TRUE(ok) << ok.error().message;
  }

  const SystemClock clock_;
  testing::TempDir dir_;
  int port_;
  std::unique_ptr<chunk::ChunkStore> store_;
  std::unique_ptr<transfer::ChunkRoutes> routes_;
  std::unique_ptr<http::Server> server_;

  std::mutex mutex_;
  std::condition_variable_any may_send_;
  int allowed_ = -1;
  std::map<std::pair<std::string, int>, std::string> manifests_;
  std::map<std::string, int> current_;
  std::vector<chunk::ChunkId> sent_;
  std::set<std::string> askers_;
};

/// A grant as clc makes it for node `node`.
inline std::string grant_for(const std::string& node, const std::string& method, const std::string& path,
                             const std::string& key = kDataKey) {
  return transfer::sign_grant(key, {method, path, node, SystemClock().wall_ms() / 1000 + 600});
}

}  // namespace educloud::test
