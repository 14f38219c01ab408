#include "cli/init/owner.hpp"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/sys/file.hpp"

namespace educloud::cli {
namespace {

namespace fs = std::filesystem;

constexpr uid_t kRoot = 0;

std::optional<Owner> look_up(const std::string& name) {
  constexpr std::size_t kEntryBytes = 16 * 1024;
  std::string buffer(kEntryBytes, '\0');
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr)
    return std::nullopt;
  return Owner{name, found->pw_uid, found->pw_gid};
}

/// chown and chmod of one open directory.
Result<> set_directory(const fs::path& path, uid_t uid, gid_t gid, mode_t mode) {
  auto fd = sys::open_file(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!fd) return fail(fd.error());
  if (::fchown(fd->get(), uid, gid) != 0) return fail(errno_error("chown " + path.string(), errno));
  if (::fchmod(fd->get(), mode) != 0) return fail(errno_error("chmod " + path.string(), errno));
  return {};
}

}  // namespace

Result<std::optional<Owner>> find_owner(const InitArguments& arguments) {
  const uid_t self = ::geteuid();
  if (arguments.owner.empty()) {
    const bool is_packaged = self == kRoot && arguments.config_dir == InitArguments{}.config_dir;
    return is_packaged ? look_up(kServiceUser) : std::nullopt;
  }
  auto owner = look_up(arguments.owner);
  if (!owner) {
    return fail(ErrorCode::invalid_argument, "--owner " + arguments.owner + ": there is no such user",
                "owner");
  }
  if (self != kRoot && self != owner->uid) {
    return fail(ErrorCode::permission_denied,
                "--owner " + arguments.owner + ": only root can give files to another user", "owner");
  }
  return owner;
}

std::string find_files_user(const std::optional<Owner>& owner) {
  if (owner && look_up(kFilesUser)) return kFilesUser;
  std::vector<char> buffer(16 * 1024);
  passwd entry{};
  passwd* found = nullptr;
  const int code = ::getpwuid_r(::geteuid(), &entry, buffer.data(), buffer.size(), &found);
  return code == 0 && found != nullptr ? found->pw_name : "root";
}

Result<> give_file(const fs::path& path, const std::optional<Owner>& owner) {
  if (!owner) return {};
  // O_NONBLOCK: a pipe that lies in its place must not hold us.
  auto fd = sys::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd) return fail(fd.error());
  struct stat info {};
  if (::fstat(fd->get(), &info) != 0) return fail(errno_error("stat " + path.string(), errno));
  if (!S_ISREG(info.st_mode) || info.st_nlink != 1) {
    return fail(ErrorCode::invalid_argument,
                path.string() + " is not an ordinary file with one name: remove it and run init again");
  }
  if (info.st_uid == owner->uid && info.st_gid == owner->gid) return {};
  if (::fchown(fd->get(), owner->uid, owner->gid) != 0)
    return fail(errno_error("chown " + path.string(), errno));
  return {};
}

Result<> give_directory(const fs::path& path, const std::optional<Owner>& owner) {
  if (!owner) return {};
  return set_directory(path, owner->uid, owner->gid, 0700);
}

Result<> guard_directory(const fs::path& path, const std::optional<Owner>& owner) {
  const auto unchanged = static_cast<uid_t>(-1);
  if (!owner) return set_directory(path, unchanged, static_cast<gid_t>(-1), 0700);
  return set_directory(path, unchanged, owner->gid, 0750);
}

}  // namespace educloud::cli
