#include "nc/cache/fill_target.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <new>

#include "common/image/qcow2_layer.hpp"

namespace educloud::nc {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kChunk = chunk::kChunkBytes;

image::Qcow2Delta::Spec spec_of(const FillPlan& plan, const FillTarget::Base& base) {
  image::Qcow2Delta::Spec spec;
  spec.disk_bytes = plan.disk_bytes;
  spec.data = plan.data;
  spec.zeros = plan.zeros;
  spec.backing_file = base.file.string();
  spec.backing_format = base.format;
  return spec;
}

Result<> pwrite_direct(int fd, std::span<const char> data, std::uint64_t offset) {
  while (!data.empty()) {
    const auto wrote = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EINVAL) return fail(ErrorCode::invalid_argument, "O_DIRECT is not taken");
    if (wrote < 0) return fail(errno_error("write", errno));
    // Cut short inside a block (disk nearly full): the rest can not be aligned, and will not fit either.
    if (wrote % static_cast<ssize_t>(FillTarget::kAlignment) != 0) return fail(errno_error("write", ENOSPC));
    data = data.subspan(static_cast<std::size_t>(wrote));
    offset += static_cast<std::uint64_t>(wrote);
  }
  return {};
}

}  // namespace

void FreeAligned::operator()(char* memory) const {
  std::free(memory);
}

AlignedBuffer make_aligned(std::size_t bytes) {
  auto* memory = static_cast<char*>(std::aligned_alloc(FillTarget::kAlignment, bytes));
  if (memory == nullptr) throw std::bad_alloc();
  return AlignedBuffer(memory);
}

bool FillTarget::can_clone(const fs::path& folder, const fs::path& base) {
  const sys::Fd probe(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  const sys::Fd source(::open(base.c_str(), O_RDONLY | O_CLOEXEC));
  return probe.is_open() && source.is_open() && ::ioctl(probe.get(), FICLONE, source.get()) == 0;
}

Result<> FillTarget::open_files(int flags) {
  auto file = sys::open_file(path_, O_RDWR | O_NOFOLLOW | flags, 0600);
  if (!file) return fail(file.error());
  file_ = std::move(*file);
  direct_ = sys::Fd(::open(path_.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_DIRECT));
  use_direct_ = direct_.is_open();
  // Read-ahead would load what is being written past the cache.
  ::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_RANDOM);
  return {};
}

Result<> FillTarget::make_clone(const Base& base) {
  auto source = sys::open_file(base.file, O_RDONLY);
  if (!source) return fail(source.error());
  if (::ioctl(file_.get(), FICLONE, source->get()) != 0)
    return fail(errno_error("clone " + base.file.string(), errno));
  for (const auto at : plan_.zeros) {
    const auto length = chunk::chunk_length(plan_.disk_bytes, at);
    if (::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(at * kChunk),
                    length) != 0) {
      return fail(errno_error("punch hole into " + path_.string(), errno));
    }
  }
  return {};
}

Result<std::unique_ptr<FillTarget>> FillTarget::create(const fs::path& path, const FillPlan& plan,
                                                       const Base& base) {
  std::unique_ptr<FillTarget> target(new FillTarget(path, plan));
  ::unlink(path.c_str());
  if (plan.kind == TargetKind::delta) {
    auto delta = image::Qcow2Delta::create(path, spec_of(plan, base));
    if (!delta) return fail(delta.error());
    target->data_start_ = delta->data_start();
    if (auto done = target->open_files(0); !done) return fail(done.error());
  } else {
    if (auto done = target->open_files(O_CREAT | O_EXCL); !done) return fail(done.error());
    if (plan.kind == TargetKind::clone) {
      if (auto done = target->make_clone(base); !done) return fail(done.error());
    }
    if (::ftruncate(target->file_.get(), static_cast<off_t>(plan.disk_bytes)) != 0)
      return fail(errno_error("size " + path.string(), errno));
  }
  if (::fsync(target->file_.get()) != 0) return fail(errno_error("sync " + path.string(), errno));
  if (auto done = sys::sync_path(path.parent_path()); !done) return fail(done.error());
  return target;
}

Result<std::unique_ptr<FillTarget>> FillTarget::reopen(const fs::path& path, const FillPlan& plan,
                                                       const Base& base) {
  std::unique_ptr<FillTarget> target(new FillTarget(path, plan));
  if (auto done = target->open_files(0); !done) return fail(done.error());
  auto expected = plan.disk_bytes;
  if (plan.kind == TargetKind::delta) {
    target->data_start_ = image::Qcow2Delta::data_start_of(spec_of(plan, base));
    expected = target->data_start_ + plan.data.size() * kChunk;
  }
  struct stat info {};
  if (::fstat(target->file_.get(), &info) != 0) return fail(errno_error("stat " + path.string(), errno));
  const auto length = static_cast<std::uint64_t>(info.st_size);
  const bool fits = plan.kind == TargetKind::delta ? length >= expected : length == expected;
  if (!S_ISREG(info.st_mode) || !fits) {
    return fail(ErrorCode::corrupt,
                path.string() + " has " + std::to_string(length) + " bytes, not " + std::to_string(expected));
  }
  return target;
}

std::uint64_t FillTarget::offset_of(std::uint64_t chunk) const {
  if (plan_.kind != TargetKind::delta) return chunk * kChunk;
  const auto found = std::lower_bound(plan_.data.begin(), plan_.data.end(), chunk);
  return data_start_ + static_cast<std::uint64_t>(found - plan_.data.begin()) * kChunk;
}

std::uint32_t FillTarget::length_of(std::uint64_t chunk) const {
  return plan_.kind == TargetKind::delta ? chunk::kChunkBytes : chunk::chunk_length(plan_.disk_bytes, chunk);
}

Result<> FillTarget::write(std::uint64_t offset, std::span<const char> data) {
  std::size_t direct = use_direct_ ? data.size() / kChunk * kChunk : 0;
  if (direct > 0) {
    auto done = pwrite_direct(direct_.get(), data.first(direct), offset);
    if (!done && done.error().code == ErrorCode::invalid_argument) {
      use_direct_ = false;
      direct = 0;
    } else if (!done) {
      return fail(done.error(), path_.string());
    }
  }
  const auto rest = data.subspan(direct);
  if (rest.empty()) return {};
  if (auto done = sys::pwrite_all(file_.get(), {rest.data(), rest.size()}, offset + direct); !done)
    return fail(done.error(), path_.string());
  // Writing back begins now, so that the next sync finds little left to do.
  ::sync_file_range(file_.get(), static_cast<off_t>(offset + direct), static_cast<off_t>(rest.size()),
                    SYNC_FILE_RANGE_WRITE);
  return {};
}

Result<> FillTarget::read(std::uint64_t chunk, std::uint32_t skip, std::span<char> out) const {
  auto offset = offset_of(chunk) + skip;
  while (!out.empty()) {
    const auto got = ::pread(file_.get(), out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error("read " + path_.string(), errno));
    if (got == 0) return fail(ErrorCode::corrupt, path_.string() + " ends early");
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

Result<> FillTarget::sync() {
  if (::fdatasync(file_.get()) != 0) return fail(errno_error("sync " + path_.string(), errno));
  return {};
}

}  // namespace educloud::nc
