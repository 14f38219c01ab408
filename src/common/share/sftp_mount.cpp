#include "common/share/sftp_mount.hpp"

#include <signal.h>

#include "common/obs/log.hpp"
#include "common/share/mounts.hpp"
#include "common/sys/file.hpp"
#include "common/sys/pause.hpp"
#include "common/sys/process.hpp"

namespace educloud::share {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

constexpr milliseconds kFirstPause{500};
constexpr milliseconds kLongestPause{30'000};
constexpr const char* kType = "fuse.sshfs";

/// Runs a program that may hang in the kernel and then cannot even be killed: its parent, timeout(1), can,
/// and is all that is waited for.
Result<sys::ProcessResult> run_at_arms_length(std::vector<std::string> argv, milliseconds patience,
                                              std::stop_token stop) {
  sys::ProcessOptions options;
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(patience).count() + 1;
  options.argv = {"timeout", "--foreground", "--signal=KILL", std::to_string(seconds)};
  options.argv.insert(options.argv.end(), std::make_move_iterator(argv.begin()),
                      std::make_move_iterator(argv.end()));
  options.timeout = patience;
  return sys::run(options, std::move(stop));
}

std::string last_line(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  const auto at = text.rfind('\n');
  if (at != std::string::npos) text.erase(0, at + 1);
  constexpr std::size_t kShown = 300;
  return text.size() > kShown ? text.substr(0, kShown) : text;
}

/// Processes whose command line says that they are the sshfs of this mount point.
std::vector<pid_t> sshfs_at(const std::filesystem::path& at) {
  std::vector<pid_t> found;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator("/proc", error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const auto name = entry->path().filename().string();
    if (name.find_first_not_of("0123456789") != name.npos) continue;
    auto words = sys::read_file(entry->path() / "cmdline", 64 * 1024);
    if (!words) continue;
    const auto first = words->substr(0, words->find('\0'));
    if (first != "sshfs" && !first.ends_with("/sshfs")) continue;
    if (words->find('\0' + at.string() + '\0') == words->npos) continue;
    found.push_back(static_cast<pid_t>(std::strtol(name.c_str(), nullptr, 10)));
  }
  return found;
}

}  // namespace

Result<std::string> look(const std::filesystem::path& path, milliseconds patience, std::stop_token stop) {
  auto asked = run_at_arms_length({"stat", "-c", "%F", "--", path.string()}, patience, std::move(stop));
  if (!asked) return fail(asked.error());
  if (asked->exit_code == 0) {
    while (asked->out.ends_with('\n')) asked->out.pop_back();
    return std::move(asked->out);
  }
  const auto said = last_line(asked->err);
  const auto code = said.find("No such file") != said.npos ? ErrorCode::not_found : ErrorCode::unavailable;
  return fail(code, said);
}

Result<> make_folder(const std::filesystem::path& path, milliseconds patience, std::stop_token stop) {
  auto made = run_at_arms_length({"mkdir", "-m", "0700", "--", path.string()}, patience, std::move(stop));
  if (!made) return fail(made.error());
  if (made->exit_code == 0 || made->err.find("File exists") != made->err.npos) return {};
  return fail(ErrorCode::unavailable, last_line(made->err));
}

void SftpMount::start() {
  thread_ = std::jthread([this](const std::stop_token& stop) { work(stop); });
}

void SftpMount::stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

std::string SftpMount::problem() const {
  const std::lock_guard lock(mutex_);
  return problem_;
}

void SftpMount::set_problem(std::string problem) {
  const std::lock_guard lock(mutex_);
  if (problem_.empty() != problem.empty()) {
    if (problem.empty()) {
      obs::info("folder.answers", {{"at", options_.at.string()}});
    } else {
      obs::warn("folder.silent", {{"at", options_.at.string()}, {"why", problem}});
    }
  }
  problem_ = std::move(problem);
}

void SftpMount::work(const std::stop_token& stop) {
  if (auto ok = options_.is_for_host ? enter_host_mounts() : Result<>(); !ok) {
    set_problem(ok.error().message);
    obs::error("folder.no_mounts", {{"at", options_.at.string()}, {"why", ok.error().message}});
    return;
  }
  while (!stop.stop_requested()) {
    try {
      step(stop);
    } catch (const std::exception& e) {
      set_problem(e.what());
    }
    (void)sys::pause(pause_.count() > 0 ? pause_ : options_.every, stop);
  }
}

/// One look, and what follows from it. Sets how long to wait for the next, if not the usual time.
void SftpMount::step(const std::stop_token& stop) {
  const auto back_off = std::clamp(2 * pause_, kFirstPause, kLongestPause);
  const auto present = mount_at(options_.at);
  if (present && present->type == kType) {
    auto seen = look(options_.at, options_.patience, stop);
    if (stop.stop_requested()) return;
    const auto now = SteadyClock::now();
    if (seen) {
      hangs_since_ = {};
      pause_ = {};
      return set_problem({});
    }
    set_problem("it does not answer: " + seen.error().message);
    const bool hangs = seen.error().code == ErrorCode::timeout;
    if (!hangs) hangs_since_ = {};
    if (hangs && hangs_since_ == SteadyClock::time_point{}) hangs_since_ = now;
    const auto servers = sshfs_at(options_.at);
    const bool too_long = hangs && now - hangs_since_ > options_.give_up;
    // Each look that hangs leaves a process behind until sshfs answers or ends.
    pause_ = hangs ? back_off : milliseconds{0};
    if (!servers.empty() && !too_long) return;
    obs::warn("folder.mounted_anew", {{"at", options_.at.string()}, {"killed", servers.size()}});
    hangs_since_ = {};
    pause_ = {};
  }
  auto mounted = mount(stop);
  if (stop.stop_requested()) return;
  pause_ = mounted ? milliseconds{0} : back_off;
  set_problem(mounted ? std::string() : "it cannot be mounted: " + mounted.error().message);
}

Result<> SftpMount::mount(const std::stop_token& stop) {
  // One that did not get so far in time.
  for (const pid_t server : sshfs_at(options_.at)) ::kill(server, SIGKILL);
  if (auto ok = detach(options_.at); !ok) return ok;
  if (auto ok = sys::make_directories(options_.at); !ok) return ok;
  sys::ProcessOptions sshfs;
  // In a session of its own, or its ssh would end with this call, as all does that sys::run started.
  sshfs.argv = {"setsid", "--wait", "sshfs"};
  sshfs.argv.insert(sshfs.argv.end(),
                    {options_.user + "@" + options_.host + ":" + options_.folder, options_.at.string()});
  sshfs.argv.insert(sshfs.argv.end(), {"-F", "/dev/null", "-p", std::to_string(options_.port)});
  for (const std::string& option :
       {// Walrus' user owns all of it there.
        std::string("idmap=user"), std::string("nosuid"), std::string("nodev"),
        // What one node writes another reads a moment later.
        std::string("dcache_timeout=1"), std::string("attr_timeout=1"), std::string("entry_timeout=1"),
        std::string("reconnect"), std::string("ServerAliveInterval=5"), std::string("ServerAliveCountMax=2"),
        std::string("ConnectTimeout=5"), std::string("BatchMode=yes"), std::string("IdentitiesOnly=yes"),
        "IdentityFile=" + options_.key_file.string(), std::string("StrictHostKeyChecking=yes"),
        "UserKnownHostsFile=" + options_.known_hosts_file.string(),
        std::string("GlobalKnownHostsFile=/dev/null"), std::string("HostKeyAlias=") + kHostAlias}) {
    sshfs.argv.insert(sshfs.argv.end(), {"-o", option});
  }
  // QEMU and its servers run as other users.
  if (options_.is_for_host) sshfs.argv.insert(sshfs.argv.end(), {"-o", "allow_other"});
  sshfs.timeout = options_.mount_deadline;
  // It goes into the background once it is mounted.
  auto done = sys::run(sshfs, stop);
  if (!done) return fail(done.error());
  if (done->exit_code == 0) return {};
  return fail(ErrorCode::unavailable, last_line(done->err));
}

}  // namespace educloud::share
