#include "nc/app/move_link.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/msg/codec.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "common/sys/pause.hpp"

namespace educloud::nc {
namespace {

constexpr std::chrono::seconds kConnect{5}, kAnswer{20};
constexpr std::chrono::milliseconds kAsk{300};
constexpr std::chrono::seconds kShowEvery{10};
constexpr std::chrono::hours kReadyPatience{2};  ///< an image over a slow link
constexpr int kAcceptPollMs = 200;

Result<sys::Fd> listen_on(const std::filesystem::path& path, std::optional<unsigned> group) {
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string text = path.string();
  if (text.size() >= sizeof address.sun_path)
    return fail(ErrorCode::invalid_argument, text + " is too long for a socket: choose a shorter prefix");
  text.copy(address.sun_path, text.size());
  sys::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.is_open() || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail(errno_error("listen on " + text, errno));
  if (group && ::lchown(text.c_str(), static_cast<uid_t>(-1), *group) != 0)
    return fail(errno_error("chown " + text, errno));
  // QEMU may put a link in its place.
  if (::fchmodat(AT_FDCWD, text.c_str(), group ? 0660 : 0600, AT_SYMLINK_NOFOLLOW) != 0 ||
      ::listen(fd.get(), 1) != 0)
    return fail(errno_error("listen on " + text, errno));
  return fd;
}

}  // namespace

MoveLink::MoveLink(const MoveLinkOptions& options, InstanceId insid, const msg::Move& to)
    : options_(options), insid_(std::move(insid)), grant_(to.grant) {
  url_.tls = options_.tls;
  url_.host = to.address;
  url_.port = to.port;
}

http::Client MoveLink::client() const {
  http::ClientOptions options;
  options.connect_timeout = kConnect;
  options.io_timeout = kAnswer;
  options.tls_ca_file = options_.tls_ca_file;
  return http::Client(url_, std::move(options));
}

std::string MoveLink::target(std::string_view what) const {
  return "/migrations/" + insid_.str() + std::string(what) + "?" + grant_;
}

Result<> MoveLink::prepare(const msg::Command& command,
                           const std::function<void(std::uint64_t, std::uint64_t)>& tell,
                           const std::stop_token& stop) {
  auto node = client();
  http::ClientRequest request{.method = "PUT", .target = target(""), .body = msg::serialize(command)};
  const auto deadline = std::chrono::steady_clock::now() + kReadyPatience;
  for (;;) {
    auto answer = node.send(request, stop);
    if (!answer) return fail(answer.error());
    auto said = answer->json();
    // It receives enough already: our turn comes.
    const bool is_full = !said && said.error().code == ErrorCode::exhausted;
    if (!said && !is_full) return fail(said.error());
    if (is_full) said = nlohmann::json::object();
    if (!said->is_object()) return fail(ErrorCode::corrupt, "the other node's answer is no object");
    if (said->value("state", "") == "ready") return {};
    tell(said->value("bytes_done", std::uint64_t{0}), said->value("bytes_total", std::uint64_t{0}));
    if (!is_full) request = {.method = "GET", .target = target("")};
    if (std::chrono::steady_clock::now() > deadline)
      return fail(ErrorCode::timeout, "the other node does not get ready");
    if (!sys::pause(kAsk, stop)) return fail(ErrorCode::cancelled, "interrupted");
  }
}

Result<> MoveLink::open_channel(const std::filesystem::path& socket, std::string_view purpose) {
  auto listening = listen_on(socket, options_.socket_group);
  if (!listening) return fail(listening.error());
  auto shared = std::make_shared<sys::Fd>(std::move(*listening));
  channels_.emplace_back([this, shared, purpose = std::string(purpose)](const std::stop_token& stop) {
    pollfd waiting{shared->get(), POLLIN, 0};
    while (!stop.stop_requested() && ::poll(&waiting, 1, kAcceptPollMs) <= 0) {
    }
    if (stop.stop_requested()) return;
    sys::Fd near(::accept4(shared->get(), nullptr, nullptr, SOCK_CLOEXEC));
    shared->close();  // one comes, and no other
    if (!near.is_open()) return;
    auto node = client();
    auto ended = node.tunnel({.target = target("/" + purpose)}, kProtocol, std::move(near), stop);
    if (!ended && ended.error().code != ErrorCode::cancelled)
      obs::warn("move.channel_failed", {{"purpose", purpose}, {"reason", ended.error().message}});
  });
  return {};
}

void MoveLink::show_life() {
  // The guest may stand still: whoever sends it does not wait for an answer to this.
  life_ = std::jthread([this](const std::stop_token& stop) {
    while (sys::pause(kShowEvery, stop)) (void)client().send({.target = target("")}, stop);
  });
}

Result<> MoveLink::take_over(const std::stop_token& stop) {
  auto answer = client().send({.method = "POST", .target = target("/take-over"), .repeatable = true}, stop);
  if (!answer) return fail(answer.error());
  return answer->ok();
}

Result<> MoveLink::drop() {
  auto answer = client().send({.method = "DELETE", .target = target("")});
  if (!answer) return fail(answer.error());
  return answer->ok();
}

void MoveLink::close() {
  life_.request_stop();
  for (auto& channel : channels_) channel.request_stop();
  channels_.clear();
  life_ = {};
}

}  // namespace educloud::nc
