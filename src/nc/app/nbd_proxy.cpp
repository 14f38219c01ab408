#include "nc/app/nbd_proxy.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <csignal>

#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "common/sys/process.hpp"

namespace educloud::nc {
namespace {

constexpr std::chrono::seconds kStartTimeout{30};

std::filesystem::path pid_file(const std::filesystem::path& socket) {
  return socket.string() + ".pid";
}

/// In an option's value a comma is written twice.
std::string quoted(const std::filesystem::path& path) {
  std::string out;
  for (const char c : path.string()) out.append(c == ',' ? 2 : 1, c);
  return out;
}

/// Its process, if it is really that one: a pid may be another's by now.
std::optional<pid_t> process_of(const std::filesystem::path& socket) {
  auto text = sys::read_file(pid_file(socket), 64);
  if (!text) return std::nullopt;
  pid_t pid = 0;
  std::from_chars(text->data(), text->data() + text->size(), pid);
  if (pid <= 1) return std::nullopt;
  auto line = sys::read_file("/proc/" + std::to_string(pid) + "/cmdline", 64 * 1024);
  const std::string argument = "--socket=" + socket.string();
  if (!line || line->find(argument + '\0') == std::string::npos) return std::nullopt;
  return pid;
}

/// Starts it in a process group of its own, and lets `group` connect once it listens.
Result<> launch(std::vector<std::string> arguments, const std::string& upstream,
                const std::filesystem::path& socket, std::optional<unsigned> group) {
  end_nbd_proxy(socket);
  sys::ProcessOptions options;
  // --fork: it leaves our process group once it listens.
  options.argv = {"qemu-nbd", "--fork", "--export-name=disk", "--socket=" + socket.string(),
                  "--pid-file=" + pid_file(socket).string()};
  options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
  options.argv.insert(options.argv.end(), {"--image-opts", upstream});
  options.timeout = kStartTimeout;
  auto started = sys::run_checked(options);
  if (!started) return fail(started.error());
  if (group && ::lchown(socket.c_str(), static_cast<uid_t>(-1), *group) != 0) {
    return fail(errno_error("chown " + socket.string(), errno));
  }
  if (::chmod(socket.c_str(), group ? 0660 : 0600) != 0) {
    return fail(errno_error("chmod " + socket.string(), errno));
  }
  return {};
}

}  // namespace

Result<> start_nbd_proxy(const std::filesystem::path& upstream, const std::filesystem::path& socket,
                         std::optional<unsigned> group) {
  const std::string image =
      "driver=nbd,server.type=unix,server.path=" + quoted(upstream) + ",export=disk,reconnect-delay=3600";
  auto ok = launch({"--read-only"}, image, socket, group);
  return ok ? ok : fail(ok.error(), "serve the arriving image with qemu-nbd");
}

Result<> start_nbd_disk(const NbdDisk& disk, const std::string& key, const std::filesystem::path& keys,
                        const std::filesystem::path& socket, std::optional<unsigned> group) {
  if (auto ok = sys::make_directories(keys, 0700); !ok) return ok;
  if (auto ok = sys::write_file_atomically(keys / "keys.psk", disk.user + ":" + key + "\n", 0600); !ok)
    return ok;
  const std::string image = "driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=" + disk.host +
                            ",file.server.port=" + std::to_string(disk.port) + ",file.export=" + disk.name +
                            ",file.tls-creds=tls,file.reconnect-delay=86400";
  auto ok = launch({"--persistent", "--cache=writethrough", "--object",
                    "tls-creds-psk,id=tls,endpoint=client,username=" + disk.user + ",dir=" + quoted(keys)},
                   image, socket, group);
  return ok ? ok : fail(ok.error(), "reach the database disk with qemu-nbd");
}

bool is_nbd_proxy_up(const std::filesystem::path& socket) {
  return process_of(socket).has_value();
}

void end_nbd_proxy(const std::filesystem::path& socket) {
  if (const auto pid = process_of(socket)) {
    obs::info("lazy.proxy_ended", {{"socket", socket.string()}});
    ::kill(*pid, SIGKILL);
  }
  std::error_code ignored;
  std::filesystem::remove(pid_file(socket), ignored);
  std::filesystem::remove(socket, ignored);
}

}  // namespace educloud::nc
