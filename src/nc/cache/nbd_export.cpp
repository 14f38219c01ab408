#include "nc/cache/nbd_export.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <list>
#include <mutex>
#include <thread>

#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "nc/cache/nbd_export_protocol.hpp"

namespace educloud::nc {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kNegotiation{10};  ///< from connect to the first request
constexpr int kMaxOptions = 32;
constexpr int kSendTimeoutSeconds = 60;         ///< for a client that takes nothing
constexpr std::uint32_t kKeptBytes = 1u << 20;  ///< buffer that a reader keeps; larger reads take turns

/// False: the peer is gone, or `deadline` passed.
bool receive(int fd, char* data, std::size_t size, std::optional<Clock::time_point> deadline = {}) {
  while (size > 0) {
    if (deadline) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now()).count();
      pollfd waiting{fd, POLLIN, 0};
      if (left <= 0 || ::poll(&waiting, 1, static_cast<int>(left)) == 0) return false;
    }
    const auto got = ::recv(fd, data, size, deadline ? MSG_DONTWAIT : 0);
    if (got < 0 && (errno == EINTR || (deadline && errno == EAGAIN))) continue;
    if (got <= 0) return false;
    data += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

bool send_all(int fd, std::span<const char> head, std::span<const char> body = {}) {
  while (!head.empty() || !body.empty()) {
    std::array<iovec, 2> parts{iovec{const_cast<char*>(head.data()), head.size()},
                               iovec{const_cast<char*>(body.data()), body.size()}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    const auto sent = ::sendmsg(fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    const auto from_head = std::min(head.size(), static_cast<std::size_t>(sent));
    head = head.subspan(from_head);
    body = body.subspan(static_cast<std::size_t>(sent) - from_head);
  }
  return true;
}

/// What all connections share.
struct Disk {
  std::shared_ptr<NodeCache::Reader> reader;
  std::uint64_t bytes = 0;
  std::mutex large;  ///< held while one reader has more than kKeptBytes
};

/// One client. Its readers take requests off the socket in turn and answer as they finish.
class Connection {
 public:
  Connection(sys::Fd socket, Disk& disk) : socket_(std::move(socket)), disk_(disk) {
    thread_ = std::jthread([this] { run(); });
  }
  ~Connection() { cut(); }
  /// Its threads end soon after.
  void cut() {
    stop_.request_stop();
    ::shutdown(socket_.get(), SHUT_RDWR);
  }
  bool is_done() const { return done_; }

 private:
  void run();
  bool negotiate();
  void serve();
  bool answer(const nbd::Request& request, std::unique_ptr<char[]>& kept);
  bool skip(std::uint32_t bytes);

  const sys::Fd socket_;
  Disk& disk_;
  std::stop_source stop_;
  std::atomic<bool> done_ = false;
  std::mutex receiving_;
  std::mutex sending_;
  std::jthread thread_;  // last: joined before the rest goes
};

void Connection::run() {
  try {
    const timeval timeout{kSendTimeoutSeconds, 0};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (negotiate()) {
      std::vector<std::jthread> others;
      for (int i = 1; i < NbdExport::kReaders; ++i) others.emplace_back([this] { serve(); });
      serve();
    }
  } catch (const std::exception& e) {
    obs::error("nbd.exception", {{"what", e.what()}});
  }
  cut();
  done_ = true;
}

bool Connection::negotiate() {
  const auto deadline = Clock::now() + kNegotiation;
  const int fd = socket_.get();
  if (!send_all(fd, nbd::greeting())) return false;
  std::array<char, 4> answered;
  if (!receive(fd, answered.data(), answered.size(), deadline)) return false;
  const auto flags = nbd::decode_client_flags(answered);
  if (!flags) return false;
  for (int i = 0; i < kMaxOptions; ++i) {
    std::array<char, nbd::kOptionHeaderBytes> head;
    if (!receive(fd, head.data(), head.size(), deadline)) return false;
    const auto option = nbd::decode_option(head);
    if (!option) return false;
    std::string data(option->length, '\0');
    if (!receive(fd, data.data(), data.size(), deadline)) return false;
    const auto answer = nbd::answer_option(option->option, data, disk_.bytes, *flags);
    if (!send_all(fd, answer.out)) return false;
    if (answer.next != nbd::Next::negotiate) return answer.next == nbd::Next::transmit;
  }
  return false;
}

void Connection::serve() {
  std::unique_ptr<char[]> kept;
  for (;;) {
    nbd::Request request;
    {
      const std::lock_guard lock(receiving_);
      std::array<char, nbd::kRequestBytes> head;
      if (stop_.stop_requested() || !receive(socket_.get(), head.data(), head.size())) break;
      auto decoded = nbd::decode_request(head);
      if (!decoded || decoded->type == static_cast<std::uint16_t>(nbd::Command::disconnect)) break;
      request = *decoded;
      // A write comes with its data, which must not be taken for the next request.
      if (request.type == static_cast<std::uint16_t>(nbd::Command::write) && !skip(request.length)) break;
    }
    if (!answer(request, kept)) break;
  }
  cut();
}

bool Connection::skip(std::uint32_t bytes) {
  if (bytes > nbd::kMaxRequestBytes) return false;
  std::array<char, 16 * 1024> dropped;
  while (bytes > 0) {
    const auto piece = std::min<std::size_t>(bytes, dropped.size());
    if (!receive(socket_.get(), dropped.data(), piece)) return false;
    bytes -= static_cast<std::uint32_t>(piece);
  }
  return true;
}

bool Connection::answer(const nbd::Request& request, std::unique_ptr<char[]>& kept) {
  auto error = nbd::check_request(request, disk_.bytes);
  const bool is_read = error == nbd::Errno::none;
  const std::uint32_t length = is_read ? request.length : 0;
  std::unique_lock turn(disk_.large, std::defer_lock);
  std::unique_ptr<char[]> large;
  if (length > kKeptBytes) {
    turn.lock();
    large = std::make_unique_for_overwrite<char[]>(length);
  } else if (length > 0 && !kept) {
    kept = std::make_unique_for_overwrite<char[]>(kKeptBytes);
  }
  std::span<char> data(large ? large.get() : kept.get(), length);
  if (length > 0) {
    if (auto done = disk_.reader->read(request.offset, data, stop_.get_token()); !done) {
      // Whoever ends the export does not tell the guest of a broken disk: it reconnects and asks again.
      if (stop_.stop_requested()) return false;
      obs::warn("nbd.read_failed", {{"offset", request.offset}, {"reason", done.error().message}});
      error = nbd::Errno::eio;
      data = {};
    }
  }
  const std::lock_guard lock(sending_);
  return send_all(socket_.get(), nbd::encode_reply(request.cookie, error), data);
}

Result<sys::Fd> listen_at(const std::filesystem::path& path, std::optional<unsigned> group) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string& name = path.native();
  if (name.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::invalid_argument, name + " is too long for a socket (" +
                                                 std::to_string(sizeof address.sun_path - 1) +
                                                 " bytes); choose a shorter prefix");
  }
  name.copy(address.sun_path, name.size());
  std::error_code error;
  std::filesystem::remove(path, error);
  if (error) return fail(errno_error("remove " + name, error.value()));
  sys::Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.is_open()) return fail(errno_error("socket", errno));
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail(errno_error("bind " + name, errno));
  }
  // Nobody can connect before listen(), so the mode is set in time.
  if (group && ::lchown(name.c_str(), static_cast<uid_t>(-1), *group) != 0) {
    return fail(errno_error("chown " + name, errno));
  }
  if (::chmod(name.c_str(), group ? 0660 : 0600) != 0) return fail(errno_error("chmod " + name, errno));
  if (::listen(listener.get(), NbdExport::kMaxConnections) != 0)
    return fail(errno_error("listen " + name, errno));
  return listener;
}

}  // namespace

