#include "nc/app/operations.hpp"

#include "common/base/bytes.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::nc {

using task::Event;
using task::Phase;
using task::State;

namespace {

/// Where a task stands after its operation failed (CONTRACT.md "Phases and states").
task::TaskState after_failure(const std::string& op) {
  if (op == "image/prepare") return {Phase::preparing, State::init};
  if (op == "image/submit") return {Phase::submitting, State::init};
  if (op == "task/delete") return {Phase::editing, State::deleting};
  return {Phase::editing, State::stopped};
}

void count(const std::string& op, std::string_view result, std::chrono::steady_clock::time_point begun) {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  obs::metrics().count("educloud_nc_operations_total", "Operations by kind and result", 1,
                       {{"op", op}, {"result", std::string(result)}});
  obs::metrics().observe("educloud_nc_operation_seconds", "Duration of operations", seconds, {{"op", op}});
}

}  // namespace

void Operations::run(const Job& job, std::stop_token stop) {
  if (job.vm_ended) return vm_ended(job);
  const auto& command = job.command;
  auto tid = TaskId::parse(command.tid);
  if (!tid) return report_failure(command, tid.error());
  const auto begun = std::chrono::steady_clock::now();
  obs::info("operation.begun", {{"tid", command.tid}, {"op", command.op}, {"cmdid", command.cmdid}});
  {
    // Our command is in the inbox, so evictions from now on spare its version; one under way may not.
    const std::lock_guard lock(room_mutex_);
  }
  const Call call{command, std::move(*tid), stop};
  Final done = fail(ErrorCode::invalid_argument, "this node does not know op '" + command.op + "'", "op");
  if (command.op == "image/prepare") done = prepare(call);
  if (command.op == "image/run") done = start(call);
  if (command.op == "image/stop") done = this->stop(call);
  if (command.op == "image/submit") done = submit(call);
  if (command.op == "task/delete") done = remove(call);
  if (!done && done.error().code == ErrorCode::cancelled && stop.stop_requested()) {
    obs::info("operation.interrupted", {{"tid", command.tid}, {"op", command.op}});
    return count(command.op, "interrupted", begun);
  }
  count(command.op, done ? "ok" : "failed", begun);
  if (!done) return report_failure(command, done.error());
  obs::info("operation.done", {{"tid", command.tid}, {"op", command.op}, {"cmdid", command.cmdid}});
  if (auto told = inbox_.report(*done); !told) {
    obs::warn("operation.not_told",
              {{"tid", command.tid}, {"op", command.op}, {"reason", told.error().message}});
  }
}

void Operations::report_failure(const msg::Command& command, const Error& error) {
  obs::warn("operation.failed", {{"tid", command.tid}, {"op", command.op}, {"reason", error.message}});
  inbox::Report report;
  report.tid = command.tid;
  report.cmdid = command.cmdid;
  report.event = Event::failed;
  report.at = after_failure(command.op);
  report.final = true;
  report.prompt = command.op + " failed";
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
  report.prompt = std::move(prompt);
  return report;
}

/// What the overlays here stand on, and what the tasks that have or will have a VM were promised.
Result<Versions> Operations::versions_in_use() const {
  Versions used;
  for (const auto& entry : inbox_.tasks()) {
    const bool wants = !entry.finished || !entry.status ||
                       entry.status->event == to_string(Event::prepared) ||
                       entry.status->event == to_string(Event::running);
    if (wants && entry.command.source)
      used.emplace(entry.command.source->imgid, entry.command.source->version);
  }
  std::error_code error;
  std::filesystem::directory_iterator folders(options_.layout.instances(), error);
  if (error == std::errc::no_such_file_or_directory) return used;
  for (; !error && folders != std::filesystem::directory_iterator(); folders.increment(error)) {
    auto insid = InstanceId::parse(folders->path().filename().string());
    std::error_code ignored;
    if (!insid || !std::filesystem::exists(options_.layout.overlay(*insid), ignored)) continue;
    auto record = read_record(options_.layout, *insid);
    if (!record) return fail(record.error());
    if (*record) used.emplace((*record)->imgid, (*record)->version);
  }
  if (error) return fail(errno_error("read " + options_.layout.instances().string(), error.value()));
  return used;
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
  images_.make_room(wanted, *used);
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

Result<> Operations::drop_overlay(const InstanceId& insid) {
  if (keeps_overlay(insid)) return {};
  return remove_file(options_.layout.overlay(insid));
}

}  // namespace educloud::nc
