#include "common/transfer/upload_table.hpp"

#include "common/base/bytes.hpp"
#include "common/base/clock.hpp"
#include "common/base/random.hpp"
#include "common/obs/log.hpp"

namespace educloud::transfer {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

constexpr std::chrono::seconds kTellInterval{1};
/// A PATCH that brought nothing for so long may be replaced by a new one: its client is probably gone.
constexpr std::chrono::seconds kWriterSilence{5};
constexpr std::string_view kGoneSuffix = ".gone";

std::int64_t wall_ms() {
  return SystemClock().wall_ms();
}

std::int64_t file_time_ms(const fs::path& path) {
  std::error_code ignored;
  const auto time = fs::last_write_time(path, ignored);
  if (ignored) return 0;
  const auto wall = std::chrono::file_clock::to_sys(time).time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(wall).count();
}

bool is_open(UploadState state) {
  return state == UploadState::receiving || state == UploadState::processing;
}

/// False only if both say something and it differs.
bool agree(const std::string& a, const std::string& b) {
  return a.empty() || b.empty() || a == b;
}

}  // namespace

UploadStatus status_of(const Upload& upload) {
  const std::lock_guard lock(upload.mutex);
  UploadStatus out{upload.record.info,    upload.record.state, {}, 0, 0,
                   upload.record.receipt, upload.record.error};
  switch (upload.record.state) {
    case UploadState::receiving:
      out.prompt = "receiving";
      out.bytes_done = upload.offset;
      out.bytes_total = upload.record.info.length;
      break;
    case UploadState::processing:
      out.prompt = upload.progress.prompt;
      out.bytes_done = upload.progress.bytes_done;
      out.bytes_total = upload.progress.bytes_total;
      break;
    case UploadState::done:
    case UploadState::failed: out.bytes_done = out.bytes_total = upload.record.info.length; break;
  }
  return out;
}

UploadTable::UploadTable(UploadServerOptions options) : options_(std::move(options)) {}

Result<> UploadTable::start() {
  if (auto ok = sys::make_directories(options_.folder, 0700); !ok) return ok;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(options_.folder, error)) {
    const auto name = entry.path().filename().string();
    if (!is_upload_uid(name)) {
      drop_folder(entry.path());  // half made or half removed when we died
      continue;
    }
    if (auto ok = load(entry.path()); !ok) {
      obs::warn("upload.unreadable", {{"uid", name}, {"error", ok.error().message}});
      drop_folder(entry.path());
    }
  }
  if (error) return fail(ErrorCode::internal, "read " + options_.folder.string() + ": " + error.message());
  sys::ThreadPool::Options pool;
  pool.name = "upload";
  pool.threads = static_cast<std::size_t>(std::max(options_.workers, 1));
  pool.queue_limit = options_.max_open + 1;
  pool.on_exception = [](std::string_view what) { obs::error("upload.exception", {{"what", what}}); };
  pool_ = std::make_unique<sys::ThreadPool>(std::move(pool));
  sweeper_ = std::jthread([this](std::stop_token stop) {
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    do {
      sweep();
      wake.wait_for(lock, stop, std::chrono::seconds(1), [] { return false; });
    } while (!stop.stop_requested());
  });
  return {};
}

void UploadTable::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  if (sweeper_.joinable()) {
    sweeper_.request_stop();
    sweeper_.join();
  }
  if (pool_) pool_->stop();
}

Result<> UploadTable::load(const fs::path& folder) {
  auto record = load_record(folder);
  if (!record) return fail(record.error());
  auto upload = std::make_shared<Upload>();
  upload->folder = folder;
  upload->record = std::move(*record);
  std::error_code none;
  const auto size = fs::file_size(folder / "data", none);
  upload->offset = none ? 0 : size;
  upload->touched_ms = std::max(file_time_ms(folder / "info.json"), file_time_ms(folder / "data"));
  UploadRecord& known = upload->record;
  if (known.info.uid != folder.filename().string())
    return fail(ErrorCode::corrupt, "info.json is of another upload");
  if (known.state == UploadState::receiving && upload->offset >= known.info.length) {
    known.state = UploadState::processing;  // we died between the last byte and this note
    if (auto ok = save_record(folder, known); !ok) return ok;
  }
  uploads_[known.info.uid] = std::move(upload);
  return {};
}

