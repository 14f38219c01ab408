#include "common/transfer/sparse_writer.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace educloud::transfer {
namespace {

constexpr std::uint64_t kBlock = 4096;
/// The kernel starts writing back after so many bytes, so that the fsync at the end has little left to do.
constexpr std::uint64_t kFlushBytes = 8 << 20;

bool is_zero(const char* data, std::size_t size) {
  return data[0] == 0 && std::memcmp(data, data + 1, size - 1) == 0;
}

}  // namespace

Result<SparseWriter> SparseWriter::open(const std::filesystem::path& path) {
  auto fd = sys::open_file(path, O_RDWR | O_CREAT, 0600);
  if (!fd) return fail(fd.error());
  struct stat status {};
  if (::fstat(fd->get(), &status) != 0) return fail(errno_error("stat " + path.string(), errno));
  return SparseWriter(std::move(*fd), path, static_cast<std::uint64_t>(status.st_size));
}

Result<> SparseWriter::write_run(std::span<const char> data) {
  if (data.empty()) return {};
  auto ok = sys::pwrite_all(fd_.get(), {data.data(), data.size()}, offset_);
  if (!ok) {
    // A part may have been written; the file's length tells how much.
    struct stat status {};
    if (::fstat(fd_.get(), &status) == 0) {
      const auto size = static_cast<std::uint64_t>(status.st_size);
      // A run after a hole that was not written at all leaves the file shorter than the hole's end.
      if (size > offset_) offset_ = size;
      file_size_ = size;
    }
    return fail(ok.error(), path_.string());
  }
  offset_ += data.size();
  file_size_ = offset_;
  return {};
}

Result<> SparseWriter::append(std::span<const char> data) {
  while (!data.empty()) {
    // One run of data: up to the next aligned block of zeros.
    std::size_t run = 0;
    while (run < data.size()) {
      const std::uint64_t at = offset_ + run;
      const std::size_t step = std::min<std::size_t>(kBlock - at % kBlock, data.size() - run);
      if (step == kBlock && is_zero(data.data() + run, step)) break;
      run += step;
    }
    if (auto ok = write_run(data.first(run)); !ok) return ok;
    data = data.subspan(run);
    while (data.size() >= kBlock && is_zero(data.data(), kBlock)) {
      offset_ += kBlock;
      data = data.subspan(kBlock);
    }
  }
  if (offset_ - flushed_ >= kFlushBytes) {
    ::sync_file_range(fd_.get(), static_cast<off_t>(flushed_), static_cast<off_t>(offset_ - flushed_),
                      SYNC_FILE_RANGE_WRITE);
    flushed_ = offset_;
  }
  return {};
}

Result<> SparseWriter::sync() {
  if (file_size_ < offset_) {
    if (::ftruncate(fd_.get(), static_cast<off_t>(offset_)) != 0) {
      return fail(errno_error("extend " + path_.string(), errno));
    }
    file_size_ = offset_;
  }
  if (::fdatasync(fd_.get()) != 0) return fail(errno_error("fdatasync " + path_.string(), errno));
  return {};
}

}  // namespace educloud::transfer
