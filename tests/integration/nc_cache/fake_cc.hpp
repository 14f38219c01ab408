#pragma once

#include <fcntl.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "common/http/server.hpp"
#include "common/transfer/chunk_routes.hpp"
#include "common/transfer/grant.hpp"
#include "integration/nc_cache/disk_maker.hpp"
#include "nc/cache/node_cache.hpp"

namespace educloud::nc {

inline const std::string kDataKey(64, 'd');
inline const std::string kImage = "IMG0a1b2c3d";

/// What a cc is to its nodes: chunks of some versions, and the list of neighbours. Real server, real routes.
class FakeCc : public transfer::ChunkSource {
 public:
  explicit FakeCc(const std::filesystem::path& folder)
      : pack_(std::make_shared<const sys::Fd>(
            ::open((folder / "pack").c_str(), O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600))) {
    start();
  }
  ~FakeCc() override { stop(); }

  /// Takes a raw disk in as a version; returns its digest.
  chunk::ChunkId add(const std::string& imgid, int version, const DiskFile& disk) {
    chunk::DiskMap map(disk.bytes());
    const sys::Fd fd(::open(disk.path().c_str(), O_RDONLY | O_CLOEXEC));
    std::string buffer;
    for (std::uint64_t at = 0; at < chunk::chunk_count(disk.bytes()); ++at) {
      buffer.resize(chunk::chunk_length(disk.bytes(), at));
      EXPECT_EQ(::pread(fd.get(), buffer.data(), buffer.size(), static_cast<off_t>(at * kChunk)),
                static_cast<ssize_t>(buffer.size()));
      if (buffer.find_first_not_of('\0') == std::string::npos) continue;
      map.set(at, put(buffer));
    }
    for (const auto& [index, group] : map.groups()) put(group.encode());
    const std::lock_guard lock(mutex_);
    manifests_[{imgid, version}] = map.manifest().encode();
    data_bytes_[{imgid, version}] = map.data_bytes();
    return map.manifest().digest();
  }
  chunk::ChunkId add_text(const std::string& imgid, int version, std::string manifest) {
    const std::lock_guard lock(mutex_);
    manifests_[{imgid, version}] = manifest;
    return chunk::ChunkId::of(manifest);
  }

  void start() {
    http::Router router;
    routes_ = std::make_unique<transfer::ChunkRoutes>(
        transfer::ChunkRouteOptions{.key = kDataKey, .clock = &clock_}, *this, nullptr);
    routes_->add_routes(router);
    router.add({.method = "GET",
                .pattern = "/images/{id}/versions/{version}/peers",
                .handler = [this](const http::Request& request) { return answer_peers(request); }});
    http::ServerOptions options;
    options.port = port_;
    server_ = std::make_unique<http::Server>(options, std::move(router));
    const auto started = server_->start();
    ASSERT_TRUE(started) << started.error().message;
    port_ = server_->port();
  }
  void stop() {
    if (routes_) routes_->stop();
    if (server_) server_->stop(std::chrono::seconds{0});
    server_.reset();
    routes_.reset();
  }
  http::Url url() const { return *http::Url::parse("http://127.0.0.1:" + std::to_string(port_)); }

  std::string grant(const std::string& node, const std::string& imgid, int version) const {
    return transfer::sign_grant(
        kDataKey, {"GET", transfer::version_path(imgid, version), node, clock_.wall_ms() / 1000 + 3600});
  }
  /// Where neighbours reach a node, as its heartbeat would tell.
  void know(const std::string& node, const std::string& url) {
    const std::lock_guard lock(mutex_);
    urls_[node] = url;
  }
  /// As if it had asked: others are sent to it.
  void pretend_member(const std::string& node, const std::string& imgid, int version) {
    const std::lock_guard lock(mutex_);
    members_[{imgid, version}][node] = true;
  }

  Result<std::string> manifest(const transfer::ChunkCaller& caller, std::stop_token) override {
    const std::lock_guard lock(mutex_);
    const auto found = manifests_.find({caller.imgid, caller.version});
    if (found == manifests_.end()) return fail(ErrorCode::not_found, "no such version");
    return found->second;
  }

  class Answer : public Reading {
   public:
    Answer(FakeCc& cc, std::vector<chunk::ChunkId> ids, std::stop_token stop)
        : cc_(cc), ids_(std::move(ids)), stop_(std::move(stop)) {}
    Result<transfer::Frame> frame(std::size_t i) override { return cc_.frame(ids_[i], stop_); }