std::shared_ptr<Upload> UploadTable::get(const std::string& uid) const {
  const std::lock_guard lock(mutex_);
  const auto at = uploads_.find(uid);
  return at == uploads_.end() ? nullptr : at->second;
}

std::vector<UploadStatus> UploadTable::list() const {
  std::vector<std::shared_ptr<Upload>> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [uid, upload] : uploads_) all.push_back(upload);
  }
  std::vector<UploadStatus> out;
  for (const auto& upload : all) out.push_back(status_of(*upload));
  return out;
}

/// By uid; a user who does not know the command's id finds his upload by what it is for.
std::shared_ptr<Upload> UploadTable::find_same(const UploadInfo& info) const {
  if (!info.cmdid.empty()) return get(upload_uid(options_.data_key, info));
  const std::lock_guard lock(mutex_);
  for (const auto& [uid, upload] : uploads_) {
    const std::lock_guard inner(upload->mutex);
    const UploadInfo& have = upload->record.info;
    const bool same = have.imgid == info.imgid && have.version == info.version && have.node == info.node;
    if (same && upload->record.state != UploadState::failed) return upload;
  }
  return nullptr;
}

Result<> UploadTable::check_room(std::uint64_t length) const {
  std::uint64_t promised = 0;
  std::size_t open = 0;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [uid, upload] : uploads_) {
      const std::lock_guard inner(upload->mutex);
      if (!is_open(upload->record.state)) continue;
      ++open;
      promised += upload->record.info.length - std::min(upload->offset, upload->record.info.length);
    }
  }
  if (open >= options_.max_open) {
    return fail(ErrorCode::unavailable,
                std::to_string(open) + " uploads are under way already; try again later");
  }
  auto space = sys::disk_space(options_.folder);
  if (!space) return fail(space.error());
  const std::uint64_t taken = promised + options_.reserve_bytes;
  if (space->free_bytes < taken || space->free_bytes - taken < length) {
    return fail(ErrorCode::exhausted,
                "the disk of " + options_.folder.string() + " has " + to_string(Bytes{space->free_bytes}) +
                    " free, " + to_string(Bytes{taken}) + " of it promised; this upload needs " +
                    to_string(Bytes{length}) + ": make room there, for instance by pruning old versions");
  }
  return {};
}

Result<UploadStatus> UploadTable::create(UploadInfo info) {
  const std::lock_guard creating(create_mutex_);
  auto upload = find_same(info);
  if (!upload && options_.admit) {
    if (auto ok = options_.admit(info); !ok) return fail(ok.error());
    upload = find_same(info);
  }
  if (upload) {
    const auto have = status_of(*upload);
    const bool same_file = have.info.length == info.length && agree(have.info.digest, info.digest);
    const bool fresh_start =
        have.state == UploadState::failed || (have.state == UploadState::receiving && !same_file);
    if (!fresh_start && same_file) return have;
    if (!fresh_start) {
      return fail(ErrorCode::conflict, "another file was uploaded as " + info.imgid + " version " +
                                           std::to_string(info.version) + " already (" +
                                           std::string(to_string(have.state)) + ")");
    }
    info.cmdid = have.info.cmdid;
    if (options_.admit) {
      if (auto ok = options_.admit(info); !ok) return fail(ok.error());
    }
    remove(have.info.uid);
    if (get(have.info.uid))
      return fail(ErrorCode::unavailable, "the upload before this one is still being removed");
  }
  info.uid = upload_uid(options_.data_key, info);
  if (auto ok = check_room(info.length); !ok) return fail(ok.error());
  auto made = make(info);
  if (!made) return fail(made.error());
  obs::info("upload.created", {{"imgid", info.imgid},
                               {"version", info.version},
                               {"node", info.node},
                               {"cmdid", info.cmdid},
                               {"bytes", info.length}});
  tell(*made, true);
  return status_of(**made);
}

