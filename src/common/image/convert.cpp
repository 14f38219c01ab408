#include "common/image/convert.hpp"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "common/image/qemu_img.hpp"
#include "common/sys/file.hpp"
#include "common/sys/process.hpp"

namespace educloud::image {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kAddressSpaceBytes = 1ull << 30;

/// The converter's user, or none if we may not switch.
struct Confinement {
  bool switched = false;
  uid_t uid = 0;
  gid_t gid = 0;
};

Result<Confinement> choose_confinement(const ConvertRequest& request) {
  const bool possible = ::geteuid() == 0 && !request.user.empty();
  if (!possible) {
    if (request.isolation == Isolation::best_effort) return Confinement{};
    return fail(ErrorCode::permission_denied,
                "converting an image needs root and an unprivileged user to run qemu-img as (convert_user)");
  }
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(16 * 1024);
  const int code = ::getpwnam_r(request.user.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (code != 0) return fail(errno_error("look up user '" + request.user + "'", code));
  if (found == nullptr) {
    return fail(ErrorCode::not_found, "there is no user '" + request.user +
                                          "' to convert images as: create it " + "(useradd --system " +
                                          request.user + ") or set convert_user");
  }
  return Confinement{true, entry.pw_uid, entry.pw_gid};
}

/// The one directory the converter can write to; gone when this is.
class Workspace {
 public:
  explicit Workspace(fs::path path) : path_(std::move(path)) {}
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    std::error_code ignored;
    if (made_) fs::remove_all(path_, ignored);
  }

  Result<> make(const Confinement& confinement) {
    if (::mkdir(path_.c_str(), 0700) != 0) return fail(errno_error("mkdir " + path_.string(), errno));
    made_ = true;
    if (confinement.switched && ::chown(path_.c_str(), confinement.uid, confinement.gid) != 0) {
      return fail(errno_error("chown " + path_.string(), errno));
    }
    return {};
  }

 private:
  const fs::path path_;
  bool made_ = false;
};

/// Makes the input readable, and only that, under the name `input` in the workspace.
Result<> hand_over_input(const ConvertRequest& request, const Confinement& confinement) {
  auto fd = sys::open_file(request.input, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd) return fail(fd.error());
  const auto name = (request.workspace / "input").string();
  if (::linkat(AT_FDCWD, request.input.c_str(), AT_FDCWD, name.c_str(), 0) != 0) {
    return fail(
        errno_error("link " + request.input.string() + " to " + name + " (must be one file system)", errno));
  }
  if (!confinement.switched) return {};
  if (::fchown(fd->get(), static_cast<uid_t>(-1), confinement.gid) != 0 || ::fchmod(fd->get(), 0440) != 0) {
    return fail(errno_error("hand over " + request.input.string(), errno));
  }
  return {};
}

/// Takes what the converter left: an ordinary file with one name, ours from now on.
Result<> take_over_output(const ConvertRequest& request, std::uint64_t disk_bytes,
                          const Confinement& confinement) {
  const auto made = request.workspace / "output";
  auto fd = sys::open_file(made, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd) return fail(fd.error());
  struct stat info {};
  if (::fstat(fd->get(), &info) != 0) return fail(errno_error("stat " + made.string(), errno));
  if (!S_ISREG(info.st_mode) || info.st_nlink != 1) {
    return fail(ErrorCode::invalid_argument,
                "the converter left something else than a file: the image is refused");
  }
  if (static_cast<std::uint64_t>(info.st_size) != disk_bytes) {
    return fail(ErrorCode::invalid_argument, "the disk in the image has " + std::to_string(info.st_size) +
                                                 " bytes, its header says " + std::to_string(disk_bytes) +
                                                 ": the image is refused");
  }
  if (confinement.switched && ::fchown(fd->get(), ::geteuid(), ::getegid()) != 0) {
    return fail(errno_error("chown " + made.string(), errno));
  }
  if (::fchmod(fd->get(), 0600) != 0) return fail(errno_error("chmod " + made.string(), errno));
  if (::renameat2(AT_FDCWD, made.c_str(), AT_FDCWD, request.output.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST) return fail(ErrorCode::conflict, request.output.string() + " exists already");
    return fail(errno_error("move the converted image to " + request.output.string(), errno));
  }
  return {};
}

Result<> check_absent(const fs::path& path) {
  std::error_code error;
  if (fs::exists(fs::symlink_status(path, error))) {
    return fail(ErrorCode::conflict, path.string() + " exists already");
  }
  return {};
}

Result<> check_absolute(const fs::path& path) {
  if (path.is_absolute()) return {};
  return fail(ErrorCode::invalid_argument, "'" + path.string() + "' is not an absolute path");
}

}  // namespace

Result<ConvertResult> convert_to_raw(const ConvertRequest& request, std::uint64_t virtual_size_bytes,
                                     std::stop_token stop) {
  // QEMU counts in sectors: a disk that ends inside one is made whole.
  const std::uint64_t disk_bytes = (virtual_size_bytes + 511) / 512 * 512;
  auto confinement = choose_confinement(request);
  if (!confinement) return fail(confinement.error());
  if (auto ok = check_absent(request.output); !ok) return fail(ok.error());
  Workspace workspace(request.workspace);
  if (auto ok = workspace.make(*confinement); !ok) return fail(ok.error());
  if (auto ok = hand_over_input(request, *confinement); !ok) return fail(ok.error());

  PercentParser parser(request.on_percent);
  sys::ProcessOptions options;
  // Names relative to the workspace: the user need not be able to walk to it, and "./" keeps QEMU from
  // reading a protocol into a name.
  options.argv = {"qemu-img", "convert", "-p", "-f",  std::string(to_string(request.input_format)),
                  "-O",       "raw",     "-S", "64k", "./input",
                  "./output"};
  options.working_directory = request.workspace.string();
  options.timeout = request.timeout;
  options.run_as_user = confinement->switched ? request.user : "";
  options.without_network = confinement->switched;
  options.address_space_limit = kAddressSpaceBytes;
  options.cpu_seconds_limit = request.cpu_seconds_limit;
  options.file_size_limit = disk_bytes;
  options.on_stdout = [&parser](std::string_view piece) { parser.feed(piece); };
  if (auto done = run_qemu_img(options, stop); !done) return fail(done.error());
  if (auto done = take_over_output(request, disk_bytes, *confinement); !done) return fail(done.error());
  return ConvertResult{disk_bytes, confinement->switched};
}

Result<> raw_to_qcow2(const fs::path& raw, const fs::path& output, const OnPercent& on_percent,
                      std::stop_token stop) {
  for (const auto* path : {&raw, &output}) {
    if (auto ok = check_absolute(*path); !ok) return ok;
  }
  if (auto ok = check_absent(output); !ok) return ok;
  PercentParser parser(on_percent);
  sys::ProcessOptions options;
  options.argv = {"qemu-img", "convert", "-p",         "-f",         "raw",          "-O",
                  "qcow2",    "-o",      "compat=1.1", raw.string(), output.string()};
  options.timeout = std::chrono::hours(2);
  options.on_stdout = [&parser](std::string_view piece) { parser.feed(piece); };
  auto done = run_qemu_img(options, stop).and_then([&] { return sys::sync_path(output); });
  if (!done) {
    std::error_code ignored;
    fs::remove(output, ignored);
  }
  return done;
}

}  // namespace educloud::image
