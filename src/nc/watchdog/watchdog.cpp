#include "nc/watchdog/watchdog.hpp"

#include <charconv>
#include <csignal>

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/file.hpp"
#include "common/sys/pause.hpp"
#include "common/sys/process.hpp"
#include "nc/app/lease_file.hpp"

namespace educloud::nc {
namespace fs = std::filesystem;
namespace {

constexpr std::chrono::seconds kDestroyTimeout{10};
constexpr std::size_t kCommandLineBytes = 256 * 1024;

bool is_qemu_of(std::string_view command_line, const std::string& name) {
  const auto program = command_line.substr(0, command_line.find('\0'));
  if (program.find("qemu") == program.npos) return false;
  using namespace std::string_literals;
  const std::string option = "\0-name\0guest="s + name;
  const auto at = command_line.find(option);
  if (at == command_line.npos) return false;
  const auto end = at + option.size();
  return end == command_line.size() || command_line[end] == ',' || command_line[end] == '\0';
}

}  // namespace

std::vector<pid_t> qemu_processes(const fs::path& proc, const InstanceId& insid) {
  std::vector<pid_t> found;
  std::error_code error;
  for (fs::directory_iterator entry(proc, error), none; !error && entry != none; entry.increment(error)) {
    const auto name = entry->path().filename().string();
    pid_t pid = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (bad != std::errc{} || end != name.data() + name.size() || pid <= 1) continue;
    const auto line = sys::read_file(entry->path() / "cmdline", kCommandLineBytes);
    if (line && is_qemu_of(*line, insid.str())) found.push_back(pid);
  }
  return found;
}

Result<> virsh_destroy(const std::string& uri, const InstanceId& insid) {
  sys::ProcessOptions options;
  options.argv = {"virsh", "-q", "-c", uri, "destroy", insid.str()};
  options.timeout = kDestroyTimeout;
  auto done = sys::run_checked(options);
  if (!done) return fail(done.error());
  return {};
}

std::int64_t Watchdog::age_ms() const {
  const std::int64_t now = clock_.boot_ms();
  const auto granted = read_lease_file(options_.state_dir);
  // One of a boot before this one says nothing.
  return now - (granted && *granted <= now ? *granted : since_);
}

void Watchdog::end(const InstanceId& insid) {
  if (auto ok = destroy_(insid); !ok)
    obs::warn("watchdog.libvirt_failed", {{"insid", insid.str()}, {"reason", ok.error().message}});
  for (const auto pid : qemu_processes(options_.proc, insid)) {
    obs::error("watchdog.killed", {{"insid", insid.str()}, {"pid", pid}});
    ::kill(pid, SIGKILL);
  }
}

int Watchdog::tick() {
  const auto age = age_ms();
  obs::metrics().gauge("educloud_nc_watchdog_lease_age_seconds", "Since nc noted clc's last grant",
                       static_cast<double>(age) / 1000);
  if (age <= kExpiredMs) return 0;
  int ended = 0;
  for (const auto& insid : read_exclusive(options_.state_dir)) {
    if (qemu_processes(options_.proc, insid).empty()) continue;
    obs::error("watchdog.lease_expired", {{"insid", insid.str()}, {"age_s", age / 1000}});
    obs::metrics().count("educloud_nc_watchdog_vms_ended_total", "VMs ended because nc did not");
    end(insid);
    ++ended;
  }
  return ended;
}

void Watchdog::start() {
  thread_ = std::jthread([this](std::stop_token stop) {
    while (!stop.stop_requested()) {
      try {
        tick();
      } catch (const std::exception& e) {
        obs::error("watchdog.exception", {{"what", e.what()}});
      }
      (void)sys::pause(std::chrono::seconds{1}, stop);
    }
  });
}

void Watchdog::stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

}  // namespace educloud::nc
