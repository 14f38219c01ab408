#include "cc/disks/tgt_control.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "common/sys/file.hpp"

namespace educloud::cc {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{5};
constexpr std::size_t kMaxAnswer = 8u << 20;

/// struct tgtadm_req of tgt 1.0.85 (usr/tgtadm.h); integers are the host's.
struct WireRequest {
  std::uint32_t mode = 0;
  std::uint32_t op = 0;
  std::array<char, 64> driver{"iscsi"};
  std::uint32_t length = 0;  ///< this and the parameters, their NUL included
  std::int32_t tid = 0;
  std::uint64_t sid = 0;
  std::uint64_t lun = 0;
  std::uint32_t cid = 0;
  std::uint32_t host = ~0u;
  std::uint32_t device_type = 0;
  std::uint32_t account_direction = 0;  // incoming
  std::uint32_t pack = 0;
  std::uint32_t force = 0;
};
static_assert(sizeof(WireRequest) == 120);

struct WireAnswer {
  std::uint32_t error = 0;
  std::uint32_t length = 0;  ///< this and the text
};

Result<> wait_for(int fd, short what, SteadyClock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now()).count();
    if (left <= 0) return fail(ErrorCode::timeout, "tgtd does not answer");
    pollfd watched{fd, what, 0};
    const int ready = ::poll(&watched, 1, static_cast<int>(left));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail(errno_error("poll", errno));
  }
}

/// 4th field of /proc/<pid>/stat, behind the name, which may hold anything but ends with the last ')'.
pid_t parent_of(pid_t pid) {
  auto stat = sys::read_file("/proc/" + std::to_string(pid) + "/stat", 4096);
  if (!stat) return 0;
  const auto end = stat->rfind(") ");
  if (end == std::string::npos || stat->size() < end + 5) return 0;
  return static_cast<pid_t>(std::strtol(stat->c_str() + end + 4, nullptr, 10));
}

Result<sys::Fd> connect_to(const std::filesystem::path& socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto& name = socket.native();
  if (name.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::invalid_argument, "the path of tgtd's socket is too long: " + name);
  }
  name.copy(address.sun_path, name.size());
  sys::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.is_open()) return fail(errno_error("socket", errno));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail(ErrorCode::unavailable, "tgtd is not there: " + errno_text(errno));
  }
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return fail(errno_error("SO_PEERCRED", errno));
  }
  if (parent_of(peer.pid) != ::getpid()) {
    return fail(ErrorCode::unavailable,
                "another process' tgtd (pid " + std::to_string(peer.pid) + ") still holds " + name);
  }
  return fd;
}

Result<> send_all(int fd, std::string_view data, SteadyClock::time_point deadline) {
  while (!data.empty()) {
    const auto sent = ::send(fd, data.data(), data.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      data.remove_prefix(static_cast<std::size_t>(sent));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return fail(ErrorCode::unavailable, "tgtd hung up: " + errno_text(errno));
    if (auto ok = wait_for(fd, POLLOUT, deadline); !ok) return ok;
  }
  return {};
}

/// Until `size` bytes are there.
Result<> receive(int fd, char* into, std::size_t size, SteadyClock::time_point deadline) {
  while (size > 0) {
    const auto got = ::recv(fd, into, size, 0);
    if (got > 0) {
      into += got;
      size -= static_cast<std::size_t>(got);
      continue;
    }
    if (got == 0) return fail(ErrorCode::unavailable, "tgtd hung up");
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return fail(ErrorCode::unavailable, "tgtd hung up: " + errno_text(errno));
    if (auto ok = wait_for(fd, POLLIN, deadline); !ok) return ok;
  }
  return {};
}

}  // namespace

Result<std::string> TgtControl::call(const TgtRequest& request) const {
  const auto deadline = SteadyClock::now() + kPatience;
  auto fd = connect_to(socket_);
  if (!fd) return fail(fd.error());
  WireRequest head;
  head.mode = static_cast<std::uint32_t>(request.mode);
  head.op = static_cast<std::uint32_t>(request.op);
  head.tid = request.tid;
  head.sid = request.sid;
  head.lun = request.lun;
  head.cid = request.cid;
  std::string out(sizeof head, '\0');
  if (!request.parameters.empty()) out += request.parameters + '\0';
  head.length = static_cast<std::uint32_t>(out.size());
  std::memcpy(out.data(), &head, sizeof head);
  if (auto ok = send_all(fd->get(), out, deadline); !ok) return fail(ok.error());
  std::array<char, sizeof(WireAnswer)> raw{};
  if (auto ok = receive(fd->get(), raw.data(), raw.size(), deadline); !ok) return fail(ok.error());
  WireAnswer answer;
  std::memcpy(&answer, raw.data(), sizeof answer);
  if (answer.length < sizeof answer || answer.length > kMaxAnswer) {
    return fail(ErrorCode::internal, "tgtd answered " + std::to_string(answer.length) + " bytes");
  }
  std::string text(answer.length - sizeof answer, '\0');
  if (auto ok = receive(fd->get(), text.data(), text.size(), deadline); !ok) return fail(ok.error());
  if (answer.error != 0) {
    return fail(ErrorCode::conflict, "tgtd refused, error " + std::to_string(answer.error));
  }
  return text;
}

}  // namespace educloud::cc