Result<std::shared_ptr<Upload>> UploadTable::make(const UploadInfo& info) {
  auto upload = std::make_shared<Upload>();
  upload->folder = options_.folder / info.uid;
  upload->record.info = info;
  upload->touched_ms = wall_ms();
  if (auto ok = sys::make_directories(upload->folder, 0700); !ok) return fail(ok.error());
  if (auto ok = save_record(upload->folder, upload->record); !ok) {
    drop_folder(upload->folder);
    return fail(ok.error());
  }
  const std::lock_guard lock(mutex_);
  uploads_[info.uid] = upload;
  return upload;
}

Result<std::unique_ptr<Append>> UploadTable::begin_append(const std::string& uid, std::uint64_t offset,
                                                          std::uint64_t length) {
  auto upload = get(uid);
  if (!upload) return fail(ErrorCode::not_found, "there is no such upload (any more)");
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = next_writer_++;
  }
  const std::lock_guard lock(upload->mutex);
  const UploadRecord& record = upload->record;
  if (upload->removed) return fail(ErrorCode::not_found, "the upload was removed");
  const auto now = steady_clock::now();
  if (upload->writer != 0 && now - upload->last_byte < kWriterSilence) {
    return fail(ErrorCode::conflict, "another request is writing to this upload", "locked");
  }
  if (offset != upload->offset) {
    return fail(ErrorCode::conflict,
                "the upload is at " + std::to_string(upload->offset) + ", not at " + std::to_string(offset),
                "Upload-Offset");
  }
  if (record.state != UploadState::receiving) {
    return fail(ErrorCode::conflict,
                "nothing more is expected: the upload is " + std::string(to_string(record.state)));
  }
  if (length > record.info.length - offset) {
    return fail(ErrorCode::too_large,
                "only " + std::to_string(record.info.length - offset) + " bytes are missing");
  }
  auto writer = SparseWriter::open(upload->folder / "data");
  if (!writer) return fail(writer.error());
  upload->writer = number;
  upload->last_byte = now;
  return std::make_unique<Append>(*this, upload, std::move(*writer), number);
}

bool UploadTable::remove(const std::string& uid) {
  auto upload = get(uid);
  if (!upload) return false;
  fs::path gone;
  bool busy = false;
  {
    const std::lock_guard lock(upload->mutex);
    if (upload->removed) return false;
    upload->removed = true;
    busy = upload->queued;
    // Renamed first: after a crash from here on it is not continued.
    gone = upload->folder;
    gone += "-" + random_hex(4) + std::string(kGoneSuffix);
    std::error_code ignored;
    fs::rename(upload->folder, gone, ignored);
    upload->stop.request_stop();
  }
  drop_folder(gone);
  if (!busy) {
    const std::lock_guard lock(mutex_);
    uploads_.erase(uid);
  }
  obs::info("upload.removed", {{"uid", uid.substr(0, 8)}});
  return true;
}

void UploadTable::drop_folder(const fs::path& folder) const {
  std::error_code error;
  fs::remove_all(folder, error);
  if (error) obs::warn("upload.not_removed", {{"folder", folder.string()}, {"error", error.message()}});
}

void UploadTable::tell(const std::shared_ptr<Upload>& upload, bool always) {
  {
    const std::lock_guard lock(upload->mutex);
    const auto now = steady_clock::now();
    if (upload->removed || (!always && now - upload->last_told < kTellInterval)) return;
    upload->last_told = now;
  }
  if (options_.on_change) options_.on_change(status_of(*upload));
}

}  // namespace educloud::transfer