struct NbdExport::Impl {
  std::filesystem::path socket;
  Disk disk;
  sys::Fd listener;
  sys::Fd wake;
  std::list<Connection> connections;  // of the acceptor
  std::jthread acceptor;

  ~Impl() {
    if (acceptor.joinable()) {
      acceptor.request_stop();
      ::eventfd_write(wake.get(), 1);
      acceptor.join();
    }
    std::error_code ignored;
    if (listener.is_open()) std::filesystem::remove(socket, ignored);
  }
  void accept_all(const std::stop_token& stop);
};

void NbdExport::Impl::accept_all(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    std::array<pollfd, 2> waiting{pollfd{listener.get(), POLLIN, 0}, pollfd{wake.get(), POLLIN, 0}};
    ::poll(waiting.data(), waiting.size(), -1);
    if (stop.stop_requested()) break;
    connections.remove_if([](const Connection& one) { return one.is_done(); });
    sys::Fd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!accepted.is_open()) {
      // Out of descriptors, say: the client waits in the backlog meanwhile.
      if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) ::poll(&waiting[1], 1, 100);
      continue;
    }
    if (connections.size() >= static_cast<std::size_t>(kMaxConnections)) {
      obs::warn("nbd.too_many_connections", {{"socket", socket.string()}});
      continue;
    }
    try {
      connections.emplace_back(std::move(accepted), disk);
    } catch (const std::exception& e) {
      obs::error("nbd.exception", {{"what", e.what()}});
    }
  }
  for (auto& one : connections) one.cut();
  connections.clear();
}

NbdExport::NbdExport(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
NbdExport::~NbdExport() = default;

const std::filesystem::path& NbdExport::socket() const {
  return impl_->socket;
}

Result<std::unique_ptr<NbdExport>> NbdExport::serve(std::filesystem::path socket,
                                                    std::shared_ptr<NodeCache::Reader> reader,
                                                    std::optional<unsigned> group) {
  auto impl = std::make_unique<Impl>();
  auto listener = listen_at(socket, group);
  if (!listener) return fail(listener.error());
  impl->listener = std::move(*listener);
  impl->socket = std::move(socket);
  impl->wake = sys::Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!impl->wake.is_open()) return fail(errno_error("eventfd", errno));
  impl->disk.bytes = reader->disk_bytes();
  impl->disk.reader = std::move(reader);
  auto* raw = impl.get();
  impl->acceptor = std::jthread([raw](std::stop_token stop) { raw->accept_all(stop); });
  return std::unique_ptr<NbdExport>(new NbdExport(std::move(impl)));
}

}  // namespace educloud::nc
