#include "common/share/mounts.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <sstream>
#include <thread>

#include "common/sys/file.hpp"

namespace educloud::share {
namespace {

constexpr std::size_t kMaxTable = 16u << 20;

/// The table writes a blank as \040 and so on.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

/// In the order of mounting.
std::vector<Mount> table() {
  std::vector<Mount> all;
  // Not "self": a thread may have entered other mounts than the process.
  auto text = sys::read_file("/proc/thread-self/mountinfo", kMaxTable);
  if (!text) return all;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string id, parent, device, root, at, word, type;
    words >> id >> parent >> device >> root >> at;
    while (words >> word && word != "-") {
    }
    words >> type;
    all.push_back({unescape(at), device, type, root.ends_with("//deleted")});
  }
  return all;
}

bool is_beneath(const std::filesystem::path& path, const std::filesystem::path& folder) {
  const auto& whole = path.native();
  const auto& begin = folder.native();
  return begin == "/" || whole == begin || whole.starts_with(begin + "/");
}

}  // namespace

std::optional<Mount> mount_at(const std::filesystem::path& at) {
  std::optional<Mount> found;
  for (auto& mount : table()) {
    if (mount.at == at) found = std::move(mount);
  }
  return found;
}

std::string device_of(const std::filesystem::path& path) {
  Mount best;
  for (auto& mount : table()) {
    if (is_beneath(path, mount.at) && mount.at.native().size() >= best.at.native().size())
      best = std::move(mount);
  }
  return best.device;
}

Result<> detach(const std::filesystem::path& at) {
  // One may lie on another.
  constexpr int kMostLayers = 16;
  for (int layer = 0; layer < kMostLayers && mount_at(at); ++layer) {
    if (::umount2(at.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
      return fail(errno_error("unmount " + at.string(), errno));
  }
  return {};
}

Result<> bind_read_only(const std::filesystem::path& source, const std::filesystem::path& target) {
  if (auto present = mount_at(target)) {
    if (present->device == device_of(source) && !present->is_deleted) return {};
    if (auto ok = detach(target); !ok) return ok;
  }
  if (auto ok = sys::make_directories(target); !ok) return ok;
  if (::mount(source.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) != 0)
    return fail(errno_error("mount " + source.string() + " at " + target.string(), errno));
  constexpr unsigned long kReadOnly = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV;
  if (::mount(nullptr, target.c_str(), nullptr, kReadOnly, nullptr) != 0) {
    auto error = errno_error("make " + target.string() + " read-only", errno);
    (void)detach(target);
    return fail(std::move(error));
  }
  return {};
}

Result<> enter_host_mounts() {
  struct stat first {
  }, ours{};
  // Refused: the first process is not of our container, whose mounts are the ones meant. Nor is one with
  // another root: then we are in a chroot, and paths mean something else there.
  if (::stat("/proc/1/ns/mnt", &first) != 0) return {};
  if (::stat("/proc/thread-self/ns/mnt", &ours) != 0 || first.st_ino == ours.st_ino) return {};
  if (::stat("/proc/1/root/", &first) != 0 || ::stat("/", &ours) != 0) return {};
  if (first.st_ino != ours.st_ino || first.st_dev != ours.st_dev) return {};
  auto fd = sys::open_file("/proc/1/ns/mnt", O_RDONLY);
  if (!fd) return fail(fd.error());
  if (::unshare(CLONE_FS) != 0 || ::setns(fd->get(), CLONE_NEWNS) != 0)
    return fail(errno_error("enter the host's mounts", errno));
  return {};
}

Result<> in_host_mounts(const std::function<Result<>()>& work) {
  Result<> outcome;
  std::jthread thread([&] {
    outcome = enter_host_mounts();
    if (outcome) outcome = work();
  });
  thread.join();
  return outcome;
}

}  // namespace educloud::share
