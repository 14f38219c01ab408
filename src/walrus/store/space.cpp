#include "walrus/store/space.hpp"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "common/sys/file.hpp"

namespace educloud::walrus {

Result<> make_space(const std::filesystem::path& prefix, const std::string& user) {
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(16 * 1024);
  (void)::getpwnam_r(user.c_str(), &entry, buffer.data(), buffer.size(), &found);
  constexpr mode_t kOpen = 0755, kPrivate = 0700;
  for (const auto& [name, mode] :
       {std::pair{"", kOpen}, {"software", kOpen}, {"pub-data", kOpen}, {"prv-data", kPrivate}}) {
    const auto folder = *name == '\0' ? prefix / "space" : prefix / "space" / name;
    std::error_code error;
    if (std::filesystem::exists(folder, error)) continue;
    if (auto ok = sys::make_directories(folder, mode); !ok) return ok;
    // The umask may have taken something away.
    if (::chmod(folder.c_str(), mode) != 0) return fail(errno_error("chmod " + folder.string(), errno));
    if (*name == '\0' || found == nullptr || ::geteuid() != 0) continue;
    if (::chown(folder.c_str(), entry.pw_uid, entry.pw_gid) != 0)
      return fail(errno_error("chown " + folder.string(), errno));
  }
  return {};
}

}  // namespace educloud::walrus
