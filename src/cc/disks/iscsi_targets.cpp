#include "cc/disks/iscsi_targets.hpp"

#include <algorithm>
#include <chrono>

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/file.hpp"
#include "common/sys/pause.hpp"
#include "common/sys/process.hpp"

namespace educloud::cc {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;
using Mode = TgtRequest::Mode;
using Op = TgtRequest::Op;

constexpr milliseconds kFirstPause{100};
constexpr milliseconds kLongestPause{10'000};
/// A tgtd that ran for so long is not one that cannot start.
constexpr std::chrono::seconds kRanWell{30};
constexpr std::chrono::seconds kReadyDeadline{10};
constexpr std::chrono::seconds kCloseDeadline{5};
constexpr milliseconds kPoll{20};
constexpr std::size_t kMaxRunDir = 90;

Result<> check(const IscsiTarget& target) {
  // Both go into tgtd's comma-separated parameters.
  if (target.file.native().find(',') != std::string::npos) {
    return fail(ErrorCode::invalid_argument, "tgtd takes no path with a comma: " + target.file.string());
  }
  const auto is_word = [](unsigned char c) { return std::isalnum(c) != 0; };
  const auto is_address = [](unsigned char c) { return std::isxdigit(c) != 0 || c == '.' || c == ':'; };
  if (target.secret.size() < 12 || target.secret.size() > 32 ||
      !std::ranges::all_of(target.secret, is_word)) {
    return fail(ErrorCode::invalid_argument, "a CHAP secret has 12 to 32 letters and digits");
  }
  if (target.address.empty() || !std::ranges::all_of(target.address, is_address)) {
    return fail(ErrorCode::invalid_argument, "no address of an initiator: '" + target.address + "'");
  }
  return {};
}

std::string portal_of(const std::string& address, int port) {
  const bool is_v6 = address.find(':') != std::string::npos;
  return (is_v6 ? "[" + address + "]" : address) + ":" + std::to_string(port);
}

}  // namespace

Result<> IscsiTargets::make(const Made& made) {
  const auto& user = made.target.instance.str();
  const auto tell = [&](TgtRequest request) -> Result<> {
    auto answer = control_.call(request);
    if (!answer) return fail(answer.error());
    return {};
  };
  const std::string account = "user=" + user + ",password=" + made.target.secret;
  auto ok = tell({.op = Op::make, .tid = made.tid, .parameters = "targetname=" + iqn(made.target.instance)});
  if (ok) {
    // One may be left of a target that was removed half.
    (void)tell({.mode = Mode::account, .op = Op::remove, .parameters = "user=" + user});
    ok = tell({.mode = Mode::account, .op = Op::make, .parameters = account});
  }
  if (ok) ok = tell({.mode = Mode::account, .op = Op::bind, .tid = made.tid, .parameters = "user=" + user});
  if (ok) {
    ok = tell({.mode = Mode::device,
               .op = Op::make,
               .tid = made.tid,
               .lun = kLun,
               .parameters = "path=" + made.target.file.string() + ",bstype=rdwr,bsoflags=sync"});
  }
  // Last: until then nobody may log in.
  if (ok) {
    ok = tell({.op = Op::bind, .tid = made.tid, .parameters = "initiator-address=" + made.target.address});
  }
  if (ok && !made.target.also.empty() && made.target.also != made.target.address)
    ok = tell({.op = Op::bind, .tid = made.tid, .parameters = "initiator-address=" + made.target.also});
  if (!ok) return fail(ok.error(), "export " + made.target.file.string());
  return {};
}

/// Once nobody may log in, the disk goes first: from then on no session reaches the file.
Result<> IscsiTargets::remove(const Made& made) {
  const auto deadline = SteadyClock::now() + kCloseDeadline;
  const std::string line = "Target " + std::to_string(made.tid) + ": ";
  for (;;) {
    for (const auto& [address, is_sure] : made.bound)
      (void)control_.call({.op = Op::unbind, .tid = made.tid, .parameters = "initiator-address=" + address});
    (void)control_.call({.mode = Mode::device, .op = Op::remove, .tid = made.tid, .lun = kLun});
    kick_sessions(made);
    (void)control_.call({.op = Op::remove, .tid = made.tid});
    auto shown = control_.call({.op = Op::show});
    if (!shown) return fail(shown.error());
    if (!shown->starts_with(line) && shown->find("\n" + line) == std::string::npos) break;
    if (SteadyClock::now() > deadline) {
      return fail(ErrorCode::timeout, "tgtd does not let go of " + made.target.instance.str());
    }
    (void)sys::pause(kPoll);
  }
  (void)control_.call(
      {.mode = Mode::account, .op = Op::remove, .parameters = "user=" + made.target.instance.str()});
  return {};
}

Result<> IscsiTargets::await_ready() {
  const auto deadline = SteadyClock::now() + kReadyDeadline;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (stopped_) return fail(ErrorCode::cancelled, "the iSCSI targets are being stopped");
      if (!runs_ && SteadyClock::now() > deadline) {
        return fail(ErrorCode::unavailable, "tgtd does not run here (package tgt); see the log");
      }
    }
    auto shown = control_.call({.op = Op::show});
    if (shown) return {};
    if (SteadyClock::now() > deadline) return fail(shown.error());
    (void)sys::pause(kPoll);
  }
}

