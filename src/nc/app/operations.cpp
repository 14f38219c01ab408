#include "nc/app/operations.hpp"

#include <cmath>

#include "common/base/bytes.hpp"
#include "common/base/rate_meter.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "nc/app/lease_file.hpp"

namespace educloud::nc {

using task::Event;
using task::Phase;
using task::State;

namespace {

/// With another node that is sending the VM that a command is about.
constexpr std::chrono::minutes kOwnedPatience{3};

void count(const std::string& op, std::string_view result, std::chrono::steady_clock::time_point begun) {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  obs::metrics().count("educloud_nc_operations_total", "Operations by kind and result", 1,
                       {{"op", op}, {"result", std::string(result)}});
  obs::metrics().observe("educloud_nc_operation_seconds", "Duration of operations", seconds, {{"op", op}});
}

std::optional<Job> put_off(Job job, std::chrono::milliseconds how_long) {
  // Not at once, the first time: then only the lane was wrong.
  if (std::exchange(job.gives_back, true)) job.not_before = std::chrono::steady_clock::now() + how_long;
  return job;
}

}  // namespace

bool is_up(const inbox::Entry& entry) {
  if (!entry.finished || !entry.status || entry.status->phase != to_string(Phase::editing)) return false;
  // It runs, but not here any more.
  if (entry.command.op == "instance/migrate" && entry.status->event == to_string(Event::running))
    return false;
  return entry.status->state == to_string(State::running) || entry.status->state == to_string(State::paused);
}

task::TaskState Operations::after_failure(const msg::Command& command) {
  if (command.op == "image/prepare") return {Phase::preparing, State::init};
  if (command.op == "image/submit") return {Phase::submitting, State::init};
  if (command.op == "task/delete") return {Phase::editing, State::deleting};
  if (!is_operation(command.op)) return {Phase::editing, State::stopped};
  auto tid = TaskId::parse(command.tid);
  auto state = tid ? hypervisor_.state(tid->instance) : Result<VmState>(fail(tid.error()));
  if (state && *state == VmState::paused) return {Phase::editing, State::paused};
  // Not knowing is not "gone": if it is, the next look at the VMs finds it.
  const bool gone = !state && state.error().code == ErrorCode::not_found;
  return {Phase::editing, gone ? State::stopped : State::running};
}

std::optional<Job> Operations::run(const Job& job, std::stop_token stop) {
  auto tid = TaskId::parse(job.command.tid);
  if (!tid) {
    report_failure(job.command, tid.error());
    return std::nullopt;
  }
  auto hold = owners_.take(tid->instance, job.command.epoch, stop, kOwnedPatience);
  if (hold) return run_owned(job, std::move(stop));
  // Redone after the next start; and what became of a VM is found again.
  if (!stop.stop_requested() && job.is_command()) report_failure(job.command, hold.error());
  return std::nullopt;
}

std::optional<Job> Operations::run_owned(const Job& job, std::stop_token stop) {
  if (job.vm_ended) return vm_ended(job, std::move(stop));
  if (job.vm_changed) {
    vm_changed(job);
    return std::nullopt;
  }
  const auto& command = job.command;
  auto tid = TaskId::parse(command.tid);
  if (!tid) {
    report_failure(command, tid.error());
    return std::nullopt;
  }
  const auto begun = std::chrono::steady_clock::now();
  if (!job.gives_back)
    obs::info("operation.begun", {{"tid", command.tid}, {"op", command.op}, {"cmdid", command.cmdid}});
  // Our command is in the inbox, so evictions from now on spare its version; one under way is waited for.
  update_in_use();
  bool is_put_off = false;
  const Call call{command, std::move(*tid), stop, job.gives_back, &is_put_off};
  Final done = fail(ErrorCode::invalid_argument, "this node does not know op '" + command.op + "'", "op");
  if (command.op == "image/prepare") done = prepare(call);
  if (command.op == "image/run") done = start(call);
  if (command.op == "image/stop") done = this->stop(call);
  if (command.op == "image/submit") done = submit(call);
  if (command.op == "task/delete") done = remove(call);
  if (is_operation(command.op)) done = operate(call);
  if (is_put_off) return put_off(job, options_.give_back_again);
  if (!done && done.error().code == ErrorCode::cancelled && stop.stop_requested()) {
    obs::info("operation.interrupted", {{"tid", command.tid}, {"op", command.op}});
    count(command.op, "interrupted", begun);
    return std::nullopt;
  }
  count(command.op, done ? "ok" : "failed", begun);
  if (!done) {
    report_failure(command, done.error());
    update_in_use();
    return std::nullopt;
  }
  obs::info("operation.done", {{"tid", command.tid}, {"op", command.op}, {"cmdid", command.cmdid}});
  if (auto told = inbox_.report(*done); !told) {
    obs::warn("operation.not_told",
              {{"tid", command.tid}, {"op", command.op}, {"reason", told.error().message}});
  }
  update_in_use();
  return std::nullopt;
}

void Operations::report_failure(const msg::Command& command, const Error& error) {
  obs::warn("operation.failed", {{"tid", command.tid}, {"op", command.op}, {"reason", error.message}});
  inbox::Report report;
  report.tid = command.tid;
  report.cmdid = command.cmdid;
  report.event = is_operation(command.op) ? Event::refused : Event::failed;
  report.at = after_failure(command);
  report.final = true;
  report.prompt = command.op + " failed";
  report.snapshot = command.snapshot;
  report.error = error;
  if (auto told = inbox_.report(report); !told) {
    obs::warn("operation.not_told",
              {{"tid", command.tid}, {"op", command.op}, {"reason", told.error().message}});
  }
}

void Operations::progress(const Call& call, Event event, task::TaskState at, int percent, std::uint64_t done,
                          std::uint64_t total, std::string prompt) {
  inbox::Report report;
  report.tid = call.command.tid;
  report.cmdid = call.command.cmdid;
  report.event = event;
  report.at = at;
  report.progress = percent;
  report.bytes_done = static_cast<std::int64_t>(done);
  report.bytes_total = static_cast<std::int64_t>(total);
  report.prompt = std::move(prompt);
  if (auto told = inbox_.report(report); !told && told.error().code != ErrorCode::conflict) {
    obs::warn("operation.not_told", {{"tid", call.command.tid}, {"reason", told.error().message}});
  }
}

inbox::Report Operations::final_report(const Call& call, Event event, task::TaskState at,
                                       std::string prompt) const {
  inbox::Report report;
  report.tid = call.command.tid;
  report.cmdid = call.command.cmdid;
  report.event = event;
  report.at = at;
  report.final = true;
  report.progress = 100;
  report.snapshot = call.command.snapshot;
  report.prompt = std::move(prompt);
  return report;
}

OnCopied Operations::teller(const Call& call, Event event, task::TaskState at, std::string what) {
  struct Shared {
    std::mutex mutex;
    RateMeter rate;
  };
  return [this, call, event, at, what = std::move(what), shared = std::make_shared<Shared>()](
             std::uint64_t done, std::uint64_t total) {
    double rate = 0;
    {
      const std::lock_guard lock(shared->mutex);
      const auto now = std::chrono::steady_clock::now().time_since_epoch();
      shared->rate.add(done, std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
      rate = shared->rate.bytes_per_second();
    }
    std::string prompt = what;
    if (rate > 0 && total > done) {
      const auto seconds = std::ceil(static_cast<double>(total - done) / rate);
      if (seconds < 24 * 3600) prompt += ", " + std::to_string(static_cast<int>(seconds)) + " s left";
    }
    const double percent = total == 0 ? 0 : static_cast<double>(done) * 100.0 / static_cast<double>(total);
    progress(call, event, at, static_cast<int>(percent), done, total, std::move(prompt));
  };
}

/// What the overlays here stand on, and what the tasks that have or will have a VM were promised.
Result<Versions> Operations::versions_in_use() const {
  Versions used;
  for (const auto& entry : inbox_.tasks()) {
    const bool wants =
        !entry.finished || !entry.status || entry.status->event == to_string(Event::prepared) || is_up(entry);
    // What was only pushed here ahead of time is not promised to anybody.
    const bool pushed = entry.finished && entry.command.priority != "user";
    if (wants && !pushed && entry.command.source)
      used.emplace(entry.command.source->imgid, entry.command.source->version);
  }
  auto records = all_records(options_.layout);
  if (!records) return fail(records.error());
  for (const auto& [insid, record] : *records) {
    std::error_code ignored;
    auto tid = TaskId::parse(record.tid);
    const bool overlay = std::filesystem::exists(options_.layout.overlay(insid), ignored);
    const bool build =
        tid && tid->is_build() && std::filesystem::exists(options_.layout.build(tid->target), ignored);
    if (overlay || build) used.emplace(record.imgid, record.version);
  }
  return used;
}

void Operations::update_in_use() {
  const std::lock_guard lock(room_mutex_);
  if (auto used = versions_in_use()) {
    images_.set_in_use(*used);
  } else {
    obs::warn("cache.in_use_unknown", {{"reason", used.error().message}});
  }
}

void Operations::make_room(std::uint64_t wanted) {
  // Who begins after this looks whether its version is still there: run() waits for the same mutex.
  const std::lock_guard lock(room_mutex_);
  auto used = versions_in_use();
  if (!used) {
    // Not knowing what is used is no reason to take it for unused.
    obs::warn("cache.not_evicted", {{"reason", used.error().message}});
    return;
  }
  images_.set_in_use(*used);
  images_.make_room(wanted);
}

void Operations::recover() {
  update_in_use();
  auto records = all_records(options_.layout);
  if (!records) {
    obs::error("lazy.records_unreadable", {{"reason", records.error().message}});
    return;
  }
  for (const auto& [insid, record] : *records) {
    std::error_code ignored;
    if (!record.lazy || !std::filesystem::exists(options_.layout.overlay(insid), ignored)) continue;
    auto request = make_fill_request(record.lazy->source, record.lazy->grant, record.lazy->priority);
    if (request) lazy_.restore(insid, *request);
  }
}

Result<> Operations::need_disk(std::uint64_t bytes, std::string_view what) {
  auto free_bytes = images_.free_disk_bytes();
  if (!free_bytes) return fail(free_bytes.error());
  const std::uint64_t wanted = bytes + options_.min_free_disk_bytes;
  if (*free_bytes >= wanted) return {};
  make_room(wanted);
  free_bytes = images_.free_disk_bytes();
  if (!free_bytes) return fail(free_bytes.error());
  if (*free_bytes >= wanted) return {};
  return fail(ErrorCode::exhausted, std::string(what) + " needs " + to_string(Bytes{bytes}) + " and " +
                                        to_string(Bytes{options_.min_free_disk_bytes}) +
                                        " must stay free under " + options_.layout.prefix().string() +
                                        ", but only " + to_string(Bytes{*free_bytes}) +
                                        " are; make room on this node");
}

Result<> Operations::forget(const InstanceId& insid) {
  auto hold = owners_.take(insid, 0, {}, {});
  if (!hold) return fail(ErrorCode::conflict, hold.error().message);
  if (auto ok = is_free(insid); !ok) return ok;
  return remove_instance(insid);
}

Result<> Operations::remove_instance(const InstanceId& insid) {
  lazy_.drop(insid);
  return remove_tree(options_.layout.instance(insid));
}

Result<> Operations::drop_overlay(const InstanceId& insid) {
  lazy_.drop(insid);
  networks_.drop(insid);
  if (!options_.state_dir.empty()) strike_exclusive(options_.state_dir, insid);
  // Who stops it or finds it ended does not want it switched on by a restore that was interrupted.
  if (auto ok = remove_file(options_.layout.recipe(insid)); !ok) return ok;
  if (auto ok = remove_file(options_.layout.data_overlay(insid)); !ok) return ok;
  if (keeps_overlay(insid)) return {};
  if (auto ok = snapshots_.forget(insid); !ok) return ok;
  if (auto ok = remove_file(options_.layout.seed(insid)); !ok) return ok;
  return remove_file(options_.layout.overlay(insid));
}

Result<FillRequest> make_fill_request(const msg::ImageVersion& source, std::string grant,
                                      const std::string& priority) {
  if (auto imgid = ImageId::parse(source.imgid); !imgid) return fail(imgid.error());
  auto digest = chunk::ChunkId::parse(source.digest);
  if (!digest) return fail(ErrorCode::invalid_argument, "source.digest is no digest", "source.digest");
  auto parsed = transfer::parse_priority(priority);
  if (!parsed) return fail(parsed.error());
  FillRequest request;
  request.imgid = source.imgid;
  request.version = source.version;
  request.digest = *digest;
  request.data_bytes = static_cast<std::uint64_t>(source.size_bytes);
  request.grant = std::move(grant);
  request.priority = *parsed;
  return request;
}

}  // namespace educloud::nc
