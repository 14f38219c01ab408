#pragma once

#include <memory>
#include <mutex>

#include "nc/cache/fill_table.hpp"

namespace educloud::nc {

/// A version that is here, read through its layers.
class PublishedReader : public NodeCache::Reader {
 public:
  PublishedReader(image::LayeredDisk disk, std::uint64_t disk_bytes)
      : disk_(std::move(disk)), disk_bytes_(disk_bytes) {}
  std::uint64_t disk_bytes() const override { return disk_bytes_; }
  Result<> read(std::uint64_t offset, std::span<char> out, std::stop_token stop) override;
  bool is_complete() const override { return true; }

 private:
  image::LayeredDisk disk_;
  const std::uint64_t disk_bytes_;
};

/// A version that is on its way. Reads of what has not come wait, and move it to the front of the line. A
/// fill that ended because the cc could not be reached is begun again when somebody reads.
class LazyReader : public NodeCache::Reader {
 public:
  LazyReader(FillTable& table, LocalVersions& local, FillRequest request,
             std::shared_ptr<FillTable::Ticket> ticket, std::shared_ptr<FillJob> job);
  std::uint64_t disk_bytes() const override { return disk_bytes_; }
  Result<> read(std::uint64_t offset, std::span<char> out, std::stop_token stop) override;
  bool is_complete() const override;

 private:
  using Time = WorkQueue::Time;
  Result<> read_chunk(std::uint64_t chunk, std::uint32_t skip, std::span<char> out, Time deadline,
                      const std::stop_token& stop);
  /// Looks how the fill is: ended well -> published_, ended badly -> joins anew or says why not.
  Result<> refresh();

  FillTable& table_;
  LocalVersions& local_;
  const FillRequest request_;
  const std::uint64_t disk_bytes_;
  mutable std::mutex mutex_;
  std::shared_ptr<FillTable::Ticket> ticket_;
  std::shared_ptr<FillJob> job_;
  std::shared_ptr<PublishedReader> published_;
};

}  // namespace educloud::nc