Result<> IscsiTargets::make_all() {
  if (auto ready = await_ready(); !ready) return ready;
  for (;;) {
    std::optional<Made> next;
    {
      const std::lock_guard lock(mutex_);
      for (auto& [instance, made] : wanted_) {
        if (made.is_made) continue;
        // Counts as tried: what cannot be made is told in the log, or to whoever opens it again.
        made.is_made = true;
        made.bound = {{made.target.address, true}};
        if (!made.target.also.empty()) made.bound[made.target.also] = true;
        next = made;
        break;
      }
    }
    if (!next) return {};
    auto ok = make(*next);
    if (ok) continue;
    (void)remove(*next);
    obs::error("disk.not_exported", {{"insid", next->target.instance.str()}, {"error", ok.error().message}});
    const std::lock_guard lock(mutex_);
    wanted_.erase(next->target.instance);
  }
}

Result<> IscsiTargets::run_once(const std::stop_token& stop) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return {};
    runs_ = true;
    for (auto& [instance, made] : wanted_) {
      made.is_made = false;
      made.bound.clear();
    }
  }
  std::jthread filler([this](const std::stop_token& ended) {
    const std::lock_guard control(control_mutex_);
    if (ended.stop_requested()) return;
    if (auto ok = make_all(); !ok) obs::warn("tgtd.not_ready", {{"error", ok.error().message}});
  });
  auto kill = filler.get_stop_source();
  const std::stop_callback forward(stop, [&kill] { kill.request_stop(); });
  {
    const std::lock_guard lock(mutex_);
    kill_ = kill;
  }
  sys::ProcessOptions options;
  options.argv = {"tgtd", "-f", "-C", "0", "--iscsi", "portal=" + portal_of(options_.listen, options_.port)};
  options.environment = {"TGT_IPC_SOCKET=" + (options_.run_dir / "tgtd").string()};
  options.timeout = std::chrono::hours{24 * 365 * 10};
  auto ended = sys::run(options, kill.get_token());
  {
    const std::lock_guard lock(mutex_);
    runs_ = false;
    kill_.reset();
  }
  // Before the filler is waited for: who holds control_mutex_ may be waiting for just this.
  changed_.notify_all();
  kill.request_stop();
  if (!ended) return fail(ended.error());
  auto tail = ended->err.substr(ended->err.size() - std::min<std::size_t>(ended->err.size(), 300));
  // It does not print secrets today; this is about tomorrow.
  if (tail.find("password") != std::string::npos) tail = "(not shown)";
  return fail(ErrorCode::internal, "tgtd ended with " + std::to_string(ended->exit_code) + ": " + tail);
}

