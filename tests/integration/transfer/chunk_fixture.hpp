#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>

#include "common/http/server.hpp"
#include "common/transfer/chunk_client.hpp"
#include "common/transfer/chunk_routes.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/receipt.hpp"
#include "support/temp_dir.hpp"

namespace educloud::transfer {

inline const std::string kChunkKey(64, 'a');
inline const std::string kChunkImage = "IMG0a1b2c3d";

/// Waits for what happens on another thread.
class Signal {
 public:
  void set() {
    const std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [this] { return set_; });
  }
  bool is_set() {
    const std::lock_guard lock(mutex_);
    return set_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

/// Content for one chunk: text that packs, or noise that does not.
inline std::string chunk_bytes(std::uint64_t seed, std::size_t size = chunk::kChunkBytes) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(seed % 2 == 0 ? random() : "educloud"[random() % 8]);
  return bytes;
}

/// Frames in memory, or one after the other in a file; records what it is asked, and fails where it is told.
class MemorySource : public ChunkSource {
 public:
  explicit MemorySource(const std::filesystem::path& pack)
      : pack_(std::make_shared<const sys::Fd>(::open(pack.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600))) {}

  chunk::ChunkId add(std::string_view raw, bool in_file) {
    auto text = std::make_shared<std::string>();
    const auto header = *encoder_.append(raw, *text);
    const std::lock_guard lock(mutex_);
    put(header.id, header.raw_bytes, std::move(text), in_file);
    return header.id;
  }
  /// Sends `text` when `id` is asked for.
  void add_lie(const chunk::ChunkId& id, std::string text) {
    const std::lock_guard lock(mutex_);
    frames_[id] = std::make_shared<const std::string>(std::move(text));
  }
  chunk::DiskMap add_disk(std::uint64_t bytes, const std::map<std::uint64_t, std::string>& chunks,
                          bool in_file) {
    chunk::DiskMap map(bytes);
    for (const auto& [number, raw] : chunks) map.set(number, add(raw, in_file));
    for (const auto& [index, group] : map.groups()) add(group.encode(), in_file);
    manifest_ = map.manifest().encode();
    return map;
  }

  Result<std::string> manifest(const ChunkCaller& caller, std::stop_token) override {
    const std::lock_guard lock(mutex_);
    last_caller_ = caller;
    if (manifest_.empty()) return fail(ErrorCode::not_found, "there is no such version here");
    return manifest_;
  }

  class MemoryReading : public Reading {
   public:
    MemoryReading(MemorySource& source, std::vector<chunk::ChunkId> ids, std::stop_token stop)
        : source_(source), ids_(std::move(ids)), stop_(std::move(stop)) {
      ++source_.open_readings_;
    }
    ~MemoryReading() override {
      if (--source_.open_readings_ == 0) source_.all_closed_.set();
    }
    Result<Frame> frame(std::size_t i) override {
      if (i == source_.hang_at_) {
        source_.hanging_.set();
        std::unique_lock lock(source_.mutex_);
        source_.changed_.wait_for(lock, stop_, std::chrono::seconds(20), [this] { return source_.go_on_; });
        if (stop_.stop_requested()) return fail(ErrorCode::cancelled, "cancelled");
      }
      if (i == source_.fail_at_) return fail(ErrorCode::timeout, "the frame did not come");
      const std::lock_guard lock(source_.mutex_);
      const auto found = source_.frames_.find(ids_[i]);
      if (found == source_.frames_.end()) return fail(ErrorCode::not_found, "chunk " + ids_[i].hex());
      return found->second;
    }

   private:
    MemorySource& source_;
    std::vector<chunk::ChunkId> ids_;
    std::stop_token stop_;
  };
  Result<std::unique_ptr<Reading>> read(const ChunkCaller& caller, std::vector<chunk::ChunkId> ids,
                                        std::stop_token stop) override {
    {
      const std::lock_guard lock(mutex_);
      last_caller_ = caller;
    }
    return std::make_unique<MemoryReading>(*this, std::move(ids), std::move(stop));
  }

