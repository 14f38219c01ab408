#include "cc/relay/chunk_relay.hpp"

#include <condition_variable>

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::cc {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kFirstPause{50};
constexpr milliseconds kLongestPause{2000};

void count_chunks(const char* result, std::size_t chunks) {
  if (chunks == 0) return;
  obs::metrics().count("educloud_cc_chunk_requests_total",
                       "Chunks that nodes asked for: found in the cache, or fetched from walrus",
                       static_cast<double>(chunks), {{"result", result}});
}

std::uint64_t bytes_of(const transfer::Frame& frame) {
  if (const auto* slice = std::get_if<chunk::FrameSlice>(&frame)) return slice->length;
  return std::get<std::shared_ptr<const std::string>>(frame)->size();
}

/// One request of a node. Gives its interest in what has not come back when it goes.
class RelayReading : public transfer::ChunkSource::Reading {
 public:
  RelayReading(Upstream& upstream, chunk::ChunkStore& store, std::vector<chunk::ChunkId> ids,
               std::vector<std::optional<chunk::FrameSlice>> found, std::stop_token stop)
      : upstream_(upstream),
        store_(store),
        ids_(std::move(ids)),
        stop_(std::move(stop)),
        places_(found.size()),
        given_(found.size()) {
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (found[i]) places_[i] = transfer::Frame(std::move(*found[i]));
    }
  }
  ~RelayReading() override {
    if (reader_) upstream_.drop(*reader_);
    if (bytes_ > 0) {
      obs::metrics().count("educloud_cc_node_bytes_total", "Bytes of frames handed to nodes",
                           static_cast<double>(bytes_));
    }
  }
  RelayReading(const RelayReading&) = delete;
  RelayReading& operator=(const RelayReading&) = delete;

  void fetch(const transfer::ChunkCaller& caller, std::span<const FetchQueue::Wanted> wanted) {
    mailbox_ = std::make_shared<Mailbox>();
    reader_ = upstream_.want(caller, wanted, mailbox_);
  }

  Result<transfer::Frame> frame(std::size_t i) override {
    if (i >= places_.size() || given_[i]) return fail(ErrorCode::internal, "no such place in this request");
    if (!places_[i] && mailbox_) sort_in(mailbox_->take());
    if (!places_[i]) {
      if (auto come = wait_for(i); !come) return fail(come.error());
    }
    // Given away, so that the cache may drop the pack as soon as it is sent.
    auto out = std::exchange(places_[i], std::nullopt);
    given_[i] = true;
    if (*out) bytes_ += bytes_of(**out);
    return std::move(*out);
  }

 private:
  void sort_in(std::vector<Mailbox::Item> items) {
    for (auto& [index, frame] : items) {
      if (!given_[index]) places_[index] = std::move(frame);
    }
  }
  Result<> wait_for(std::size_t i) {
    const Upstream::Waiting waiting(upstream_);
    auto found = store_.find(std::span(ids_).subspan(i, 1));
    if (found && (*found)[0]) {
      places_[i] = transfer::Frame(std::move(*(*found)[0]));
      return {};
    }
    if (!mailbox_) return fail(ErrorCode::internal, "a chunk that nobody fetches");
    auto items = mailbox_->wait_for(static_cast<std::uint32_t>(i),
                                    steady_clock::now() + transfer::kFrameDeadline, stop_);
    if (!items) return fail(items.error());
    sort_in(std::move(*items));
    return {};
  }

  Upstream& upstream_;
  chunk::ChunkStore& store_;
  const std::vector<chunk::ChunkId> ids_;
  const std::stop_token stop_;
  std::vector<std::optional<Result<transfer::Frame>>> places_;
  std::vector<bool> given_;
  std::shared_ptr<Mailbox> mailbox_;
  std::optional<std::uint64_t> reader_;
  std::uint64_t bytes_ = 0;
};

}  // namespace

