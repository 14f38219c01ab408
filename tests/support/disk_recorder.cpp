#include "support/disk_recorder.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "support/recorded_calls.hpp"

namespace educloud::testing {

namespace fs = std::filesystem;

struct DiskRecorder::Impl {
  std::mutex mutex;
  fs::path root;
  dev_t device = 0;
  std::map<ino_t, int> numbers;
  int next = 0;
  Recording recording;

  int number_of(const struct stat& info) const {
    const auto found = info.st_dev == device ? numbers.find(info.st_ino) : numbers.end();
    return found == numbers.end() ? -1 : found->second;
  }
  int add(const struct stat& info) { return numbers[info.st_ino] = next++; }
  void note(DiskOp op) { recording.ops.push_back(std::move(op)); }
  void scan(const fs::path& folder, int number);
};

namespace {

std::atomic<DiskRecorder::Impl*> active = nullptr;

/// The folder a call is about and the name in it; folder -1: not one of ours.
struct Name {
  int folder = -1;
  std::string name;
  int file = -1;  ///< what has the name now
  bool exists = false;
};

Name look_up(const DiskRecorder::Impl& disk, int at, const char* path) {
  const fs::path whole(path);
  Name out;
  out.name = whole.filename().string();
  struct stat info {};
  const auto parent = whole.parent_path();
  const bool found = parent.empty() && at != AT_FDCWD
                         ? ::fstat(at, &info) == 0
                         : ::fstatat(at, parent.empty() ? "." : parent.c_str(), &info, 0) == 0;
  if (!found) return out;
  out.folder = disk.number_of(info);
  if (::fstatat(at, path, &info, AT_SYMLINK_NOFOLLOW) == 0) {
    out.exists = true;
    out.file = disk.number_of(info);
  }
  return out;
}

/// The number of an open file, -1 if it is none of ours.
int file_of(DiskRecorder::Impl& disk, int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !(S_ISREG(info.st_mode) || S_ISDIR(info.st_mode))) return -1;
  return disk.number_of(info);
}

/// Holds the recorder for one call about an open file of ours; else lets go at once, since a pipe may block.
class OnFile {
 public:
  explicit OnFile(int fd) : disk_(active) {
    if (disk_ == nullptr) return;
    lock_ = std::unique_lock(disk_->mutex);
    file_ = file_of(*disk_, fd);
    if (file_ < 0) lock_.unlock();
  }
  explicit operator bool() const { return file_ >= 0; }
  void note(DiskOp op) {
    op.file = file_;
    disk_->note(std::move(op));
  }

