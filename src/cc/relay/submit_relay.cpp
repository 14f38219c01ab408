#include "cc/relay/submit_relay.hpp"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>

#include "cc/relay/memory_frame.hpp"
#include "common/base/ids.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/receipt.hpp"

namespace educloud::cc {
namespace {

/// walrus looks for every chunk and syncs before it answers.
constexpr std::chrono::seconds kPublishPatience{300};
/// All of a request is on walrus' disk within this, or the node tries again.
constexpr std::chrono::seconds kStoreDeadline{120};
constexpr std::size_t kForgottenKept = 4096;

Error stopping() {
  return {ErrorCode::unavailable, "this relay is stopping; try again"};
}

/// Proof that the frame's content is what its id says, on this thread.
Result<> prove(const chunk::FrameHeader& header, std::span<const char> stored) {
  thread_local chunk::FrameDecoder decoder;
  thread_local std::vector<char> content(chunk::kChunkBytes);
  return decoder.decode(header, stored, content);
}

Result<> append_frame(const transfer::Frame& frame, std::string& out) {
  if (const auto* text = std::get_if<std::shared_ptr<const std::string>>(&frame)) {
    out += **text;
    return {};
  }
  const auto& slice = std::get<chunk::FrameSlice>(frame);
  const std::size_t start = out.size();
  out.resize(start + slice.length);
  for (std::size_t done = 0; done < slice.length;) {
    const auto count = ::pread(slice.file->get(), out.data() + start + done, slice.length - done,
                               static_cast<off_t>(slice.offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(errno_error("read a pack of the cache", errno));
    if (count == 0) return fail(ErrorCode::unavailable, "a pack of the cache was cut; send the chunk again");
    done += static_cast<std::size_t>(count);
  }
  return {};
}

Result<> only_nodes(const transfer::ChunkCaller& caller) {
  if (HostName::parse(caller.node) && caller.node != transfer::kUserNode) return {};
  return fail(ErrorCode::permission_denied,
              "a cluster controller takes submits of its nodes only; upload to walrus");
}

}  // namespace

struct SubmitRelay::Stream {
  using Piece = std::vector<transfer::Frame>;

  std::mutex mutex;
  std::condition_variable sent;
  std::vector<chunk::ChunkId> filling;  ///< in the cache
  Piece filling_held;                   ///< in memory
  std::uint64_t filling_bytes = 0;
  std::deque<Piece> pieces;
  bool sending = false;
  std::optional<Error> error;
  std::int64_t used_ms = 0;  ///< guarded by the relay's mutex
};

SubmitRelay::SubmitRelay(Options options, ManifestCache& manifests, chunk::ChunkStore& store,
                         WalrusClients& walrus, const Clock& clock)
    : options_(std::move(options)),
      manifests_(manifests),
      store_(store),
      walrus_(walrus),
      clock_(clock),
      memory_bytes_(std::make_shared<std::atomic<std::uint64_t>>(0)),
      pool_({.name = "submit",
             .threads = options_.senders,
             .queue_limit = options_.max_streams,
             .on_exception = [](std::string_view what) {
               obs::error("submit.threw", {{"error", what}});
             }}) {}

SubmitRelay::~SubmitRelay() {
  stop();
}

void SubmitRelay::stop() {
  stop_.request_stop();
  pool_.stop();
  const std::lock_guard lock(mutex_);
  for (auto& [key, stream] : streams_) {
    {
      const std::lock_guard inner(stream->mutex);
      // Its job may have been dropped from the pool unbegun.
      stream->sending = false;
      if (!stream->error) stream->error = stopping();
    }
    stream->sent.notify_all();
  }
}

SubmitRelay::Key SubmitRelay::key_of(const transfer::ChunkCaller& caller) {
  return {caller.imgid, caller.version, caller.node, caller.request};
}

void SubmitRelay::forget_idle(std::int64_t now_ms) {
  for (auto it = streams_.begin(); it != streams_.end();) {
    if (now_ms - it->second->used_ms <= options_.idle.count()) {
      ++it;
      continue;
    }
    forgotten_.push_back(it->first);
    if (forgotten_.size() > kForgottenKept) forgotten_.pop_front();
    it = streams_.erase(it);
  }
}

Result<std::shared_ptr<SubmitRelay::Stream>> SubmitRelay::stream_of(const transfer::ChunkCaller& caller) {
  const auto key = key_of(caller);
  const std::lock_guard lock(mutex_);
  if (stop_.stop_requested()) return fail(stopping());
  const std::int64_t now = clock_.boot_ms();
  if (const auto it = streams_.find(key); it != streams_.end()) {
    it->second->used_ms = now;
    return it->second;
  }
  if (std::find(forgotten_.begin(), forgotten_.end(), key) != forgotten_.end()) {
    return fail(ErrorCode::unavailable, "this upload was silent for too long; send its chunks again");
  }
  forget_idle(now);
  if (streams_.size() >= options_.max_streams) {
    return fail(ErrorCode::unavailable, "too many submits pass through this cluster controller; try again");
  }
  auto stream = std::make_shared<Stream>();
  stream->used_ms = now;
  streams_.emplace(key, stream);
  return stream;
}

Result<std::vector<bool>> SubmitRelay::missing(const transfer::ChunkCaller& caller,
                                               std::vector<chunk::ChunkId> ids) {
  if (auto ok = only_nodes(caller); !ok) return fail(ok.error());
  auto client = walrus_.take({caller.imgid, caller.version, "PUT", caller.priority});
  auto out = client->missing(ids, stop_.get_token());
  if (!out) client.discard();
  return out;
}

Result<> SubmitRelay::store(const transfer::ChunkCaller& caller, const chunk::FrameHeader& header,
                            std::span<const char> stored) {
  if (auto ok = only_nodes(caller); !ok) return ok;
  if (auto ok = prove(header, stored); !ok) {
    obs::warn("submit.refused", {{"imgid", caller.imgid},
                                 {"version", caller.version},
                                 {"node", caller.node},
                                 {"error", ok.error().message}});
    return ok;
  }
  auto stream = stream_of(caller);
  if (!stream) return fail(stream.error());
  {
    const std::lock_guard lock((*stream)->mutex);
    if ((*stream)->error) return fail(*(*stream)->error);
    if (auto ok = keep(**stream, header, stored); !ok) return ok;
    if ((*stream)->filling_bytes < options_.piece_bytes) return {};
  }
  return begin_sending(caller, *stream);
}

Result<> SubmitRelay::keep(Stream& stream, const chunk::FrameHeader& header, std::span<const char> stored) {
  stream.filling_bytes += header.frame_bytes();
  if (store_.put(header, stored)) {
    stream.filling.push_back(header.id);
    return {};
  }
  // A full cache is no reason to refuse a submit, as long as memory holds out.
  if (*memory_bytes_ >= options_.memory_bytes) {
    return fail(ErrorCode::unavailable, "the cache of this cluster controller is full; try again");
  }
  stream.filling_held.emplace_back(frame_in_memory(header, stored, memory_bytes_));
  return {};
}

Result<> SubmitRelay::close_piece(Stream& stream) {
  auto piece = std::exchange(stream.filling_held, {});
  auto found = store_.find(stream.filling);
  if (!found) return fail(found.error());
  for (auto& slice : *found) {
    if (!slice) return fail(ErrorCode::unavailable, "the cache could not keep a chunk; send it again");
    piece.emplace_back(std::move(*slice));
  }
  stream.filling.clear();
  stream.filling_bytes = 0;
  if (!piece.empty()) stream.pieces.push_back(std::move(piece));
  return {};
}

Result<> SubmitRelay::begin_sending(const transfer::ChunkCaller& caller,
                                    const std::shared_ptr<Stream>& stream) {
  const std::lock_guard lock(stream->mutex);
  if (stream->error) return fail(*stream->error);
  if (auto ok = close_piece(*stream); !ok) {
    stream->error = ok.error();
    return ok;
  }
  if (stream->sending || stream->pieces.empty()) return {};
  auto queued = pool_.submit(
      [this, caller, stream](const std::stop_token& stop) { send_pieces(caller, *stream, stop); });
  if (!queued) {
    stream->error = stopping();
    return fail(*stream->error);
  }
  stream->sending = true;
  return {};
}

void SubmitRelay::send_pieces(const transfer::ChunkCaller& caller, Stream& stream,
                              const std::stop_token& stop) {
  std::unique_lock lock(stream.mutex);
  while (!stream.pieces.empty() && !stream.error) {
    const auto piece = std::move(stream.pieces.front());
    stream.pieces.pop_front();
    lock.unlock();
    auto sent = send(caller, piece, stop);
    lock.lock();
    if (!sent && !stream.error) stream.error = sent.error();
  }
  stream.sending = false;
  lock.unlock();
  stream.sent.notify_all();
}

Result<> SubmitRelay::send(const transfer::ChunkCaller& caller, const std::vector<transfer::Frame>& piece,
                           const std::stop_token& stop) {
  std::string frames;
  frames.reserve(options_.piece_bytes + chunk::kMaxFrameBytes);
  for (const auto& frame : piece) {
    if (auto ok = append_frame(frame, frames); !ok) return ok;
  }
  auto client = walrus_.take({caller.imgid, caller.version, "PUT", caller.priority});
  auto sent = client->store(frames, stop);
  if (!sent) {
    client.discard();
    obs::warn("submit.not_sent",
              {{"imgid", caller.imgid}, {"version", caller.version}, {"error", sent.error().message}});
    // Our own stop is not the node's: to it, this relay is just away for a while.
    if (sent.error().code == ErrorCode::cancelled) return fail(stopping());
    return sent;
  }
  obs::metrics().count("educloud_cc_submitted_bytes_total", "Bytes of frames that nodes sent to walrus",
                       static_cast<double>(frames.size()));
  return {};
}

Result<> SubmitRelay::stored(const transfer::ChunkCaller& caller) {
  auto stream = stream_of(caller);
  if (!stream) return fail(stream.error());
  auto done = begin_sending(caller, *stream);
  if (done) {
    std::unique_lock lock((*stream)->mutex);
    const bool ended = (*stream)->sent.wait_for(lock, kStoreDeadline, [&] { return !(*stream)->sending; });
    if (!ended) done = fail(ErrorCode::timeout, "walrus took too long to store what was sent");
    if ((*stream)->error) done = fail(*(*stream)->error);
    if (!done && !(*stream)->error) (*stream)->error = done.error();
  }
  const std::lock_guard lock(mutex_);
  streams_.erase(key_of(caller));
  return done;
}

Result<std::string> SubmitRelay::publish(const transfer::ChunkCaller& caller, const Publish& request,
                                         std::stop_token stop) {
  if (auto ok = only_nodes(caller); !ok) return fail(ok.error());
  auto client = walrus_.take({caller.imgid, caller.version, "PUT", caller.priority}, kPublishPatience);
  auto text = client->publish({request.manifest, request.parent, request.if_current, request.cmdid}, stop);
  if (!text) return fail(text.error());
  auto receipt = transfer::verify_receipt(options_.data_key, *text);
  if (!receipt) return fail(receipt.error(), "receipt of walrus");
  obs::info("submit.relayed", {{"imgid", caller.imgid},
                               {"version", caller.version},
                               {"node", caller.node},
                               {"digest", receipt->digest}});
  if (auto kept = manifests_.put(caller.imgid, caller.version, request.manifest, request.parent); !kept) {
    obs::warn("manifest.not_kept",
              {{"imgid", caller.imgid}, {"version", caller.version}, {"error", kept.error().message}});
  }
  return text;
}

}  // namespace educloud::cc
