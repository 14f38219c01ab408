#include "nc/app/folders.hpp"

#include <pwd.h>
#include <unistd.h>

#include "common/obs/log.hpp"
#include "common/share/mounts.hpp"
#include "common/sys/file.hpp"
#include "common/sys/pause.hpp"
#include "nc/app/instance_record.hpp"

namespace educloud::nc {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

constexpr milliseconds kOneLook{8000};
constexpr milliseconds kPoll{500};
constexpr const char* kRemedy =
    "; see educloud-sftp on walrus' host, the cc's relay to it, and this node's warnings";

constexpr const char* kNotSetUp = "[folders] of nc.conf is not set up; `educloud init` tells how";

const char* share_of(const SharedFolder& folder) {
  return share::kShares.at(static_cast<std::size_t>(folder.share));
}

/// `user` is empty for the others, and a path that ends with a slash is another one.
std::filesystem::path place_of(const std::filesystem::path& space, const SharedFolder& folder) {
  const auto top = space / share_of(folder);
  return folder.user.empty() ? top : top / folder.user;
}

Result<std::string> account_of(unsigned uid) {
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(16 * 1024);
  if (::getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr)
    return fail(ErrorCode::not_found, "this host has no user " + std::to_string(uid) + ", whom QEMU runs as");
  return std::string(entry.pw_name);
}

}  // namespace

Folders::Folders(Options options, Hypervisor& hypervisor)
    : options_(std::move(options)),
      space_(options_.local.empty() ? options_.layout.space() : options_.local),
      hypervisor_(hypervisor),
      mounts_({is_mounted() ? options_.server : share::SftpServer{}, space_, "nc"}) {}

void Folders::start() {
  mounts_.start();
}

void Folders::stop() {
  mounts_.stop();
}

std::vector<std::string> Folders::warnings() const {
  auto all = mounts_.problems();
  if (!is_set_up()) all.emplace_back("no shared folders for guests: " + std::string(kNotSetUp));
  return all;
}

Result<> Folders::look_once(const SharedFolder& folder, const std::stop_token& stop) const {
  const auto top = space_ / share_of(folder);
  // What lies under a mount point that is not mounted is not the folder.
  if (is_mounted() && !share::mount_at(top)) return fail(ErrorCode::unavailable, "it is not mounted");
  auto kind = share::look(top, kOneLook, stop);
  if (kind && *kind == "directory" && folder.source != top) {
    kind = share::look(folder.source, kOneLook, stop);
    if (!kind && kind.error().code == ErrorCode::not_found) {
      if (auto made = share::make_folder(folder.source, kOneLook, stop); !made) return made;
      kind = share::look(folder.source, kOneLook, stop);
    }
  }
  if (!kind) return fail(kind.error());
  if (*kind == "directory") return {};
  return fail(ErrorCode::corrupt, "it is a " + *kind + ", no directory");
}

/// The folder's own place, once it answers. In the tree of mounts no guest can put a link in its way: all it
/// writes to is inside of the last component.
Result<> Folders::find(SharedFolder& folder, const std::stop_token& stop) const {
  const auto deadline = SteadyClock::now() + options_.patience;
  folder.source = place_of(space_, folder);
  for (;;) {
    auto seen = look_once(folder, stop);
    if (seen) return {};
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "interrupted");
    if (seen.error().code == ErrorCode::corrupt || SteadyClock::now() > deadline) {
      return fail(ErrorCode::unavailable, "drive " + folder.drive + ": " + folder.name() +
                                              " does not answer: " + seen.error().message + kRemedy);
    }
    (void)sys::pause(kPoll, stop);
  }
}

/// virtiofsd of QEMU 7.2 has no read-only mode.
Result<> Folders::make_read_only(SharedFolder& folder) {
  const auto source = folder.source;
  folder.source = place_of(options_.layout.read_only_space(), folder);
  const std::lock_guard lock(read_only_mutex_);
  return share::in_host_mounts([&] { return share::bind_read_only(source, folder.source); });
}

Result<> Folders::make_smb(VmSpec& spec) {
  const auto folder = options_.layout.smb(spec.insid);
  if (!is_plain_path(folder)) {
    return fail(
        ErrorCode::invalid_argument,
        "SMB cannot be served under " + folder.string() + ": only letters, digits and . _ - / may be in it",
        "runtime_option.folder_protocol");
  }
  std::error_code ignored;
  if (!std::filesystem::exists("/usr/sbin/smbd", ignored)) {
    return fail(ErrorCode::unavailable,
                "this node has no smbd to give the VM its folders by SMB: apt-get install samba");
  }
  auto uid = hypervisor_.guest_uid();
  if (!uid) return fail(uid.error());
  auto account = account_of(*uid);
  if (!account) return fail(account.error());
  const auto state = folder / "state";
  // The last run's QEMU owned it: nothing in there is to be trusted, and no link in it followed.
  if (auto ok = remove_tree(folder); !ok) return ok;
  if (auto ok = sys::make_directories(state, 0700); !ok) return ok;
  constexpr unsigned kAnyone = 0644;  // in a directory that only that user enters
  if (auto ok =
          sys::write_file_atomically(folder / "smb.conf", smb_config(spec.folders, state, *account), kAnyone);
      !ok)
    return ok;
  // The outer one last: from then on that user can change what is inside.
  for (const auto& path : {state, folder}) {
    if (*uid != ::geteuid() && ::lchown(path.c_str(), *uid, static_cast<gid_t>(-1)) != 0)
      return fail(errno_error("give " + path.string() + " to " + *account, errno));
  }
  spec.smb = folder;
  return {};
}

Result<std::string> Folders::prepare(VmSpec& spec, std::stop_token stop) {
  if (!is_set_up() && !spec.folders.empty()) {
    spec.folders.clear();
    return "; without its shared folders: " + std::string(kNotSetUp);
  }
  std::string note;
  std::vector<SharedFolder> there;
  for (auto& folder : spec.folders) {
    // A user's folder may have to be made where this daemon's unit lets it write nothing.
    auto found = share::in_host_mounts([&] { return find(folder, stop); });
    if (found && folder.read_only && spec.folder_protocol == FolderProtocol::virtiofs)
      found = make_read_only(folder);
    if (found) {
      there.push_back(folder);
      continue;
    }
    if (folder.share != SharedFolder::Share::software || stop.stop_requested()) return fail(found.error());
    obs::warn("folder.left_out", {{"insid", spec.insid.str()}, {"why", found.error().message}});
    note += "; without drive " + folder.drive + " (" + folder.name() + "), which does not answer";
  }
  spec.folders = std::move(there);
  if (spec.folders.empty() || spec.folder_protocol != FolderProtocol::smb) return note;
  if (auto ok = make_smb(spec); !ok) return fail(ok.error());
  return note;
}

}  // namespace educloud::nc
