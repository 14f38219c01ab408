#include "nc/cache/lazy_reader.hpp"

#include <algorithm>

namespace educloud::nc {
namespace {

using std::chrono::milliseconds;

/// A guest gives its disk 30 s to 3 min before it reports an error.
constexpr std::chrono::seconds kReadDeadline{120};
constexpr milliseconds kPatience{500};

Result<> check_range(std::uint64_t offset, std::size_t length, std::uint64_t disk_bytes) {
  if (offset <= disk_bytes && length <= disk_bytes - offset) return {};
  return fail(ErrorCode::invalid_argument, "a read beyond the end of the disk");
}

}  // namespace

Result<> PublishedReader::read(std::uint64_t offset, std::span<char> out, std::stop_token) {
  if (auto ok = check_range(offset, out.size(), disk_bytes_); !ok) return ok;
  return out.empty() ? Result<>{} : disk_.read(offset, out);
}

LazyReader::LazyReader(FillTable& table, LocalVersions& local, FillRequest request,
                       std::shared_ptr<FillTable::Ticket> ticket, std::shared_ptr<FillJob> job)
    : table_(table),
      local_(local),
      request_(std::move(request)),
      disk_bytes_(job->state()->plan.disk_bytes),
      ticket_(std::move(ticket)),
      job_(std::move(job)) {}

bool LazyReader::is_complete() const {
  const std::lock_guard lock(mutex_);
  if (published_) return true;
  const auto outcome = ticket_->wait(milliseconds(0), {});
  return outcome && outcome->has_value();
}

Result<> LazyReader::refresh() {
  const std::lock_guard lock(mutex_);
  if (published_) return {};
  const auto outcome = ticket_->wait(milliseconds(0), {});
  if (!outcome) {
    if (auto job = ticket_->job()) job_ = std::move(job);
    return {};
  }
  if (*outcome) {
    auto disk = local_.open_disk(request_.imgid, request_.version);
    if (!disk) return fail(disk.error());
    published_ = std::make_shared<PublishedReader>(std::move(*disk), disk_bytes_);
    job_.reset();
    ticket_.reset();
    return {};
  }
  if (!is_retryable(outcome->error().code)) return fail(outcome->error());
  auto again = table_.join(request_);
  if (!again) return fail(again.error());
  ticket_ = std::move(*again);
  return {};
}

Result<> LazyReader::read_chunk(std::uint64_t chunk, std::uint32_t skip, std::span<char> out, Time deadline,
                                const std::stop_token& stop) {
  bool asked = false;
  for (;;) {
    if (auto known = refresh(); !known) return known;
    std::shared_ptr<FillJob> job;
    std::shared_ptr<PublishedReader> published;
    {
      const std::lock_guard lock(mutex_);
      job = job_;
      published = published_;
    }
    if (published) return published->read(chunk * chunk::kChunkBytes + skip, out, stop);
    // A fill that was begun anew knows nothing yet; what its predecessor had is still true.
    const auto state = job->state();
    if (state && state->has(chunk)) return state->read(chunk, skip, out);
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "the read was stopped");
    const auto now = WorkQueue::Clock::now();
    if (now >= deadline) {
      return fail(ErrorCode::timeout, "chunk " + std::to_string(chunk) + " of " + request_.imgid +
                                          " did not come within " + std::to_string(kReadDeadline.count()) +
                                          " s");
    }
    job->demand(chunk, asked);
    asked = true;
    if (state && !state->marks->is_closed()) {
      state->marks->wait(chunk, std::min(deadline, now + kPatience), stop);
    } else {
      std::shared_ptr<FillTable::Ticket> ticket;
      {
        const std::lock_guard lock(mutex_);
        ticket = ticket_;
      }
      if (ticket) ticket->wait(kPatience / 10, stop);
    }
  }
}

Result<> LazyReader::read(std::uint64_t offset, std::span<char> out, std::stop_token stop) {
  if (auto ok = check_range(offset, out.size(), disk_bytes_); !ok) return ok;
  const auto deadline = WorkQueue::Clock::now() + kReadDeadline;
  while (!out.empty()) {
    const auto chunk = offset / chunk::kChunkBytes;
    const auto skip = static_cast<std::uint32_t>(offset % chunk::kChunkBytes);
    const auto piece = std::min<std::size_t>(out.size(), chunk::kChunkBytes - skip);
    if (auto done = read_chunk(chunk, skip, out.first(piece), deadline, stop); !done) return done;
    out = out.subspan(piece);
    offset += piece;
  }
  return {};
}

}  // namespace educloud::nc
