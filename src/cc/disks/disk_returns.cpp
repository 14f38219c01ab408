#include "cc/disks/disk_returns.hpp"

#include <fcntl.h>
#include <unistd.h>

#include "common/base/bytes.hpp"

namespace educloud::cc {
namespace {

/// Left free for everybody else on the file system.
constexpr std::uint64_t kReserveBytes = 256ull << 20;

Result<> check(const DiskReturns::Block& block) {
  std::error_code error;
  const auto size = std::filesystem::file_size(block.disk, error);
  if (error) return fail(errno_error("stat " + block.disk.string(), error.value()));
  const auto end = block.at + block.bytes.size();
  if (block.size == size && block.at >= block.after && end >= block.at && end <= size) return {};
  return fail(ErrorCode::invalid_argument, "a block from " + std::to_string(block.at) + " of a disk of " +
                                               std::to_string(block.size) +
                                               " bytes does not fit into one of " + std::to_string(size));
}

Result<> check_room(const std::filesystem::path& folder, std::uint64_t bytes) {
  auto space = sys::disk_space(folder);
  if (!space) return fail(space.error());
  if (space->free_bytes >= bytes + kReserveBytes) return {};
  return fail(ErrorCode::exhausted, "the copy of a database disk needs " + to_string(Bytes{bytes}) + " in " +
                                        folder.string() + ", but only " +
                                        to_string(Bytes{space->free_bytes}) + " are free");
}

}  // namespace

DiskReturns::DiskReturns(std::function<int(int)> sync) : sync_(sync ? std::move(sync) : ::fdatasync) {}

/// With mutex_ held. Null: it was not begun here.
Result<DiskReturns::Coming*> DiskReturns::find_or_begin(const Name& name, const Block& block) {
  const auto it = coming_.find(name.instance);
  // The file would be emptied that is about to be the disk.
  if (it != coming_.end() && it->second.is_finishing)
    return fail(ErrorCode::unavailable, "a copy of this database disk is just becoming the disk; try again");
  if (it != coming_.end() && it->second.give == name.give) return &it->second;
  if (block.after != 0) return nullptr;
  coming_.erase(name.instance);
  if (auto ok = check_room(block.disk.parent_path(), block.data); !ok) return fail(ok.error());
  auto file = sys::open_file(beside(block.disk), O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (!file) return fail(file.error());
  if (::ftruncate(file->get(), static_cast<off_t>(block.size)) != 0)
    return fail(errno_error("make " + beside(block.disk).string(), errno));
  auto& coming = coming_[name.instance];
  coming = {name.give, std::move(*file), block.size, 0, false};
  return &coming;
}

Result<std::uint64_t> DiskReturns::put(const Name& name, const Block& block) {
  if (auto ok = check(block); !ok) return fail(ok.error());
  const std::lock_guard lock(mutex_);
  auto coming = find_or_begin(name, block);
  if (!coming) return fail(coming.error());
  if (*coming == nullptr) return 0;
  if ((*coming)->end != block.after) return (*coming)->end;
  const auto fd = (*coming)->file.get();
  const std::string_view text(block.bytes.data(), block.bytes.size());
  if (auto ok = sys::pwrite_all(fd, text, block.at); !ok) return fail(ok.error());
  // So that the sync at the end has little left to do.
  (void)::sync_file_range(fd, static_cast<off64_t>(block.at), static_cast<off64_t>(text.size()),
                          SYNC_FILE_RANGE_WRITE);
  return (*coming)->end = block.at + text.size();
}

Result<bool> DiskReturns::finish(const Name& name, const Block& last) {
  if (auto ok = check(last); !ok) return fail(ok.error());
  sys::Fd file;
  {
    const std::lock_guard lock(mutex_);
    auto coming = find_or_begin(name, last);
    if (!coming) return fail(coming.error());
    if (*coming == nullptr || (*coming)->end != last.after) return false;
    file = std::move((*coming)->file);
    (*coming)->is_finishing = true;
  }
  auto replaced = replace(file.get(), last.disk);
  const std::lock_guard lock(mutex_);
  // Also if it failed: then it is sent again from its beginning.
  coming_.erase(name.instance);
  if (!replaced) return fail(replaced.error());
  return true;
}

Result<> DiskReturns::replace(int fd, const std::filesystem::path& disk) const {
  if (sync_(fd) != 0) return fail(errno_error("sync " + beside(disk).string(), errno));
  if (::rename(beside(disk).c_str(), disk.c_str()) != 0)
    return fail(errno_error("rename " + beside(disk).string(), errno));
  return sys::sync_path(disk.parent_path());
}

void DiskReturns::drop(const InstanceId& instance, const std::filesystem::path& disk) {
  const std::lock_guard lock(mutex_);
  coming_.erase(instance);
  std::error_code ignored;
  std::filesystem::remove(beside(disk), ignored);
}

}  // namespace educloud::cc