void IscsiTargets::supervise(const std::stop_token& stop) {
  auto pause = kFirstPause;
  while (!stop.stop_requested()) {
    const auto began = SteadyClock::now();
    auto ended = run_once(stop);
    if (stop.stop_requested()) return;
    obs::metrics().count("educloud_cc_tgtd_restarts_total", "How often tgtd ended and was started again", 1);
    if (SteadyClock::now() - began > kRanWell) pause = kFirstPause;
    obs::warn("tgtd.ended",
              {{"reason", ended ? std::string("?") : ended.error().message}, {"again_in_ms", pause.count()}});
    (void)sys::pause(pause, stop);
    pause = std::min(pause * 2, kLongestPause);
  }
}

void IscsiTargets::kill_tgtd() {
  std::unique_lock lock(mutex_);
  while (runs_) {
    // Again and again: it may be just starting.
    if (kill_) kill_->request_stop();
    changed_.wait_for(lock, kPoll);
  }
}

Result<> IscsiTargets::open(const IscsiTarget& target) {
  if (auto ok = check(target); !ok) return ok;
  if (options_.run_dir.native().size() > kMaxRunDir) {
    return fail(ErrorCode::invalid_argument, "too long for a socket: " + options_.run_dir.string());
  }
  if (auto made = sys::make_directories(options_.run_dir, 0700); !made) return made;
  const std::lock_guard control(control_mutex_);
  std::int32_t tid = 0;
  bool was_made = false;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return fail(ErrorCode::cancelled, "the iSCSI targets are being stopped");
    const auto it = wanted_.find(target.instance);
    if (it != wanted_.end() && !(it->second.target == target)) {
      return fail(ErrorCode::conflict, "another target is open for " + target.instance.str());
    }
    if (it == wanted_.end()) wanted_[target.instance] = {.target = target, .tid = next_tid_++};
    tid = wanted_[target.instance].tid;
    was_made = wanted_[target.instance].is_made;
  }
  if (!supervisor_.joinable()) {
    supervisor_ = std::jthread([this](const std::stop_token& stop) { supervise(stop); });
  }
  auto ok = make_all();
  // A change of who may log in may have been done by half.
  if (ok && was_made) ok = admit_wanted(target.instance);
  const std::lock_guard lock(mutex_);
  const auto it = wanted_.find(target.instance);
  if (ok && it == wanted_.end()) {
    ok = fail(ErrorCode::unavailable,
              "tgtd did not take the disk of " + target.instance.str() + "; see the log");
  }
  if (!ok && it != wanted_.end() && !it->second.is_made) wanted_.erase(it);
  if (ok)
    obs::info("disk.exported", {{"insid", target.instance.str()}, {"address", target.address}, {"tid", tid}});
  return ok;
}

void IscsiTargets::close(const InstanceId& instance) {
  const std::lock_guard control(control_mutex_);
  std::optional<Made> made;
  bool runs = false;
  {
    const std::lock_guard lock(mutex_);
    const auto it = wanted_.find(instance);
    if (it == wanted_.end()) return;
    made = it->second;
    wanted_.erase(it);
    runs = runs_;
  }
  if (runs) {
    if (auto ok = remove(*made); !ok) {
      // Also the way out if tgtd just ended by itself: then this waits for its end only.
      obs::warn("tgtd.killed", {{"insid", instance.str()}, {"reason", ok.error().message}});
      kill_tgtd();
    }
  }
  obs::info("disk.closed", {{"insid", instance.str()}});
}

bool IscsiTargets::is_open(const InstanceId& instance) const {
  const std::lock_guard lock(mutex_);
  return wanted_.contains(instance);
}

void IscsiTargets::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    if (kill_) kill_->request_stop();
  }
  std::jthread supervisor;
  {
    const std::lock_guard control(control_mutex_);
    supervisor = std::move(supervisor_);
  }
}

}  // namespace educloud::cc
