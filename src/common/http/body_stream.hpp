#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "common/http/message.hpp"

namespace educloud::http {

/// What the producer's side and the connection's side share. Everything below the mutex belongs to it.
struct BodyStream::Impl {
  /// One of text, shared or file.
  struct Piece {
    std::string text;
    std::shared_ptr<const std::string> shared;
    std::shared_ptr<const sys::Fd> file;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;

    std::string_view bytes() const { return shared ? std::string_view(*shared) : std::string_view(text); }
  };
  enum class End { none, finished, aborted, answered };
  struct Batch {
    std::vector<Piece> pieces;
    std::uint64_t bytes = 0;
    End end = End::none;                  ///< after these pieces
    std::optional<Response> answer = {};  ///< instead of everything, or the new head

    bool is_empty() const { return pieces.empty() && end == End::none; }
  };

  // --- the connection's side ---
  /// `wake` is called (under the mutex) when a take() that found nothing may find something now; it must not
  /// block. `stall`: how long the client may take nothing before push() gives up by itself.
  void attach(std::function<void()> wake, std::chrono::milliseconds stall);
  /// At most about `max_bytes`; they count as queued until sent().
  Batch take(std::uint64_t max_bytes);
  void sent(std::uint64_t bytes);
  /// The connection sends nothing more. Idempotent.
  void detach();

  // --- the producer's side ---
  bool push(Piece piece);
  void end_with(End end, std::optional<Response> answer = {});

  std::mutex mutex;
  std::condition_variable room;
  std::deque<Piece> queue;
  std::uint64_t queued_bytes = 0;  ///< waiting, or taken and not sent yet
  std::uint64_t sent_bytes = 0;
  bool pushed = false;  ///< at least one piece
  bool gone = false;
  bool hungry = false;  ///< the connection waits for a wake
  End end = End::none;
  std::optional<Response> answer;  ///< or the head, if the end is another
  std::function<void()> on_gone;
  std::function<void()> wake;
  std::chrono::milliseconds stall{60'000};

 private:
  void wake_connection();
  void append(Piece piece);
};

/// How the body's end is told to the client: chunked, by the promised length, or by closing.
struct BodyFraming {
  bool chunked = false;
  std::optional<std::uint64_t> left;  ///< of the promised Content-Length
  bool first = true;

  /// What goes before a batch of chunked pieces.
  std::string before(std::uint64_t bytes);
  std::string last() const;
};

}  // namespace educloud::http