  void release() {
    const std::lock_guard lock(mutex_);
    go_on_ = true;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::string manifest_;
  std::map<chunk::ChunkId, Frame> frames_;
  ChunkCaller last_caller_;
  std::atomic<std::size_t> fail_at_ = SIZE_MAX, hang_at_ = SIZE_MAX;
  std::atomic<int> open_readings_ = 0;
  Signal hanging_, all_closed_;
  bool go_on_ = false;

 private:
  void put(const chunk::ChunkId& id, std::uint32_t raw_bytes, std::shared_ptr<std::string> text,
           bool in_file) {
    if (!in_file) {
      frames_[id] = std::shared_ptr<const std::string>(std::move(text));
      return;
    }
    ASSERT_TRUE(sys::pwrite_all(pack_->get(), *text, pack_end_));
    frames_[id] = chunk::FrameSlice{pack_, pack_end_, static_cast<std::uint32_t>(text->size()), raw_bytes};
    pack_end_ += text->size();
  }

  chunk::FrameEncoder encoder_;
  std::shared_ptr<const sys::Fd> pack_;
  std::uint64_t pack_end_ = 0;
};

/// Keeps what is proven, and publishes unless told otherwise.
class MemorySink : public ChunkSink {
 public:
  Result<std::vector<bool>> missing(const ChunkCaller&, std::vector<chunk::ChunkId> ids) override {
    const std::lock_guard lock(mutex_);
    std::vector<bool> out;
    for (const auto& id : ids) out.push_back(!chunks_.contains(id));
    return out;
  }
  Result<> store(const ChunkCaller& caller, const chunk::FrameHeader& header,
                 std::span<const char> stored) override {
    const std::lock_guard lock(mutex_);
    caller_ = caller;
    std::string raw(header.raw_bytes, '\0');
    if (auto ok = decoder_.decode(header, stored, raw); !ok) return ok;
    chunks_[header.id] = std::move(raw);
    return {};
  }
  Result<> stored(const ChunkCaller&) override {
    ++flushes_;
    return {};
  }
  Result<std::string> publish(const ChunkCaller&, const Publish& request, std::stop_token) override {
    const std::lock_guard lock(mutex_);
    published_ = request;
    if (!request.if_current.empty() && request.if_current != current_) {
      return fail(ErrorCode::conflict, current_ + " is in use now, not " + request.if_current);
    }
    return "the receipt";
  }

  std::mutex mutex_;
  chunk::FrameDecoder decoder_;
  std::map<chunk::ChunkId, std::string> chunks_;
  ChunkCaller caller_;
  std::atomic<int> flushes_ = 0;
  Publish published_;
  std::string current_ = kChunkImage + "/2";
};

/// A server of the chunk routes on the loopback, and clients for it.
class ChunkTest : public ::testing::Test {
 protected:
  ~ChunkTest() override { stop(); }
  void start() {
    http::Router router;
    routes_ = std::make_unique<ChunkRoutes>(
        ChunkRouteOptions{.key = kChunkKey, .clock = &clock_, .max_readers = max_readers_}, source_, &sink_);
    routes_->add_routes(router);
    server_ = std::make_unique<http::Server>(server_options_, std::move(router));
    const auto started = server_->start();
    ASSERT_TRUE(started) << started.error().message;
  }
  void stop() {
    source_.release();
    if (routes_) routes_->stop();
    server_.reset();
    routes_.reset();
  }
  std::string grant(std::string_view method, std::string node = "nc1", std::int64_t valid_s = 600) {
    return sign_grant(kChunkKey, {std::string(method), version_path(kChunkImage, 3), std::move(node),
                                  clock_.wall_ms() / 1000 + valid_s});
  }
  std::string url(bool tls = false) const {
    return (tls ? "https://127.0.0.1:" : "http://127.0.0.1:") + std::to_string(server_->port());
  }
  ChunkRemote remote(std::string query) {
    ChunkRemote out;
    out.base = *http::Url::parse(url(!client_options_.tls_ca_file.empty()));
    out.imgid = kChunkImage;
    out.version = 3;
    out.grant = std::move(query);
    out.client = client_options_;
    return out;
  }
  ChunkClient reader() { return ChunkClient(remote(grant("GET"))); }
  ChunkClient writer() { return ChunkClient(remote(grant("PUT"))); }
  std::string path(std::string_view below) const { return version_path(kChunkImage, 3) + std::string(below); }

  /// Fetches and unpacks; what came.
  Result<std::vector<std::string>> fetch(ChunkClient& client, std::span<const chunk::ChunkId> ids) {
    chunk::FrameDecoder decoder;
    std::vector<std::string> out;
    auto done = client.fetch(ids,
                             [&](const chunk::FrameHeader& header, std::span<const char> stored) -> Result<> {
                               std::string raw(header.raw_bytes, '\0');
                               if (auto ok = decoder.decode(header, stored, raw); !ok) return ok;
                               out.push_back(std::move(raw));
                               return {};
                             },
                             {});
    if (!done) return fail(done.error());
    return out;
  }

  educloud::testing::TempDir dir_;
  ManualClock clock_;
  MemorySource source_{dir_ / "pack"};
  MemorySink sink_;
  http::ServerOptions server_options_;
  http::ClientOptions client_options_;
  std::size_t max_readers_ = 16;
  std::unique_ptr<ChunkRoutes> routes_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace educloud::transfer
