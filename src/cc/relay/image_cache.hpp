#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.hpp"
#include "common/http/client.hpp"
#include "common/http/message.hpp"
#include "common/image/version_store.hpp"
#include "common/sys/thread_pool.hpp"
#include "common/transfer/progress.hpp"

namespace educloud::cc {

/// Image versions on their way from walrus to this cluster's nodes. A version is fetched once however many
/// nodes ask for it (single flight), kept on disk over restarts, and removed least recently used first when
/// the cache is full. Thread-safe.
class ImageCache {
 public:
  struct Options {
    http::Url walrus;
    std::string walrus_ca_file = {};  ///< for https; empty: the system's
    std::string data_key;
    std::string host;                           ///< this cc's, for the grants it makes towards walrus
    std::uint64_t max_bytes = 100ull << 30;     ///< on disk, published versions and those being fetched
    std::size_t fetches = 2;                    ///< at once; others wait in line
    std::chrono::milliseconds in_use{120'000};  ///< a version asked for so recently is not removed
    std::chrono::milliseconds retry_after{
        5'000};  ///< a failed fetch is told at least once, and not begun again for so long
  };

  ImageCache(image::VersionStore& store, const Clock& clock, Options options);
  ~ImageCache();
  ImageCache(const ImageCache&) = delete;
  ImageCache& operator=(const ImageCache&) = delete;

  /// `GET|HEAD /images/{id}/versions/{version}/raw`: the file, or 503 with Retry-After and
  /// {"state": "fetching", "bytes_done", "bytes_total"}, or {"state": "failed", "error"} with the error's
  /// status.
  void add_routes(http::Router& router);
  /// Keeps a copy of `file` (a hard link, so on the same file system) as that version: what a node has
  /// just submitted is what its neighbours will ask for. Best effort.
  void adopt(const std::filesystem::path& file, const image::VersionInfo& info);
  std::vector<image::VersionInfo> list() const;
  /// Ends running fetches; what they have is continued later. Idempotent.
  void stop();

 private:
  using Key = std::pair<std::string, int>;
  struct Fetch {
    bool running = true;
    std::uint64_t bytes_done = 0;
    std::uint64_t bytes_total = 0;  ///< also what it may take of the cache
    Error error = {};               ///< if not running: why it ended
    std::int64_t failed_ms = 0;
    bool told = false;
  };

  http::Response serve(const http::Request& request);
  http::Response fetching(const Key& key);
  bool may_begin(const Fetch& last) const;
  void fetch(const Key& key, std::stop_token stop);
  Result<> try_fetch(const Key& key, std::stop_token stop);
  Result<> make_room(std::uint64_t bytes, const std::optional<Key>& reserve_for);
  std::uint64_t reserved_bytes(const std::optional<Key>& except) const;
  void forget_old_failures();

  image::VersionStore& store_;
  const Clock& clock_;
  const Options options_;
  std::mutex room_mutex_;  ///< one clean-up at a time; taken before mutex_
  mutable std::mutex mutex_;
  std::map<Key, Fetch> fetches_;
  sys::ThreadPool pool_;
};

}  // namespace educloud::cc
