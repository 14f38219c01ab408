#pragma once

#include <mutex>

#include "common/sys/thread_pool.hpp"
#include "common/transfer/sparse_writer.hpp"
#include "common/transfer/upload_record.hpp"

// Private to common/transfer: the uploads behind UploadServer, without HTTP.
namespace educloud::transfer {

/// One upload. The map that finds it has its own lock; `mutex` guards everything below it.
struct Upload {
  std::filesystem::path folder;  ///< never changes

  mutable std::mutex mutex;
  UploadRecord record;
  std::uint64_t offset = 0;  ///< bytes received
  std::uint64_t writer = 0;  ///< number of the PATCH that may append; 0: none
  std::chrono::steady_clock::time_point last_byte{};
  std::chrono::steady_clock::time_point last_told{};
  std::int64_t touched_ms = 0;  ///< unix time of the last byte or change of state
  Progress progress;            ///< the processor's
  bool queued = false;          ///< a worker has it or will
  bool removed = false;
  std::stop_source stop;
};

/// Leave to append to one upload; ends when it is destroyed.
class Append;

class UploadTable {
 public:
  explicit UploadTable(UploadServerOptions options);

  Result<> start();
  void stop();

  /// The upload `info` asks for: one that is there already, or a new one. Fills in uid and what Admit knows.
  /// Errors: Admit's; conflict (another file for the same version is there); exhausted; unavailable (too
  /// many).
  Result<UploadStatus> create(UploadInfo info);
  std::shared_ptr<Upload> get(const std::string& uid) const;
  /// Errors: not_found; conflict (wrong offset or state; `key` is "locked" if another request writes now);
  /// too_large (`length` is more than what is missing); internal.
  Result<std::unique_ptr<Append>> begin_append(const std::string& uid, std::uint64_t offset,
                                               std::uint64_t length);
  bool remove(const std::string& uid);
  std::vector<UploadStatus> list() const;
  const UploadServerOptions& options() const { return options_; }

 private:
  friend class Append;
  Result<> load(const std::filesystem::path& folder);
  std::shared_ptr<Upload> find_same(const UploadInfo& info) const;
  Result<> check_room(std::uint64_t length) const;
  Result<std::shared_ptr<Upload>> make(const UploadInfo& info);
  void received(const std::shared_ptr<Upload>& upload);
  void enqueue(const std::shared_ptr<Upload>& upload);
  void process(const std::shared_ptr<Upload>& upload, std::stop_token stop);
  void settle(const std::shared_ptr<Upload>& upload, Result<std::string> result);
  void drop_folder(const std::filesystem::path& folder) const;
  void sweep();
  /// Tells on_change, at most once a second unless `always`. Without any lock held.
  void tell(const std::shared_ptr<Upload>& upload, bool always);

  const UploadServerOptions options_;
  std::mutex create_mutex_;  ///< one creation at a time: room is counted and taken in one step
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Upload>> uploads_;
  std::uint64_t next_writer_ = 1;
  bool stopping_ = false;
  std::unique_ptr<sys::ThreadPool> pool_;
  std::jthread sweeper_;
};

/// What others may see of `upload`.
UploadStatus status_of(const Upload& upload);

class Append {
 public:
  Append(UploadTable& table, std::shared_ptr<Upload> upload, SparseWriter writer, std::uint64_t number)
      : table_(table), upload_(std::move(upload)), writer_(std::move(writer)), number_(number) {}
  ~Append();
  /// Errors: too_large, exhausted, conflict (another request took over, or the upload was removed).
  Result<> append(std::span<const char> data);
  /// Durable; returns the new offset. Nothing may be appended afterwards.
  Result<std::uint64_t> finish();

 private:
  UploadTable& table_;
  std::shared_ptr<Upload> upload_;
  SparseWriter writer_;
  std::uint64_t number_;
  bool finished_ = false;
};

}  // namespace educloud::transfer
