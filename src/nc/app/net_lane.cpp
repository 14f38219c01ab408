#include "nc/app/net_lane.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>

#include "common/obs/log.hpp"
#include "nc/domain/rate_gate.hpp"

namespace educloud::nc {
namespace {

constexpr std::size_t kReadBytes = 64 * 1024;
constexpr std::size_t kHeader = 4;

RateGate::Time now() {
  return std::chrono::steady_clock::now().time_since_epoch();
}

std::uint32_t length_of(std::string_view header) {
  std::uint32_t length = 0;
  for (const char one : header.substr(0, kHeader)) length = length << 8 | static_cast<unsigned char>(one);
  return length;
}

/// Ours does not block; theirs is as QEMU makes it.
Result<> pair(sys::Fd& ours, sys::Fd& theirs) {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return fail(errno_error("socketpair", errno));
  ours = sys::Fd(ends[0]);
  theirs = sys::Fd(ends[1]);
  if (::fcntl(ours.get(), F_SETFL, O_NONBLOCK) != 0) return fail(errno_error("fcntl O_NONBLOCK", errno));
  return {};
}

}  // namespace

struct NetLane::Way {
  sys::Fd in, out;
  RateGate gate;
  std::deque<std::string> queue;
  std::size_t queued = 0;
  std::string read;     ///< a frame whose end has not come yet
  std::string writing;  ///< what is left of a frame that is being written

  /// False: that end is closed, or does not speak as it should.
  bool take(std::atomic<std::uint64_t>& dropped);
  bool pass(std::int64_t bits_per_s);
  bool flush();
  /// Milliseconds until there is something to do without news; -1: never.
  int wait_ms();
};

bool NetLane::Way::take(std::atomic<std::uint64_t>& dropped) {
  char buffer[kReadBytes];
  const auto got = ::recv(in.get(), buffer, sizeof buffer, 0);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  read.append(buffer, static_cast<std::size_t>(got));
  std::size_t at = 0;
  while (read.size() - at >= kHeader) {
    const auto length = length_of(std::string_view(read).substr(at));
    if (length > kMaxFrame) return false;
    if (read.size() - at < kHeader + length) break;
    if (queued + length > kQueueBytes) {
      ++dropped;
    } else {
      queue.push_back(read.substr(at, kHeader + length));
      queued += length;
    }
    at += kHeader + length;
  }
  read.erase(0, at);
  return true;
}

bool NetLane::Way::flush() {
  while (!writing.empty()) {
    const auto sent = ::send(out.get(), writing.data(), writing.size(), MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    writing.erase(0, static_cast<std::size_t>(sent));
  }
  return true;
}

bool NetLane::Way::pass(std::int64_t bits_per_s) {
  gate.set_rate(bits_per_s);
  if (!flush()) return false;
  while (writing.empty() && !queue.empty() && gate.open_at(now()) <= now()) {
    writing = std::move(queue.front());
    queue.pop_front();
    queued -= writing.size() - kHeader;
    gate.pass(writing.size() - kHeader);
    if (!flush()) return false;
  }
  return true;
}

int NetLane::Way::wait_ms() {
  if (queue.empty() || !writing.empty()) return -1;
  const auto left = gate.open_at(now()) - now();
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::clamp<std::int64_t>(ms, 0, 1000));
}

Result<std::unique_ptr<NetLane>> NetLane::open(std::int64_t bits_per_s) {
  std::unique_ptr<NetLane> lane(new NetLane());
  lane->up_ = std::make_unique<Way>();
  lane->down_ = std::make_unique<Way>();
  lane->wake_ = sys::Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!lane->wake_.is_open()) return fail(errno_error("eventfd", errno));
  auto& theirs = lane->theirs_;
  if (auto ok = pair(lane->up_->in, theirs.from_guest); !ok) return fail(ok.error());
  if (auto ok = pair(lane->up_->out, theirs.to_net); !ok) return fail(ok.error());
  if (auto ok = pair(lane->down_->in, theirs.from_net); !ok) return fail(ok.error());
  if (auto ok = pair(lane->down_->out, theirs.to_guest); !ok) return fail(ok.error());
  lane->bits_per_s_ = bits_per_s;
  lane->thread_ = std::thread([raw = lane.get()] { raw->work(); });
  return lane;
}

NetLane::~NetLane() {
  stopping_ = true;
  if (wake_.is_open()) (void)::eventfd_write(wake_.get(), 1);
  if (thread_.joinable()) thread_.join();
}

void NetLane::set_rate(std::int64_t bits_per_s) {
  bits_per_s_ = bits_per_s;
  (void)::eventfd_write(wake_.get(), 1);
}

void NetLane::work() {
  Way* const ways[] = {up_.get(), down_.get()};
  while (!stopping_) {
    pollfd fds[5] = {{wake_.get(), POLLIN, 0}};
    int timeout = -1;
    for (std::size_t i = 0; i < 2; ++i) {
      fds[1 + 2 * i] = {ways[i]->in.get(), POLLIN, 0};
      fds[2 + 2 * i] = {ways[i]->out.get(), static_cast<short>(ways[i]->writing.empty() ? 0 : POLLOUT), 0};
      const int wait = ways[i]->wait_ms();
      if (wait >= 0) timeout = timeout < 0 ? wait : std::min(timeout, wait);
    }
    if (::poll(fds, 5, timeout) < 0 && errno != EINTR) break;
    if (fds[0].revents != 0) {
      eventfd_t ignored = 0;
      (void)::eventfd_read(wake_.get(), &ignored);
    }
    bool well = true;
    for (std::size_t i = 0; i < 2; ++i) {
      const bool hung_up = (fds[2 + 2 * i].revents & (POLLHUP | POLLERR)) != 0;
      if (fds[1 + 2 * i].revents != 0) well = ways[i]->take(dropped_) && well;
      well = !hung_up && ways[i]->pass(bits_per_s_) && well;
    }
    if (!well) break;
  }
  over_ = true;
  // QEMU must not fill sockets that nobody reads.
  for (auto* way : ways) {
    way->in.close();
    way->out.close();
  }
}

}  // namespace educloud::nc
