#include "cc/disks/disk_store.hpp"

#include <sys/stat.h>

#include "cc/disks/disk_job.hpp"
#include "cc/disks/disk_submit.hpp"
#include "common/base/random.hpp"
#include "common/obs/log.hpp"

namespace educloud::cc {
namespace {

constexpr std::size_t kWorkers = 4;
constexpr std::size_t kMaxWaiting = 128;
/// A caller waits for so long before it is told to come again.
constexpr std::chrono::milliseconds kMoment{400};
constexpr const char* kNbd = "nbd";
constexpr const char* kCopy = "copy";
constexpr std::size_t kSecretBytes = 12;
constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kCopyBytes = 8;

sys::ThreadPool::Options pool_options(const char* name) {
  return {.name = name, .threads = kWorkers, .queue_limit = kMaxWaiting, .on_exception = [](auto what) {
            obs::error("disk.threw", {{"error", what}});
          }};
}

Result<> check_epoch(const DiskRecord& record, std::int64_t epoch) {
  if (epoch >= record.epoch) return {};
  return fail(ErrorCode::conflict, "the database disk of " + record.instance.str() + " belongs to epoch " +
                                       std::to_string(record.epoch) + " now, at node " + record.node);
}

/// From now on the node has it. Before that nothing was submitted, and nothing came back.
void hand_out(DiskRecord& record, const DiskStore::Opening& request) {
  const bool copies = request.mode == kCopy;
  if (!record.returned.empty()) record.spent = std::exchange(record.returned, {});
  if (copies && !record.is_open) {
    record.copy = random_hex(kCopyBytes);
    record.spent.clear();
  }
  record.is_open = true;
  record.is_out = copies && (record.is_out || request.writes);
  record.submitted.clear();
  record.receipt.clear();
}

}  // namespace

DiskStore::DiskStore(Options options, transfer::ChunkSource& chunks)
    : options_(std::move(options)),
      chunks_(chunks),
      files_(options_.prefix),
      targets_(options_.targets),
      nbd_(options_.nbd),
      copying_(pool_options("disks")),
      quick_(pool_options("disks-quick")) {}

DiskStore::~DiskStore() {
  stop();
}

void DiskStore::stop() {
  {
    const std::lock_guard lock(mutex_);
    for (auto& [instance, job] : jobs_) job->stop.request_stop();
  }
  // Ends tgtd first, so that no job waits for it; what is open stays so in its record.
  targets_.stop();
  nbd_.stop();
  copying_.stop();
  quick_.stop();
}

void DiskStore::start() {
  for (const auto& instance : files_.list()) {
    auto queued =
        find_or_begin(quick_, instance, "export", [this, instance](Job&, const std::stop_token&) -> Result<> {
          auto record = files_.load(instance);
          if (!record) return fail(record.error());
          std::error_code error;
          // How far one came that was on its way back, nobody knows any more.
          if (*record) returns_.drop(instance, files_.disk(**record));
          if (!*record || !(*record)->is_open || !std::filesystem::exists(files_.disk(**record), error))
            return {};
          return export_disk(**record);
        });
    if (!queued)
      obs::error("disk.not_exported", {{"insid", instance.str()}, {"error", queued.error().message}});
  }
}

Result<std::shared_ptr<DiskStore::Job>> DiskStore::find_or_begin(sys::ThreadPool& pool,
                                                                 const InstanceId& instance,
                                                                 const std::string& what, Work work) {
  const std::lock_guard lock(mutex_);
  if (const auto it = jobs_.find(instance); it != jobs_.end()) {
    const auto& job = it->second;
    if (job->what == what) return job;
    const std::lock_guard inner(job->mutex);
    if (!job->outcome) {
      // What is to be deleted, or goes to another node, need not be made complete first.
      if (what.starts_with("remove")) job->stop.request_stop();
      return fail(ErrorCode::unavailable, "the database disk of " + instance.str() + " is busy (" +
                                              job->what.substr(0, job->what.find(' ')) + "); try again");
    }
  }
  auto job = std::make_shared<Job>();
  job->what = what;
  auto queued = pool.submit([job, work = std::move(work), instance](const std::stop_token& pool_stop) {
    const std::stop_callback forward(pool_stop, [&] { job->stop.request_stop(); });
    Result<> outcome = fail(ErrorCode::internal, "the work on a database disk threw");
    try {
      outcome = work(*job, job->stop.get_token());
    } catch (const std::exception& error) {
      outcome = fail(ErrorCode::internal, std::string("database disk: ") + error.what());
    }
    if (!outcome) {
      obs::warn("disk.failed", {{"insid", instance.str()},
                                {"what", job->what.substr(0, job->what.find(' '))},
                                {"error", outcome.error().message}});
    }
    {
      const std::lock_guard inner(job->mutex);
      job->outcome = std::move(outcome);
    }
    job->ended.notify_all();
  });
  if (!queued) return fail(ErrorCode::unavailable, "too much is under way here; try again");
  jobs_[instance] = job;
  return job;
}

Result<DiskStore::Seen> DiskStore::run(sys::ThreadPool& pool, const InstanceId& instance,
                                       const std::string& what, Work work) {
  auto job = find_or_begin(pool, instance, what, std::move(work));
  if (!job) return fail(job.error());
  Seen seen{*job, std::nullopt, {}};
  {
    std::unique_lock lock((*job)->mutex);
    (*job)->ended.wait_for(lock, kMoment, [&] { return (*job)->outcome.has_value(); });
    seen.outcome = (*job)->outcome;
  }
  seen.progress = {(*job)->bytes_done, (*job)->bytes_total};
  if (seen.outcome) {
    // Told once: whoever asks again gets what is so then.
    const std::lock_guard lock(mutex_);
    const auto it = jobs_.find(instance);
    if (it != jobs_.end() && it->second == *job) jobs_.erase(it);
    if (!*seen.outcome) return fail(seen.outcome->error());
  }
  return seen;
}

DiskStore::Export DiskStore::told(const DiskRecord& record) const {
  const bool is_v6 = options_.portal_host.find(':') != std::string::npos;
  const auto host = is_v6 ? "[" + options_.portal_host + "]" : options_.portal_host;
  const bool is_nbd = record.mode == kNbd;
  Export out{.mode = record.mode,
             .portal = host + ":" + std::to_string(is_nbd ? record.port : options_.targets.port),
             .name = is_nbd ? record.instance.str() : IscsiTargets::iqn(record.instance),
             .user = is_nbd ? NbdTargets::kUser : record.instance.str(),
             .secret = record.secret,
             .left = record.left};
  struct stat status {};
  if (record.mode != kCopy || ::stat(files_.disk(record).c_str(), &status) != 0) return out;
  constexpr std::uint64_t kBlock = 512;
  out.copy = record.copy;
  out.is_out = record.is_out;
  out.disk_bytes = static_cast<std::uint64_t>(status.st_size);
  out.data_bytes = static_cast<std::uint64_t>(status.st_blocks) * kBlock;
  return out;
}

bool DiskStore::is_there(const InstanceId& instance) const {
  auto record = files_.load(instance);
  std::error_code error;
  return record && *record && std::filesystem::exists(files_.disk(**record), error);
}

Result<> DiskStore::export_disk(DiskRecord record) {
  if (record.mode == kCopy) return {};  // it is fetched
  if (record.mode != kNbd)
    return targets_.open({.instance = record.instance,
                          .file = files_.disk(record),
                          .address = record.address,
                          .secret = record.secret,
                          .also = record.joining_address});
  auto port = nbd_.open({record.instance, files_.disk(record), record.secret, record.port});
  if (!port) return fail(port.error());
  if (*port == record.port) return {};
  // For good before anybody is told: after a restart its client looks for it there.
  record.port = *port;
  return files_.save(record);
}

void DiskStore::withdraw(const InstanceId& instance) {
  targets_.close(instance);
  nbd_.close(instance);
}

bool DiskStore::is_exported(const InstanceId& instance) const {
  return targets_.is_open(instance) || nbd_.is_open(instance);
}

Result<DiskStore::Answer<DiskStore::Export>> DiskStore::open(const Opening& request) {
  const auto what = "open " + std::to_string(request.epoch) + " " + request.node + " " + request.address +
                    " " + request.build_imgid + " " + request.mode + (request.writes ? " writes" : "");
  auto& pool = is_there(request.instance) ? quick_ : copying_;
  auto seen = run(pool, request.instance, what, [this, request](Job& job, const std::stop_token& stop) {
    return do_open(job, request, stop);
  });
  if (!seen) return fail(seen.error());
  Answer<Export> answer{std::nullopt, seen->progress};
  if (!seen->outcome) return answer;
  auto record = files_.load(request.instance);
  if (!record) return fail(record.error());
  // Another epoch may have come in between; then its secret is nobody else's.
  const bool is_ours = *record && (*record)->epoch == request.epoch && (*record)->node == request.node &&
                       (*record)->address == request.address && (*record)->is_open;
  if (!is_ours) return fail(ErrorCode::unavailable, "the database disk was closed meanwhile; try again");
  answer.done = told(**record);
  return answer;
}

Result<> DiskStore::do_open(Job& job, const Opening& request, const std::stop_token& stop) {
  auto loaded = files_.load(request.instance);
  if (!loaded) return fail(loaded.error());
  DiskRecord record = loaded->value_or(DiskRecord{});
  const bool is_new = !loaded->has_value();
  record.instance = request.instance;
  if (auto ok = check_epoch(record, request.epoch); !ok) return ok;
  if (!is_new && record.build_imgid != request.build_imgid) {
    return fail(ErrorCode::conflict,
                "the database disk of " + request.instance.str() + " is another build's");
  }
  const bool same_epoch = !is_new && record.epoch == request.epoch && !record.node.empty();
  if (same_epoch && record.node != request.node) {
    return fail(ErrorCode::conflict, "epoch " + std::to_string(record.epoch) + " of " +
                                         request.instance.str() + " is at node " + record.node);
  }
  if (auto ok = check_copy(record, request); !ok) return ok;
  std::unique_lock builds(builds_mutex_, std::defer_lock);
  if (is_new && !request.build_imgid.empty()) {
    builds.lock();
    if (auto ok = files_.check_build(request.build_imgid); !ok) return ok;
  }
  // Then it has the disk as it is here, or a newer one.
  const bool holds = record.is_open && record.mode == kCopy && request.mode == kCopy &&
                     record.node == request.node && !record.copy.empty();
  if (!same_epoch || record.address != request.address || record.mode != request.mode) {
    record.build_imgid = request.build_imgid;
    record.epoch = request.epoch;
    record.node = request.node;
    record.address = request.address;
    record.mode = request.mode;
    record.secret = random_hex(request.mode == kNbd ? kKeyBytes : kSecretBytes);
    record.port = 0;
    record.is_open = holds;
    if (!holds) record.copy.clear();
    record.joining_epoch = 0;
    record.joining_node = record.joining_address = "";
    // First for good, then the fence: a kill in between leaves no target either, because tgtd dies with us.
    if (auto saved = files_.save(record); !saved) return saved;
    if (builds) builds.unlock();
    withdraw(request.instance);
    if (!holds) returns_.drop(record.instance, files_.disk(record));
  }
  const auto file = files_.disk(record);
  std::error_code error;
  if (!std::filesystem::exists(file, error)) {
    auto filled = fill_disk(
        chunks_, request.source, request.node, file,
        [&](std::uint64_t done, std::uint64_t total) {
          job.bytes_done = done;
          job.bytes_total = total;
        },
        stop);
    if (!filled) return filled;
    obs::info("disk.made", {{"insid", request.instance.str()},
                            {"imgid", request.source.imgid},
                            {"version", request.source.version}});
  }
  const bool copies = request.mode == kCopy;
  // Whatever was on its way back is not what the VM makes of its disk from now on.
  if (copies && request.writes) returns_.drop(record.instance, file);
  if (!record.is_open || !record.submitted.empty() || (copies && request.writes && !record.is_out)) {
    hand_out(record, request);
    if (auto saved = files_.save(record); !saved) return saved;
  }
  return export_disk(record);
}

Result<DiskStore::Answer<DiskStore::Done>> DiskStore::close(const InstanceId& instance, std::int64_t epoch) {
  auto seen =
      run(quick_, instance, "close " + std::to_string(epoch),
          [this, instance, epoch](Job&, const std::stop_token&) { return do_close(instance, epoch); });
  if (!seen) return fail(seen.error());
  Answer<Done> answer{std::nullopt, seen->progress};
  if (seen->outcome) answer.done = Done{};
  return answer;
}

Result<> DiskStore::do_close(const InstanceId& instance, std::int64_t epoch) {
  auto record = files_.load(instance);
  if (!record) return fail(record.error());
  // A node that has been replaced is closed out already; the one after it goes on.
  if (!*record || epoch < (*record)->epoch) return {};
  if ((*record)->is_out) {
    return fail(ErrorCode::conflict, "the newest copy of the database disk of " + instance.str() +
                                         " is at node " + (*record)->node + ": give it back first");
  }
  if ((*record)->is_open) {
    (*record)->is_open = false;
    (*record)->copy.clear();
    // Told until a VM has run on the disk.
    if ((*record)->mode != kCopy || !(*record)->returned.empty()) (*record)->left.clear();
    (*record)->joining_epoch = 0;
    (*record)->joining_node = (*record)->joining_address = "";
    if (auto saved = files_.save(**record); !saved) return saved;
  }
  withdraw(instance);
  return {};
}

Result<DiskStore::Answer<std::string>> DiskStore::submit(const Submission& request) {
  const auto what = "submit " + std::to_string(request.epoch) + " " + request.cmdid + " " + request.imgid +
                    "/" + std::to_string(request.version) + " " + request.parent + " " + request.if_current;
  auto seen = run(copying_, request.instance, what, [this, request](Job& job, const std::stop_token& stop) {
    return do_submit(job, request, stop);
  });
  if (!seen) return fail(seen.error());
  Answer<std::string> answer{std::nullopt, seen->progress};
  if (seen->outcome) answer.done = seen->job->receipt;
  return answer;
}

Result<> DiskStore::do_submit(Job& job, const Submission& request, const std::stop_token& stop) {
  auto loaded = files_.load(request.instance);
  if (!loaded) return fail(loaded.error());
  std::error_code error;
  if (!*loaded || !std::filesystem::exists(files_.disk(**loaded), error)) {
    return fail(ErrorCode::not_found, "there is no database disk of " + request.instance.str() + " here");
  }
  auto& record = **loaded;
  if (auto ok = check_epoch(record, request.epoch); !ok) return ok;
  if (record.is_open || is_exported(request.instance)) {
    return fail(ErrorCode::conflict, "the database disk of " + request.instance.str() +
                                         " is open: its guest may still write; close it first");
  }
  const auto name = request.cmdid + " " + request.imgid + "/" + std::to_string(request.version);
  if (record.submitted == name) {
    job.receipt = record.receipt;
    return {};
  }
  auto receipt = submit_disk(
      files_.disk(record), options_.walrus(request.imgid, request.version),
      {.manifest = {}, .parent = request.parent, .if_current = request.if_current, .cmdid = request.cmdid},
      [&](std::uint64_t done, std::uint64_t total) {
        job.bytes_done = done;
        job.bytes_total = total;
      },
      stop);
  if (!receipt) return fail(receipt.error());
  record.submitted = name;
  record.receipt = *receipt;
  if (auto saved = files_.save(record); !saved) return saved;
  job.receipt = std::move(*receipt);
  obs::info("disk.submitted",
            {{"insid", request.instance.str()}, {"imgid", request.imgid}, {"version", request.version}});
  return {};
}

Result<DiskStore::Answer<DiskStore::Done>> DiskStore::remove(const InstanceId& instance, std::int64_t epoch) {
  auto seen =
      run(quick_, instance, "remove " + std::to_string(epoch),
          [this, instance, epoch](Job&, const std::stop_token&) { return do_remove(instance, epoch); });
  if (!seen) return fail(seen.error());
  Answer<Done> answer{std::nullopt, seen->progress};
  if (seen->outcome) answer.done = Done{};
  return answer;
}

Result<> DiskStore::do_remove(const InstanceId& instance, std::int64_t epoch) {
  auto record = files_.load(instance);
  if (!record) return fail(record.error());
  if (!*record) return {};
  // The farewell to a node that was replaced must not take the disk from its successor.
  if (auto ok = check_epoch(**record, epoch); !ok) return ok;
  withdraw(instance);
  returns_.drop(instance, files_.disk(**record));
  if (auto removed = files_.remove(**record); !removed) return removed;
  obs::info("disk.removed", {{"insid", instance.str()}});
  return {};
}

}  // namespace educloud::cc
