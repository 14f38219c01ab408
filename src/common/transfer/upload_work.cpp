// The part of UploadTable that receives, processes and expires.
#include "common/base/clock.hpp"
#include "common/obs/log.hpp"
#include "common/transfer/upload_table.hpp"

namespace educloud::transfer {
namespace {

using std::chrono::steady_clock;

std::int64_t wall_ms() {
  return SystemClock().wall_ms();
}

void remove_data(const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().filename() == "info.json") continue;
    std::error_code failed;
    std::filesystem::remove_all(entry.path(), failed);
    if (failed)
      obs::warn("upload.not_removed", {{"file", entry.path().string()}, {"error", failed.message()}});
  }
}

}  // namespace

Append::~Append() {
  if (!finished_) {
    // Cut in the middle: what came is kept, and the client continues there.
    auto ok = writer_.sync();
    const std::lock_guard lock(upload_->mutex);
    if (!ok) obs::warn("upload.sync_failed", {{"error", ok.error().message}});
    if (upload_->writer == number_) upload_->writer = 0;
  }
  table_.received(upload_);
}

Result<> Append::append(std::span<const char> data) {
  {
    const std::lock_guard lock(upload_->mutex);
    if (upload_->removed || upload_->writer != number_) {
      return fail(ErrorCode::conflict, "the upload was removed or another request continues it");
    }
    if (data.size() > upload_->record.info.length - upload_->offset) {
      return fail(ErrorCode::too_large, "more bytes than Upload-Length said");
    }
    const auto ok = writer_.append(data);
    upload_->offset = writer_.offset();
    upload_->last_byte = steady_clock::now();
    upload_->touched_ms = wall_ms();
    if (!ok) return ok;
  }
  table_.tell(upload_, false);
  return {};
}

Result<std::uint64_t> Append::finish() {
  const std::lock_guard lock(upload_->mutex);
  if (upload_->removed || upload_->writer != number_) {
    return fail(ErrorCode::conflict, "the upload was removed or another request continues it");
  }
  if (auto ok = writer_.sync(); !ok) return fail(ok.error());
  finished_ = true;
  upload_->writer = 0;
  return upload_->offset;
}

void UploadTable::received(const std::shared_ptr<Upload>& upload) {
  {
    const std::lock_guard lock(upload->mutex);
    const bool complete = upload->record.state == UploadState::receiving && upload->writer == 0 &&
                          !upload->removed && upload->offset == upload->record.info.length;
    if (!complete) return;
    upload->record.state = UploadState::processing;
    upload->progress = {"waiting for a worker", 0, upload->record.info.length};
    // Not saved is no harm: a restart sees the length of the data.
    if (auto ok = save_record(upload->folder, upload->record); !ok) {
      obs::warn("upload.not_saved", {{"error", ok.error().message}});
    }
  }
  tell(upload, true);
  enqueue(upload);
}

void UploadTable::enqueue(const std::shared_ptr<Upload>& upload) {
  const std::lock_guard all(mutex_);
  const std::lock_guard lock(upload->mutex);
  if (stopping_ || !pool_ || upload->queued || upload->removed) return;
  auto ok = pool_->submit([this, upload](std::stop_token stop) { process(upload, std::move(stop)); });
  upload->queued = ok.has_value();  // else the sweep tries again
}

void UploadTable::process(const std::shared_ptr<Upload>& upload, std::stop_token stop) {
  std::stop_source source = upload->stop;  // never replaced, so no lock
  ProcessInput input;
  bool removed = false;
  {
    const std::lock_guard lock(upload->mutex);
    removed = upload->removed;
    input.info = upload->record.info;
    input.note = upload->record.note;
  }
  if (removed) return settle(upload, fail(ErrorCode::cancelled, "removed"));
  const std::stop_callback forward(stop, [source]() mutable { source.request_stop(); });
  input.folder = upload->folder;
  input.data = upload->folder / "data";
  input.save_note = [upload](const std::string& note) -> Result<> {
    const std::lock_guard lock(upload->mutex);
    if (upload->removed) return fail(ErrorCode::cancelled, "the upload was removed");
    upload->record.note = note;
    return save_record(upload->folder, upload->record);
  };
  input.progress = [this, upload](const Progress& progress) {
    bool changed = false;
    {
      const std::lock_guard lock(upload->mutex);
      changed = upload->progress.prompt != progress.prompt;
      upload->progress = progress;
    }
    tell(upload, changed);
  };
  auto result = options_.processor(input, source.get_token());
  if (!result && stop.stop_requested()) return;  // not a failure: continued at the next start
  settle(upload, std::move(result));
}

void UploadTable::settle(const std::shared_ptr<Upload>& upload, Result<std::string> result) {
  bool removed = false;
  std::string uid;
  {
    const std::lock_guard lock(upload->mutex);
    removed = upload->removed;
    uid = upload->record.info.uid;
    if (!removed) {
      UploadRecord& record = upload->record;
      record.state = result ? UploadState::done : UploadState::failed;
      record.receipt = result ? *result : std::string{};
      if (!result) record.error = result.error();
      upload->touched_ms = wall_ms();
      upload->queued = false;
      if (auto ok = save_record(upload->folder, record); !ok) {
        // Processed once more after a restart, which is harmless: processors are idempotent.
        obs::warn("upload.not_saved", {{"error", ok.error().message}});
      }
      remove_data(upload->folder);
    }
  }
  if (removed) {
    drop_folder(upload->folder);  // in case the processor made it again
    const std::lock_guard lock(mutex_);
    uploads_.erase(uid);
    return;
  }
  const UploadInfo& info = upload->record.info;
  if (result) {
    obs::info("upload.done", {{"imgid", info.imgid}, {"version", info.version}, {"cmdid", info.cmdid}});
  } else {
    obs::warn("upload.failed", {{"imgid", info.imgid},
                                {"version", info.version},
                                {"cmdid", info.cmdid},
                                {"error", result.error().message}});
  }
  tell(upload, true);
}

void UploadTable::sweep() {
  constexpr std::size_t kMostKept = 1000;  // ended ones, for late questions
  std::vector<std::shared_ptr<Upload>> waiting;
  std::vector<std::shared_ptr<Upload>> expired;
  std::vector<std::string> forgotten;
  const std::int64_t oldest =
      wall_ms() - std::chrono::duration_cast<std::chrono::milliseconds>(options_.expire_after).count();
  {
    const std::lock_guard all(mutex_);
    std::size_t excess = uploads_.size() > kMostKept ? uploads_.size() - kMostKept : 0;
    for (const auto& [uid, upload] : uploads_) {
      const std::lock_guard lock(upload->mutex);
      const auto state = upload->record.state;
      if (upload->removed) continue;
      if (state == UploadState::processing && !upload->queued) waiting.push_back(upload);
      if (state == UploadState::receiving && upload->writer == 0 && upload->touched_ms < oldest) {
        expired.push_back(upload);
      }
      const bool ended = state == UploadState::done || state == UploadState::failed;
      if (ended && (excess > 0 || upload->touched_ms < oldest)) {
        if (excess > 0) --excess;
        forgotten.push_back(uid);
      }
    }
  }
  for (const auto& upload : waiting) enqueue(upload);
  for (const auto& upload : expired) {
    settle(upload, fail(ErrorCode::timeout, "the upload was not continued for " +
                                                std::to_string(options_.expire_after.count()) +
                                                " s and was given up"));
  }
  for (const auto& uid : forgotten) remove(uid);
}

}  // namespace educloud::transfer
