#include "cc/disks/nbd_targets.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/file.hpp"
#include "common/sys/pause.hpp"
#include "common/sys/process.hpp"

namespace educloud::cc {
namespace {

using SteadyClock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kFirstPause{100};
constexpr milliseconds kLongestPause{10'000};
constexpr milliseconds kPoll{20};
constexpr milliseconds kGreeting{1'000};
constexpr std::string_view kMagic = "NBDMAGIC";
constexpr std::chrono::seconds kRanWell{30};
constexpr std::chrono::seconds kReadyDeadline{10};
constexpr std::chrono::hours kForEver{24 * 365 * 10};
constexpr std::size_t kKeyDigits = 64;
constexpr std::size_t kTail = 300;
// A client that connects again may come before its dead connection is noticed here.
constexpr const char* kShared = "--shared=8";

struct Endpoint {
  sockaddr_storage address{};
  socklen_t size = 0;
};

Endpoint endpoint(const std::string& host, int port) {
  Endpoint out;
  const auto number = htons(static_cast<std::uint16_t>(port));
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = number;
    std::memcpy(&out.address, &v4, out.size = sizeof v4);
  } else if (inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = number;
    std::memcpy(&out.address, &v6, out.size = sizeof v6);
  }
  return out;
}

/// A socket that is bound or connected there; empty if that failed.
using Call = int (*)(int, const sockaddr*, socklen_t);
sys::Fd socket_at(Call call, const std::string& host, int port) {
  const auto end = endpoint(host, port);
  sys::Fd fd(::socket(end.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0 || end.size == 0) return {};
  const int on = 1;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (call(fd.get(), static_cast<const sockaddr*>(static_cast<const void*>(&end.address)), end.size) != 0)
    return {};
  return fd;
}

/// In an option's value a comma is written twice.
std::string quoted(const std::filesystem::path& path) {
  std::string out;
  for (const char c : path.string()) out.append(c == ',' ? 2 : 1, c);
  return out;
}

}  // namespace

std::filesystem::path NbdTargets::folder(const InstanceId& instance) const {
  return options_.run_dir / ("nbd-" + instance.str());
}

Result<int> NbdTargets::choose_port() const {
  for (int port = options_.first_port; port < options_.first_port + options_.ports; ++port) {
    const bool is_ours =
        std::ranges::any_of(served_, [&](const auto& one) { return one.second->target.port == port; });
    if (!is_ours && socket_at(&::bind, options_.listen, port).get() >= 0) return port;
  }
  return fail(ErrorCode::exhausted, "no port is free for another database disk, from " +
                                        std::to_string(options_.first_port) + " on: see [disks] in cc.conf");
}

Result<> NbdTargets::keep_key(const NbdTarget& target) const {
  const bool is_hex = target.key.size() == kKeyDigits &&
                      std::ranges::all_of(target.key, [](unsigned char c) { return std::isxdigit(c) != 0; });
  if (!is_hex) return fail(ErrorCode::invalid_argument, "a key of TLS has 64 hex digits");
  if (auto ok = sys::make_directories(folder(target.instance), 0700); !ok) return ok;
  return sys::write_file_atomically(folder(target.instance) / "keys.psk",
                                    std::string(kUser) + ":" + target.key + "\n", 0600);
}

void NbdTargets::serve(Served& served, const std::stop_token& stop) {
  const auto& target = served.target;
  sys::ProcessOptions options;
  options.argv = {"qemu-nbd",
                  "--persistent",
                  kShared,
                  "--cache=writethrough",
                  "--discard=unmap",
                  "--export-name=" + target.instance.str(),
                  "--bind=" + options_.listen,
                  "--port=" + std::to_string(target.port),
                  "--object",
                  "tls-creds-psk,id=tls,endpoint=server,dir=" + quoted(folder(target.instance)),
                  "--tls-creds=tls",
                  "--image-opts",
                  "driver=raw,file.driver=file,file.filename=" + quoted(target.file)};
  options.timeout = kForEver;
  auto pause = kFirstPause;
  while (!stop.stop_requested()) {
    const auto began = SteadyClock::now();
    auto ended = sys::run(options, stop);
    if (stop.stop_requested()) return;
    std::string reason = ended ? ended->err : ended.error().message;
    reason = reason.substr(reason.size() - std::min(reason.size(), kTail));
    obs::metrics().count("educloud_cc_nbd_restarts_total",
                         "How often a qemu-nbd ended and was started again");
    obs::warn("nbd.ended", {{"insid", target.instance.str()}, {"reason", reason}});
    if (SteadyClock::now() - began > kRanWell) pause = kFirstPause;
    {
      const std::lock_guard lock(mutex_);
      served.last_error = std::move(reason);
    }
    (void)sys::pause(pause, stop);
    pause = std::min(pause * 2, kLongestPause);
  }
}

/// It greets: qemu-nbd listens before it has opened the disk, and a connection alone says nothing.
bool NbdTargets::answers(int port) const {
  const auto& listen = options_.listen;
  const std::string host = listen == "0.0.0.0" ? "127.0.0.1" : listen == "::" ? "::1" : listen;
  const auto fd = socket_at(&::connect, host, port);
  if (fd.get() < 0) return false;
  pollfd waiting{fd.get(), POLLIN, 0};
  if (::poll(&waiting, 1, static_cast<int>(kGreeting.count())) != 1) return false;
  std::array<char, kMagic.size()> magic{};
  const auto got = ::recv(fd.get(), magic.data(), magic.size(), MSG_WAITALL | MSG_DONTWAIT);
  return got == static_cast<ssize_t>(magic.size()) && std::string_view(magic.data(), magic.size()) == kMagic;
}

Result<> NbdTargets::await_ready(const Served& served) const {
  const auto deadline = SteadyClock::now() + kReadyDeadline;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (!served.last_error.empty())
        return fail(ErrorCode::unavailable,
                    "qemu-nbd does not serve " + served.target.instance.str() + ": " + served.last_error);
    }
    if (answers(served.target.port)) return {};
    if (SteadyClock::now() > deadline)
      return fail(ErrorCode::unavailable, "qemu-nbd does not answer (package qemu-utils)");
    (void)sys::pause(kPoll);
  }
}

Result<int> NbdTargets::open(const NbdTarget& wanted) {
  const std::lock_guard control(control_mutex_);
  if (stopped_) return fail(ErrorCode::cancelled, "the disks are being closed");
  if (const auto it = served_.find(wanted.instance); it != served_.end()) {
    NbdTarget same = it->second->target;
    if (wanted.port == 0) same.port = 0;
    if (same == wanted) return it->second->target.port;
    return fail(ErrorCode::conflict, "another target is open for " + wanted.instance.str());
  }
  NbdTarget target = wanted;
  if (target.port == 0) {
    auto port = choose_port();
    if (!port) return port;
    target.port = *port;
  }
  if (auto ok = keep_key(target); !ok) return fail(ok.error());
  auto made = std::make_unique<Served>();
  made->target = target;
  Served& served = *made;
  {
    const std::lock_guard lock(mutex_);
    served_[target.instance] = std::move(made);
  }
  served.thread = std::jthread([this, &served](const std::stop_token& stop) { serve(served, stop); });
  auto ready = await_ready(served);
  // One with a port of before our restart goes on: its client knows no other.
  if (!ready && wanted.port == 0) end(target.instance);
  if (!ready) return fail(ready.error());
  obs::info("disk.exported", {{"insid", target.instance.str()}, {"port", target.port}, {"by", "nbd"}});
  return target.port;
}

bool NbdTargets::end(const InstanceId& instance) {
  std::unique_ptr<Served> gone;
  {
    const std::lock_guard lock(mutex_);
    const auto it = served_.find(instance);
    if (it == served_.end()) return false;
    gone = std::move(it->second);
    served_.erase(it);
  }
  // Its program is killed and reaped when its thread has ended.
  gone->thread.request_stop();
  gone->thread.join();
  std::error_code ignored;
  std::filesystem::remove_all(folder(instance), ignored);
  return true;
}

void NbdTargets::close(const InstanceId& instance) {
  const std::lock_guard control(control_mutex_);
  if (end(instance)) obs::info("disk.closed", {{"insid", instance.str()}});
}

bool NbdTargets::is_open(const InstanceId& instance) const {
  const std::lock_guard lock(mutex_);
  return served_.contains(instance);
}

void NbdTargets::stop() {
  const std::lock_guard control(control_mutex_);
  stopped_ = true;
  for (auto& [instance, served] : served_) served->thread.request_stop();
  for (auto& [instance, served] : served_) {
    if (served->thread.joinable()) served->thread.join();
  }
  const std::lock_guard lock(mutex_);
  served_.clear();
}

}  // namespace educloud::cc