 private:
  DiskRecorder::Impl* disk_;
  std::unique_lock<std::mutex> lock_;
  int file_ = -1;
};

long raw_open(int at, const char* path, int flags, unsigned mode) {
  return ::syscall(SYS_openat, at, path, flags, mode);
}

std::string read_whole(const fs::path& path) {
  const int fd = static_cast<int>(raw_open(AT_FDCWD, path.c_str(), O_RDONLY | O_CLOEXEC, 0));
  std::string text;
  char buffer[1 << 16];
  for (ssize_t got = 0; fd >= 0 && (got = ::read(fd, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  ::close(fd);
  return text;
}

}  // namespace

int do_open(int at, const char* path, int flags, unsigned mode) {
  auto* disk = active.load();
  if (disk == nullptr || (flags & (O_CREAT | O_TRUNC)) == 0 || (flags & O_TMPFILE) == O_TMPFILE)
    return static_cast<int>(raw_open(at, path, flags, mode));
  const std::scoped_lock lock(disk->mutex);
  const auto name = look_up(*disk, at, path);
  const auto fd = static_cast<int>(raw_open(at, path, flags, mode));
  if (fd < 0 || name.folder < 0) return fd;
  struct stat info {};
  ::fstat(fd, &info);
  if (!name.exists) {
    const int file = disk->add(info);
    disk->note({.kind = DiskOp::Kind::add_name, .file = file, .folder = name.folder, .name = name.name});
  } else if ((flags & O_TRUNC) != 0 && name.file >= 0) {
    disk->note({.kind = DiskOp::Kind::cut, .file = name.file});
  }
  return fd;
}

ssize_t do_pwritev(int fd, const iovec* parts, int count, off_t at) {
  OnFile file(fd);
  // A negative offset: where the file stands.
  const auto done = at < 0 ? ::syscall(SYS_writev, fd, parts, count)
                           : ::syscall(SYS_pwritev, fd, parts, count, static_cast<long>(at), 0L);
  if (!file || done <= 0) return done;
  DiskOp op{.kind = DiskOp::Kind::write};
  op.at = static_cast<std::uint64_t>(at < 0 ? ::lseek(fd, 0, SEEK_CUR) - done : at);
  for (int i = 0; i < count && op.data.size() < static_cast<std::size_t>(done); ++i)
    op.data.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
  op.data.resize(static_cast<std::size_t>(done));
  file.note(std::move(op));
  return done;
}

int do_truncate(int fd, off_t length) {
  OnFile file(fd);
  const auto done = static_cast<int>(::syscall(SYS_ftruncate, fd, length));
  if (file && done == 0) file.note({.kind = DiskOp::Kind::cut, .at = static_cast<std::uint64_t>(length)});
  return done;
}

int do_truncate(const char* path, off_t length) {
  auto* disk = active.load();
  const auto raw = [&] { return static_cast<int>(::syscall(SYS_truncate, path, length)); };
  if (disk == nullptr) return raw();
  const std::scoped_lock lock(disk->mutex);
  const auto name = look_up(*disk, AT_FDCWD, path);
  const int done = raw();
  if (done == 0 && name.file >= 0)
    disk->note({.kind = DiskOp::Kind::cut, .file = name.file, .at = static_cast<std::uint64_t>(length)});
  return done;
}

int do_sync(int fd, long call) {
  OnFile file(fd);
  if (!file) return static_cast<int>(::syscall(call, fd));
  file.note({.kind = DiskOp::Kind::sync});
  return 0;
}

int do_fallocate(int fd, int mode, off_t at, off_t size) {
  OnFile file(fd);
  const auto done = static_cast<int>(::syscall(SYS_fallocate, fd, mode, at, size));
  if (!file || done != 0) return done;
  if ((mode & FALLOC_FL_PUNCH_HOLE) != 0) {
    file.note({.kind = DiskOp::Kind::zero,
               .at = static_cast<std::uint64_t>(at),
               .size = static_cast<std::uint64_t>(size)});
  } else if ((mode & FALLOC_FL_KEEP_SIZE) == 0) {
    struct stat info {};
    ::fstat(fd, &info);
    file.note({.kind = DiskOp::Kind::cut, .at = static_cast<std::uint64_t>(info.st_size)});
  }
  return done;
}

int do_rename(int from_at, const char* from, int to_at, const char* to, unsigned flags) {
  auto* disk = active.load();
  const auto raw = [&] {
    return static_cast<int>(::syscall(SYS_renameat2, from_at, from, to_at, to, flags));
  };
  if (disk == nullptr) return raw();
  const std::scoped_lock lock(disk->mutex);
  const auto old_name = look_up(*disk, from_at, from), new_name = look_up(*disk, to_at, to);
  const int done = raw();
  if (done != 0 || old_name.folder < 0) return done;
  disk->note({.kind = DiskOp::Kind::rename,
              .file = old_name.file,
              .folder = old_name.folder,
              .to_folder = new_name.folder,
              .name = old_name.name,
              .to_name = new_name.name});
  return done;
}

int do_link(int from_at, const char* from, int to_at, const char* to, int flags) {
  auto* disk = active.load();
  const auto raw = [&] { return static_cast<int>(::syscall(SYS_linkat, from_at, from, to_at, to, flags)); };
  if (disk == nullptr) return raw();
  const std::scoped_lock lock(disk->mutex);
  const auto old_name = look_up(*disk, from_at, from), new_name = look_up(*disk, to_at, to);
  const int done = raw();
  if (done != 0 || new_name.folder < 0) return done;
  disk->note({.kind = DiskOp::Kind::add_name,
              .file = old_name.file,
              .folder = new_name.folder,
              .name = new_name.name});
  return done;
}

int do_unlink(int at, const char* path, int flags) {
  auto* disk = active.load();
  const auto raw = [&] { return static_cast<int>(::syscall(SYS_unlinkat, at, path, flags)); };
  if (disk == nullptr) return raw();
  const std::scoped_lock lock(disk->mutex);
  const auto name = look_up(*disk, at, path);
  const int done = raw();
  if (done == 0 && name.folder >= 0)
    disk->note({.kind = DiskOp::Kind::drop_name, .folder = name.folder, .name = name.name});
  return done;
}

int do_mkdir(int at, const char* path, unsigned mode) {
  auto* disk = active.load();
  const auto raw = [&] { return static_cast<int>(::syscall(SYS_mkdirat, at, path, mode)); };
  if (disk == nullptr) return raw();
  const std::scoped_lock lock(disk->mutex);
  const auto name = look_up(*disk, at, path);
  const int done = raw();
  if (done != 0 || name.folder < 0) return done;
  struct stat info {};
  ::fstatat(at, path, &info, 0);
  const int folder = disk->add(info);
  disk->recording.before.folders[folder];
  disk->note({.kind = DiskOp::Kind::add_name, .file = folder, .folder = name.folder, .name = name.name});
  return done;
}

int do_ioctl(int fd, unsigned long request, void* argument) {
  if (request == FICLONE && active != nullptr) {
    errno = EOPNOTSUPP;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_ioctl, fd, request, argument));
}

void DiskRecorder::Impl::scan(const fs::path& folder, int number) {
  auto& names = recording.before.folders[number];
  for (const auto& entry : fs::directory_iterator(folder)) {
    struct stat info {};
    if (::lstat(entry.path().c_str(), &info) != 0) std::abort();
    const int known = number_of(info);
    const int file = known >= 0 ? known : add(info);
    names[entry.path().filename().string()] = file;
    if (known >= 0) continue;
    if (S_ISDIR(info.st_mode)) {
      scan(entry.path(), file);
    } else if (S_ISREG(info.st_mode)) {
      recording.before.files[file] = read_whole(entry.path());
    }
  }
}

DiskRecorder::DiskRecorder(fs::path root) : impl_(std::make_unique<Impl>()) {
  impl_->root = std::move(root);
  struct stat info {};
  if (::stat(impl_->root.c_str(), &info) != 0) std::abort();
  impl_->device = info.st_dev;
  impl_->scan(impl_->root, impl_->add(info));
  if (active.exchange(impl_.get()) != nullptr) std::abort();
}

DiskRecorder::~DiskRecorder() {
  if (active == impl_.get()) active = nullptr;
}

std::size_t DiskRecorder::position() const {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->recording.ops.size();
}

Recording DiskRecorder::stop() {
  active = nullptr;
  const std::scoped_lock lock(impl_->mutex);
  return std::move(impl_->recording);
}

}  // namespace educloud::testing
