#include "cc/relay/image_cache.hpp"

#include <algorithm>
#include <charconv>

#include "common/base/bytes.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/transfer/fetcher.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/raw_route.hpp"

namespace educloud::cc {
namespace {

namespace fs = std::filesystem;

/// Failures kept to be told; a bound for callers that ask for ever new versions.
constexpr std::size_t kFailuresKept = 1000;
constexpr std::int64_t kGrantSeconds = 6 * 3600;
/// A failure that nobody asked for in this time says nothing about now.
constexpr std::int64_t kStaleMs = 60'000;

void count(const char* result) {
  obs::metrics().count("educloud_cc_image_requests_total", "Requests of nodes for image versions, by answer",
                       1, {{"result", result}});
}

/// "\"<64 hex>\"" -> the digits.
std::string digest_of(std::string_view etag) {
  if (etag.size() != 66 || etag.front() != '"' || etag.back() != '"') return {};
  return std::string(etag.substr(1, 64));
}

nlohmann::json error_json(const Error& error) {
  return {{"code", to_string(error.code)}, {"message", error.message}, {"key", error.key}};
}

}  // namespace

ImageCache::ImageCache(image::VersionStore& store, const Clock& clock, Options options)
    : store_(store),
      clock_(clock),
      options_(std::move(options)),
      pool_({.name = "fetch",
             .threads = options_.fetches,
             .queue_limit = 64,
             .on_exception = [](std::string_view what) {
               obs::error("fetch.threw", {{"error", what}});
             }}) {}

ImageCache::~ImageCache() {
  stop();
}

void ImageCache::stop() {
  pool_.stop();
}

void ImageCache::add_routes(http::Router& router) {
  for (const char* method : {"GET", "HEAD"}) {
    router.add({.method = method,
                .pattern = std::string(transfer::kRawPattern),
                .handler = [this](const http::Request& request) { return serve(request); }});
  }
}

std::vector<image::VersionInfo> ImageCache::list() const {
  auto all = store_.list();
  return all ? *all : std::vector<image::VersionInfo>{};
}

http::Response ImageCache::serve(const http::Request& request) {
  auto target = transfer::check_raw_request(request, options_.data_key, clock_.wall_ms() / 1000);
  if (!target) {
    count("refused");
    return http::error_response(target.error());
  }
  auto have = store_.find(target->imgid, target->version);
  if (have) {
    count("cached");
    return transfer::serve_raw(request, store_, *target);
  }
  if (have.error().code != ErrorCode::not_found) return http::error_response(have.error());
  return fetching({target->imgid, target->version});
}

http::Response ImageCache::fetching(const Key& key) {
  bool begin = false;
  Fetch state;
  {
    const std::lock_guard lock(mutex_);
    const auto it = fetches_.find(key);
    begin = it == fetches_.end() || may_begin(it->second);
    if (begin) {
      forget_old_failures();
      fetches_[key] = Fetch{};
    }
    state = fetches_[key];
    fetches_[key].told = !state.running;
  }
  if (begin) {
    auto queued = pool_.submit([this, key](std::stop_token stop) { fetch(key, std::move(stop)); });
    if (!queued) {
      const std::lock_guard lock(mutex_);
      fetches_.erase(key);
      return http::error_response(
          {ErrorCode::unavailable, "too many image versions are being fetched; try again later"});
    }
  }
  count(state.running ? "fetching" : "failed");
  auto response =
      state.running
          ? http::json_response(
                {{"state", "fetching"}, {"bytes_done", state.bytes_done}, {"bytes_total", state.bytes_total}},
                503)
          : http::json_response({{"state", "failed"}, {"error", error_json(state.error)}},
                                http_status(state.error.code));
  response.headers["Retry-After"] = "1";
  return response;
}

bool ImageCache::may_begin(const Fetch& last) const {
  const std::int64_t ago = clock_.boot_ms() - last.failed_ms;
  return !last.running && ((last.told && ago > options_.retry_after.count()) || ago > kStaleMs);
}

void ImageCache::forget_old_failures() {
  if (fetches_.size() < kFailuresKept) return;
  std::erase_if(fetches_, [](const auto& one) { return !one.second.running; });
}

void ImageCache::fetch(const Key& key, std::stop_token stop) {
  obs::info("fetch.started", {{"imgid", key.first}, {"version", key.second}});
  const std::int64_t since = clock_.boot_ms();
  auto done = try_fetch(key, std::move(stop));
  const std::lock_guard lock(mutex_);
  if (done) {
    obs::info("fetch.done",
              {{"imgid", key.first}, {"version", key.second}, {"ms", clock_.boot_ms() - since}});
    fetches_.erase(key);
    return;
  }
  obs::warn("fetch.failed", {{"imgid", key.first}, {"version", key.second}, {"error", done.error().message}});
  auto& fetch = fetches_[key];
  fetch.running = false;
  fetch.bytes_total = 0;
  fetch.error = done.error();
  fetch.failed_ms = clock_.boot_ms();
}

Result<> ImageCache::try_fetch(const Key& key, std::stop_token stop) {
  const auto path = transfer::raw_path(key.first, key.second);
  transfer::FetchRequest request;
  request.base = options_.walrus;
  request.client.tls_ca_file = options_.walrus_ca_file;
  request.grant = transfer::sign_grant(options_.data_key,
                                       {"GET", path, options_.host, clock_.wall_ms() / 1000 + kGrantSeconds});
  request.imgid = key.first;
  request.version = key.second;
  // What walrus says it is: the node compares with what clc told it, so a wrong file goes no further than
  // here.
  http::Client client(options_.walrus, request.client);
  http::ClientRequest ask;
  ask.method = "HEAD";
  ask.target = path + "?" + request.grant;
  auto head = client.send(ask, stop);
  if (!head) return fail(head.error(), "walrus");
  if (auto ok = head->ok(); !ok) {
    return fail(Error{from_http_status(head->status), "walrus answers " + std::to_string(head->status) +
                                                          " for image " + key.first + " version " +
                                                          std::to_string(key.second)});
  }
  const std::string_view length = head->header("Content-Length");
  std::from_chars(length.data(), length.data() + length.size(), request.size_bytes);
  request.digest = digest_of(head->header("ETag"));
  if (auto room = make_room(request.size_bytes, key); !room) return room;
  return transfer::fetch_version(
      store_, request,
      [&](const transfer::Progress& progress) {
        const std::lock_guard lock(mutex_);
        fetches_[key].bytes_done = progress.bytes_done;
      },
      stop);
}

std::uint64_t ImageCache::reserved_bytes(const std::optional<Key>& except) const {
  const std::lock_guard lock(mutex_);
  std::uint64_t bytes = 0;
  for (const auto& [key, fetch] : fetches_) {
    if (key != except) bytes += fetch.bytes_total;
  }
  return bytes;
}

Result<> ImageCache::make_room(std::uint64_t bytes, const std::optional<Key>& reserve_for) {
  const std::lock_guard room(room_mutex_);
  auto used = store_.allocated_bytes();
  if (!used) return fail(used.error());
  std::uint64_t left = *used + reserved_bytes(reserve_for);
  auto candidates = store_.eviction_candidates();
  if (!candidates) return fail(candidates.error());
  for (const auto& one : *candidates) {
    if (left + bytes <= options_.max_bytes) break;
    if (clock_.wall_ms() - one.last_used_ms < options_.in_use.count()) break;  // the rest was used even later
    auto removed = store_.remove(one.info.image, one.info.version);
    if (!removed) continue;
    left -= std::min(left, one.allocated_bytes);
    obs::info("cache.evicted",
              {{"imgid", one.info.image}, {"version", one.info.version}, {"bytes", one.allocated_bytes}});
    obs::metrics().count("educloud_cc_evictions_total", "Image versions removed from the cache to make room");
  }
  if (left + bytes > options_.max_bytes) {
    return fail(ErrorCode::exhausted,
                "the image cache of " + options_.host + " may hold " + to_string(Bytes{options_.max_bytes}) +
                    ", " + to_string(Bytes{left}) + " are in use and " + to_string(Bytes{bytes}) +
                    " are needed; raise cache_max_bytes in cc.conf, or try again when other nodes are ready");
  }
  if (!reserve_for) return {};
  const std::lock_guard lock(mutex_);
  fetches_[*reserve_for].bytes_total = bytes;
  return {};
}

void ImageCache::adopt(const fs::path& file, const image::VersionInfo& info) {
  const auto give_up = [&](const std::string& why) {
    obs::info("cache.not_adopted", {{"imgid", info.image}, {"version", info.version}, {"error", why}});
  };
  if (auto room = make_room(info.size_bytes, std::nullopt); !room) return give_up(room.error().message);
  auto staged = store_.staging("adopt-" + info.image + "-" + std::to_string(info.version));
  if (!staged) return give_up(staged.error().message);
  std::error_code error;
  fs::remove(*staged, error);
  fs::create_hard_link(file, *staged, error);
  if (error) return give_up(error.message());
  auto published = store_.publish(*staged, info);
  if (published) return;
  fs::remove(*staged, error);
  give_up(published.error().message);
}

}  // namespace educloud::cc