   private:
    FakeCc& cc_;
    std::vector<chunk::ChunkId> ids_;
    std::stop_token stop_;
  };
  Result<std::unique_ptr<Reading>> read(const transfer::ChunkCaller&, std::vector<chunk::ChunkId> ids,
                                        std::stop_token stop) override {
    return std::make_unique<Answer>(*this, std::move(ids), std::move(stop));
  }

  std::uint64_t data_bytes(const std::string& imgid, int version) {
    const std::lock_guard lock(mutex_);
    return data_bytes_[{imgid, version}];
  }
  /// Sends these bytes instead of the frame.
  void lie(const chunk::ChunkId& id, std::shared_ptr<const std::string> text) {
    const std::lock_guard lock(mutex_);
    frames_[id] = std::move(text);
  }
  std::set<chunk::ChunkId> ids() {
    const std::lock_guard lock(mutex_);
    std::set<chunk::ChunkId> out;
    for (const auto& [id, frame] : frames_) out.insert(id);
    return out;
  }

  std::atomic<std::uint64_t> sent_bytes{0};  ///< unpacked
  std::atomic<std::uint64_t> sent_chunks{0};
  std::atomic<std::uint64_t> bytes_per_s{0};  ///< 0: as fast as it goes
  std::atomic<bool> peers_enabled{true};

 private:
  friend class Answer;

  chunk::ChunkId put(std::string_view raw) {
    std::string text;
    const auto header = *encoder_.append(std::span(raw.data(), raw.size()), text);
    const std::lock_guard lock(mutex_);
    if (frames_.contains(header.id)) return header.id;
    EXPECT_TRUE(sys::pwrite_all(pack_->get(), text, pack_end_));
    frames_[header.id] =
        chunk::FrameSlice{pack_, pack_end_, static_cast<std::uint32_t>(text.size()), header.raw_bytes};
    pack_end_ += text.size();
    return header.id;
  }

  Result<transfer::Frame> frame(const chunk::ChunkId& id, const std::stop_token& stop) {
    transfer::Frame found;
    std::uint64_t bytes = 0;
    {
      const std::lock_guard lock(mutex_);
      const auto at = frames_.find(id);
      if (at == frames_.end()) return fail(ErrorCode::not_found, "no such chunk");
      found = at->second;
      if (const auto* slice = std::get_if<chunk::FrameSlice>(&found)) bytes = slice->raw_bytes;
      if (bytes_per_s > 0) {
        const auto now = std::chrono::steady_clock::now();
        next_ = std::max(next_, now) + std::chrono::nanoseconds(bytes * 1'000'000'000 / bytes_per_s);
      }
    }
    if (bytes_per_s > 0) {
      std::chrono::steady_clock::time_point until;
      {
        const std::lock_guard lock(mutex_);
        until = next_;
      }
      while (std::chrono::steady_clock::now() < until && !stop.stop_requested())
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    sent_bytes += bytes;
    ++sent_chunks;
    return found;
  }

  http::Response answer_peers(const http::Request& request) {
    const auto id = request.param("id");
    const int version = std::stoi(request.param("version"));
    const auto node = transfer::verify_grant(kDataKey, "GET", transfer::version_path(id, version),
                                             request.query, clock_.wall_ms() / 1000);
    if (!node) return http::error_response(node.error());
    const std::lock_guard lock(mutex_);
    auto& members = members_[{id, version}];
    nlohmann::json answer{{"enabled", peers_enabled.load()}, {"members", nlohmann::json::array()}};
    for (const auto& [name, complete] : members) {
      if (name == *node || !urls_.contains(name)) continue;
      const auto key = transfer::derive_node_key(kDataKey, name);
      answer["members"].push_back(
          {{"node", name},
           {"url", urls_[name]},
           {"complete", complete},
           {"grant", transfer::sign_grant(key, {"GET", transfer::version_path(id, version), *node,
                                                clock_.wall_ms() / 1000 + 600})}});
    }
    const auto asked = request.query.find("complete");
    members[*node] = asked != request.query.end() && asked->second == "1";
    return http::json_response(answer);
  }

  SystemClock clock_;
  std::mutex mutex_;
  std::map<std::pair<std::string, int>, std::string> manifests_;
  std::map<std::pair<std::string, int>, std::uint64_t> data_bytes_;
  std::map<chunk::ChunkId, transfer::Frame> frames_;
  std::map<std::pair<std::string, int>, std::map<std::string, bool>> members_;
  std::map<std::string, std::string> urls_;
  std::shared_ptr<const sys::Fd> pack_;
  std::uint64_t pack_end_ = 0;
  chunk::FrameEncoder encoder_;
  std::chrono::steady_clock::time_point next_;
  int port_ = 0;
  std::unique_ptr<transfer::ChunkRoutes> routes_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace educloud::nc