struct ChunkRelay::Asking {
  std::mutex mutex;
  std::condition_variable_any answered;
  std::optional<Result<std::string>> answer;
};

ChunkRelay::ChunkRelay(ManifestCache& manifests, chunk::ChunkStore& store, Upstream& upstream,
                       WalrusClients& walrus)
    : manifests_(manifests), store_(store), upstream_(upstream), walrus_(walrus) {}

ChunkRelay::~ChunkRelay() = default;

Result<std::string> ChunkRelay::manifest(const transfer::ChunkCaller& caller, std::stop_token stop) {
  auto have = manifests_.find(caller.imgid, caller.version);
  if (have || have.error().code != ErrorCode::not_found) return have;
  const VersionKey key{caller.imgid, caller.version};
  std::shared_ptr<Asking> asking;
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    auto& place = asking_[key];
    first = place == nullptr;
    if (first) place = std::make_shared<Asking>();
    asking = place;
  }
  if (!first) return wait_for(*asking, stop);
  auto answer = ask_walrus(caller, stop);
  {
    const std::lock_guard lock(mutex_);
    asking_.erase(key);
  }
  {
    const std::lock_guard lock(asking->mutex);
    asking->answer = answer;
  }
  asking->answered.notify_all();
  return answer;
}

Result<std::string> ChunkRelay::wait_for(Asking& asking, const std::stop_token& stop) {
  std::unique_lock lock(asking.mutex);
  const auto patience = kManifestDeadline + std::chrono::seconds{10};
  if (!asking.answered.wait_for(lock, stop, patience, [&] { return asking.answer.has_value(); })) {
    return fail(stop.stop_requested() ? ErrorCode::cancelled : ErrorCode::timeout,
                "the manifest did not come from walrus in time");
  }
  // Whoever asked first may have been cancelled: that says nothing to the others but to try again.
  if (!*asking.answer && asking.answer->error().code == ErrorCode::cancelled) {
    return fail(ErrorCode::unavailable, "the manifest is not here yet; try again");
  }
  return *asking.answer;
}

Result<std::string> ChunkRelay::ask_walrus(const transfer::ChunkCaller& caller, const std::stop_token& stop) {
  const auto deadline = steady_clock::now() + kManifestDeadline;
  auto pause = kFirstPause;
  for (;;) {
    auto client = walrus_.take({caller.imgid, caller.version, "GET", caller.priority});
    auto text = client->manifest_text(stop);
    if (text) {
      if (auto kept = manifests_.put(caller.imgid, caller.version, *text, ""); !kept) {
        obs::warn("manifest.not_kept",
                  {{"imgid", caller.imgid}, {"version", caller.version}, {"error", kept.error().message}});
      }
      return text;
    }
    client.discard();
    const bool again = is_retryable(text.error().code) && steady_clock::now() + pause < deadline;
    if (!again) return fail(text.error(), "walrus");
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    wake.wait_for(lock, stop, pause, [] { return false; });
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "nobody waits for the manifest any more");
    pause = std::min(pause * 2, kLongestPause);
  }
}

Result<std::unique_ptr<transfer::ChunkSource::Reading>> ChunkRelay::read(const transfer::ChunkCaller& caller,
                                                                         std::vector<chunk::ChunkId> ids,
                                                                         std::stop_token stop) {
  auto found = store_.find(ids);
  if (!found) return fail(found.error());
  std::vector<FetchQueue::Wanted> wanted;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!(*found)[i]) wanted.push_back({ids[i].bytes, static_cast<std::uint32_t>(i)});
  }
  count_chunks("cached", ids.size() - wanted.size());
  count_chunks("fetched", wanted.size());
  auto reading =
      std::make_unique<RelayReading>(upstream_, store_, std::move(ids), std::move(*found), std::move(stop));
  if (!wanted.empty()) reading->fetch(caller, wanted);
  return reading;
}

}  // namespace educloud::cc
