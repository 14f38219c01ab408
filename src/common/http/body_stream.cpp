#include "common/http/body_stream.hpp"

#include <cstdio>

namespace educloud::http {
namespace {

/// Texts up to here are copied together, so that each does not cost a system call.
constexpr std::size_t kSmallText = 4 * 1024;
constexpr std::size_t kJoinedText = 64 * 1024;
/// A producer that had to wait goes on when so much is free again: waking it for every piece is slow.
constexpr std::uint64_t kResumeAt = BodyStream::kMaxQueued / 2;

}  // namespace

void BodyStream::Impl::attach(std::function<void()> on_wake, std::chrono::milliseconds stall_limit) {
  const std::lock_guard lock(mutex);
  wake = std::move(on_wake);
  stall = stall_limit;
}

BodyStream::Impl::Batch BodyStream::Impl::take(std::uint64_t max_bytes) {
  const std::lock_guard lock(mutex);
  Batch batch;
  while (!queue.empty() && (batch.pieces.empty() || batch.bytes + queue.front().length <= max_bytes)) {
    batch.bytes += queue.front().length;
    batch.pieces.push_back(std::move(queue.front()));
    queue.pop_front();
  }
  if (queue.empty()) batch.end = end;
  hungry = batch.is_empty();
  if (!hungry) batch.answer.swap(answer);
  return batch;
}

void BodyStream::Impl::sent(std::uint64_t bytes) {
  const std::lock_guard lock(mutex);
  queued_bytes -= bytes;
  sent_bytes += bytes;
  if (queued_bytes <= kResumeAt) room.notify_all();
}

void BodyStream::Impl::detach() {
  std::function<void()> call;
  std::deque<Piece> dropped;
  {
    const std::lock_guard lock(mutex);
    wake = nullptr;
    if (gone) return;
    gone = true;
    if (end == End::none) call = std::move(on_gone);
    on_gone = nullptr;
    dropped.swap(queue);
    queued_bytes = 0;
    room.notify_all();
  }
  if (call) call();
}

void BodyStream::Impl::wake_connection() {
  if (!hungry || !wake) return;
  hungry = false;
  wake();
}

void BodyStream::Impl::append(Piece piece) {
  queued_bytes += piece.length;
  if (!queue.empty()) {
    Piece& last = queue.back();
    if (piece.file && last.file == piece.file && last.offset + last.length == piece.offset) {
      last.length += piece.length;
      return;
    }
    const bool both_texts = !piece.file && !last.file && !last.shared;
    if (both_texts && piece.length <= kSmallText && last.length + piece.length <= kJoinedText) {
      last.text += piece.bytes();
      last.length += piece.length;
      return;
    }
  }
  if (piece.shared && piece.length <= kSmallText) {
    piece.text = *piece.shared;
    piece.shared.reset();
  }
  queue.push_back(std::move(piece));
}

bool BodyStream::Impl::push(Piece piece) {
  std::unique_lock lock(mutex);
  if (gone || end != End::none) return false;
  if (piece.length == 0) return true;
  while (queued_bytes > 0 && queued_bytes + piece.length > kMaxQueued) {
    const std::uint64_t before = sent_bytes;
    const auto woken = room.wait_for(lock, stall);
    if (woken == std::cv_status::timeout && sent_bytes == before) gone = true;
    if (gone || end != End::none) return false;
  }
  pushed = true;
  append(std::move(piece));
  wake_connection();
  return true;
}

void BodyStream::Impl::end_with(End how, std::optional<Response> response) {
  std::function<void()> dropped;  // destroyed outside of the lock: it may hold the stream
  const std::lock_guard lock(mutex);
  if (end != End::none) return;
  if (how == End::answered && pushed) how = End::aborted;
  end = how;
  if (how == End::answered) answer = std::move(response);
  // A cut needs no more of the body.
  if (how == End::aborted) queue.clear();
  dropped.swap(on_gone);
  room.notify_all();
  wake_connection();
}

std::string BodyFraming::before(std::uint64_t bytes) {
  char text[32];
  const int size = std::snprintf(text, sizeof text, "%s%llx\r\n", first ? "" : "\r\n",
                                 static_cast<unsigned long long>(bytes));
  first = false;
  return {text, static_cast<std::size_t>(size)};
}

std::string BodyFraming::last() const {
  return first ? "0\r\n\r\n" : "\r\n0\r\n\r\n";
}

BodyStream::BodyStream() : impl_(std::make_shared<Impl>()) {}

BodyStream::~BodyStream() {
  abort();
}

bool BodyStream::push(std::string data) {
  Impl::Piece piece;
  piece.length = data.size();
  piece.text = std::move(data);
  return impl_->push(std::move(piece));
}

bool BodyStream::push(std::shared_ptr<const std::string> data) {
  Impl::Piece piece;
  piece.length = data->size();
  piece.shared = std::move(data);
  return impl_->push(std::move(piece));
}

bool BodyStream::push(std::shared_ptr<const sys::Fd> file, std::uint64_t offset, std::uint64_t length) {
  Impl::Piece piece;
  piece.file = std::move(file);
  piece.offset = offset;
  piece.length = length;
  return impl_->push(std::move(piece));
}

void BodyStream::finish() {
  impl_->end_with(Impl::End::finished);
}

void BodyStream::abort() {
  impl_->end_with(Impl::End::aborted);
}

void BodyStream::answer(Response response) {
  const bool has_stream = !std::holds_alternative<std::string>(response.body);
  if (has_stream) {
    response = error_response({ErrorCode::internal, "the server failed on this request; its log says why"});
  }
  impl_->end_with(Impl::End::answered, std::move(response));
}

void BodyStream::head(Response response) {
  const std::lock_guard lock(impl_->mutex);
  if (!impl_->pushed && impl_->end == Impl::End::none) impl_->answer = std::move(response);
}

bool BodyStream::is_open() const {
  const std::lock_guard lock(impl_->mutex);
  return !impl_->gone && impl_->end == Impl::End::none;
}

void BodyStream::on_gone(std::function<void()> gone) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (impl_->end != Impl::End::none) return;
    if (!impl_->gone) {
      impl_->on_gone = std::move(gone);
      return;
    }
  }
  gone();
}

}  // namespace educloud::http
