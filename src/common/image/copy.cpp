#include "common/image/copy.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/sys/file.hpp"

namespace educloud::image {
namespace {

constexpr std::size_t kStepBytes = 8 << 20;  // between two looks at the stop token

/// One copy under way.
struct Job {
  const std::filesystem::path& source;
  const std::filesystem::path& destination;
  sys::Fd in, out;
  std::uint64_t size = 0;
  CopyMethod method = CopyMethod::in_kernel;
  std::string buffer;
};

Result<> failed(const char* what, const Job& job) {
  return fail(
      errno_error(std::string(what) + " " + job.source.string() + " to " + job.destination.string(), errno));
}

/// Up to `length` bytes at `offset`. Returns how many.
Result<std::uint64_t> copy_some(Job& job, std::uint64_t offset, std::uint64_t length) {
  const auto want = std::min<std::uint64_t>(length, kStepBytes);
  while (job.method == CopyMethod::in_kernel) {
    auto from = static_cast<off64_t>(offset), to = from;
    const ssize_t done = ::copy_file_range(job.in.get(), &from, job.out.get(), &to, want, 0);
    if (done > 0) return static_cast<std::uint64_t>(done);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS &&
        errno != EBADF) {
      return fail(failed("copy", job).error());
    }
    // 0 can be end-of-file or a file system that pretends (some kernels): read() will tell.
    job.method = CopyMethod::read_write;
  }
  job.buffer.resize(1 << 20);
  for (;;) {
    const ssize_t got = ::pread(job.in.get(), job.buffer.data(),
                                std::min<std::uint64_t>(want, job.buffer.size()), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(failed("copy", job).error());
    if (got == 0)
      return fail(ErrorCode::corrupt, job.source.string() + " became shorter while it was copied");
    const std::string_view piece(job.buffer.data(), static_cast<std::size_t>(got));
    if (auto ok = sys::pwrite_all(job.out.get(), piece, offset); !ok)
      return fail(ok.error(), job.destination.string());
    return static_cast<std::uint64_t>(got);
  }
}

Result<> copy_data(Job& job, const OnBytes& on_bytes, const std::stop_token& stop) {
  if (::ioctl(job.out.get(), FICLONE, job.in.get()) == 0) {
    job.method = CopyMethod::reflink;
    ProgressMeter(on_bytes, job.size).at(job.size);
    return {};
  }
  if (::ftruncate(job.out.get(), static_cast<off_t>(job.size)) != 0) return failed("extend", job);
  ProgressMeter meter(on_bytes, job.size);
  const auto copy_run = [&](std::uint64_t offset, std::uint64_t length) -> Result<> {
    while (length > 0) {
      if (stop.stop_requested())
        return fail(ErrorCode::cancelled, "copying " + job.source.string() + " was cancelled");
      auto done = copy_some(job, offset, length);
      if (!done) return fail(done.error());
      offset += *done;
      length -= *done;
      meter.at(offset);
    }
    return {};
  };
  if (auto ok = for_each_data_run(job.in.get(), job.size, copy_run); !ok) return ok;
  meter.at(job.size);
  return {};
}

}  // namespace

Result<CopyMethod> copy_sparse(const std::filesystem::path& source, const std::filesystem::path& destination,
                               const OnBytes& on_bytes, std::stop_token stop) {
  Job job{source, destination, {}, {}, 0, CopyMethod::in_kernel, {}};
  auto in = sys::open_file(source, O_RDONLY);
  if (!in) return fail(in.error());
  job.in = std::move(*in);
  struct stat info {};
  if (::fstat(job.in.get(), &info) != 0) return fail(errno_error("stat " + source.string(), errno));
  if (!S_ISREG(info.st_mode))
    return fail(ErrorCode::invalid_argument, source.string() + " is not an ordinary file");
  job.size = static_cast<std::uint64_t>(info.st_size);
  job.out = sys::Fd(::open(destination.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!job.out.is_open()) {
    if (errno == EEXIST) return fail(ErrorCode::conflict, destination.string() + " exists already");
    return fail(errno_error("create " + destination.string(), errno));
  }
  auto done = copy_data(job, on_bytes, stop);
  if (done && ::fsync(job.out.get()) != 0) done = fail(errno_error("fsync " + destination.string(), errno));
  if (!done) {
    ::unlink(destination.c_str());
    return fail(done.error());
  }
  return job.method;
}

Result<> for_each_data_run(int fd, std::uint64_t file_size,
                           const std::function<Result<>(std::uint64_t offset, std::uint64_t length)>& data) {
  std::uint64_t position = 0;
  while (position < file_size) {
    const off_t start = ::lseek(fd, static_cast<off_t>(position), SEEK_DATA);
    if (start < 0 && errno == ENXIO) return {};  // only a hole is left
    if (start < 0) {
      if (errno != EINVAL && errno != EOPNOTSUPP) return fail(errno_error("seek data", errno));
      return data(position, file_size - position);  // this file system knows no holes
    }
    const off_t end = ::lseek(fd, start, SEEK_HOLE);
    if (end < 0) return fail(errno_error("seek hole", errno));
    const auto from = static_cast<std::uint64_t>(start);
    if (from >= file_size) return {};  // grown since
    const auto to = std::min(static_cast<std::uint64_t>(end), file_size);
    if (auto ok = data(from, to - from); !ok) return ok;
    position = to;
  }
  return {};
}

}  // namespace educloud::image
