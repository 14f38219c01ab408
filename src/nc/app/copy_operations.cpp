// image/prepare and image/submit: the long ones.
#include "common/base/bytes.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "nc/app/operations.hpp"

namespace educloud::nc {

using task::Event;
using task::Phase;
using task::State;

namespace {

constexpr task::TaskState kDownloading{Phase::preparing, State::downloading};
constexpr task::TaskState kCloning{Phase::preparing, State::cloning};
constexpr task::TaskState kPrepared{Phase::preparing, State::done};
constexpr task::TaskState kUploading{Phase::submitting, State::uploading};
constexpr task::TaskState kSubmitted{Phase::submitting, State::done};

std::string name_of(const std::string& imgid, int version) {
  return imgid + " version " + std::to_string(version);
}

}  // namespace

Operations::Final Operations::prepare(const Call& call) {
  if (!call.command.source)
    return fail(ErrorCode::invalid_argument, "image/prepare without source", "source");
  const auto& source = *call.command.source;
  if (source.imgid != call.tid.source.str()) {
    return fail(ErrorCode::invalid_argument,
                "source " + source.imgid + " is not the one of task " + call.tid.str(), "source.imgid");
  }
  auto request = make_fill_request(source, call.command.source_grant, call.command.priority);
  if (!request) return fail(request.error());
  if (auto ok = may_start(call); !ok) return fail(ok.error());
  auto done = prepare_machine(call, *request);
  if (!done) return fail(done.error());
  if (auto ok = prepare_database(call); !ok) return fail(ok.error());
  return final_report(call, Event::prepared, kPrepared, std::move(*done));
}

/// Returns what is to be told of it.
Result<std::string> Operations::prepare_machine(const Call& call, const FillRequest& request) {
  const auto& source = *call.command.source;
  const auto name = name_of(source.imgid, source.version);
  const bool build = base_of(call.tid) == Base::build_copy;
  if (call.command.lazy == 1 && !build && !images_.base(source.imgid, source.version)) {
    progress(call, Event::downloading, kDownloading, 0, 0, request.data_bytes, "asking for " + name);
    if (auto ok = need_room(request); !ok) return fail(ok.error());
    auto opened = lazy_.open(call.tid.instance, request, call.stop);
    if (!opened) return fail(opened.error());
    return name + " can be read while it arrives";
  }
  if (auto ok = fetch(call, request); !ok) return fail(ok.error());
  if (build) {
    if (auto ok = prepare_build(call, source); !ok) return fail(ok.error());
  }
  return name + " is on the node";
}

bool Operations::has_relative(const std::string& imgid) {
  const auto cached = images_.cached();
  return std::any_of(cached.begin(), cached.end(), [&](const auto& one) { return one.imgid == imgid; });
}

/// Another version that is here has most of it, and must not be evicted for the sake of what it has.
Result<> Operations::need_room(const FillRequest& request) {
  return need_disk(has_relative(request.imgid) ? 0 : request.data_bytes,
                   "image " + name_of(request.imgid, request.version));
}

/// Has the version here, with room made for it.
Result<> Operations::fetch(const Call& call, const FillRequest& request) {
  const auto name = name_of(request.imgid, request.version);
  const auto tell = teller(call, Event::downloading, kDownloading, "downloading " + name);
  if (!images_.base(request.imgid, request.version)) {
    tell(0, request.data_bytes);
    if (auto ok = need_room(request); !ok) return ok;
  }
  auto done = images_.fetch(request, tell, call.stop);
  if (done || done.error().code != ErrorCode::exhausted || !has_relative(request.imgid)) return done;
  make_room(request.data_bytes + options_.min_free_disk_bytes);
  return images_.fetch(request, tell, call.stop);
}

/// A build works on an overlay of its own: nothing is copied.
Result<> Operations::prepare_build(const Call& call, const msg::ImageVersion& source) {
  const auto& layout = options_.layout;
  const auto target = layout.build(call.tid.target);
  auto record = read_record(layout, call.tid.instance);
  if (!record) return fail(record.error());
  std::error_code ignored;
  // A build that was stopped and is started again goes on with what it has.
  if (*record && std::filesystem::exists(target, ignored)) return {};
  auto base = images_.base(source.imgid, source.version);
  if (!base) return fail(base.error());
  progress(call, Event::cloning, kCloning, 0, 0, 0, "cloning " + name_of(source.imgid, source.version));
  const auto folder = layout.build_folder(call.tid.target);
  if (auto ok = sys::make_directories(folder); !ok) return ok;
  const auto part = folder / "machine.part";
  if (auto ok = remove_file(part); !ok) return ok;
  if (auto ok = images_.make_overlay(base->layers.front(), base->disk_bytes, part); !ok) return ok;
  std::error_code error;
  std::filesystem::rename(part, target, error);
  if (error) return fail(errno_error("rename " + part.string(), error.value()));
  if (auto ok = sys::sync_path(folder); !ok) return ok;
  // Last: the record is what says of which version the clone is.
  return write_record(layout, call.tid.instance, {call.tid.str(), source.imgid, source.version});
}

Operations::Final Operations::submit(const Call& call) {
  const auto& insid = call.tid.instance;
  if (!keeps_overlay(insid)) {
    return fail(ErrorCode::conflict,
                "desktop " + insid.str() + " keeps no changes; only build and modify are submitted");
  }
  if (call.command.target_imgid != call.tid.target.str() || call.command.target_version < 1) {
    return fail(ErrorCode::invalid_argument, "the target of the submit is not " + call.tid.target.str(),
                "target_imgid");
  }
  if (auto ok = check_database_target(call.command); !ok) return fail(ok.error());
  auto state = state_of(call);
  if (state) return fail(ErrorCode::conflict, "VM " + insid.str() + " still runs; stop it before submitting");
  if (state.error().code != ErrorCode::not_found) return fail(state.error());
  if (auto ok = snapshots_.clear(insid); !ok) return fail(ok.error());
  auto job = submit_job(call);
  if (!job) return fail(job.error());
  // First: a machine that is published is in use, and a second try would find itself overtaken by that.
  std::string database_receipt;
  if (!call.command.database_target_imgid.empty()) {
    auto receipt = submit_database(call);
    if (!receipt) return fail(receipt.error());
    database_receipt = std::move(*receipt);
  }
  const auto tell = teller(call, Event::uploading, kUploading, "uploading what changed");
  auto done = images_.submit(*job, tell, call.stop);
  if (!done && done.error().code == ErrorCode::conflict && !job->if_current.empty()) {
    return fail(ErrorCode::conflict,
                done.error().message +
                    "; to make yours the next version, submit with on_conflict=replace; until then your "
                    "changes stay on the node");
  }
  if (!done) return fail(done.error());
  auto report = final_report(call, Event::submitted, kSubmitted,
                             name_of(job->target_imgid, job->target_version) +
                                 " is published: " + to_string(Bytes{done->changed_bytes}) + " changed, " +
                                 to_string(Bytes{done->sent_bytes}) + " sent");
  report.receipt = done->receipt;
  report.database_receipt = std::move(database_receipt);
  report.bytes_done = report.bytes_total = static_cast<std::int64_t>(done->candidate_bytes);
  return report;
}

/// What is to be submitted; waits for the rest of a base that still arrives.
Result<SubmitJob> Operations::submit_job(const Call& call) {
  const auto& layout = options_.layout;
  const auto& insid = call.tid.instance;
  auto record = read_record(layout, insid);
  if (!record) return fail(record.error());
  if (!*record)
    return fail(ErrorCode::not_found, "nothing was prepared for " + call.tid.str() + " on this node");
  progress(call, Event::uploading, kUploading, 0, 0, 0, "looking for what changed");
  SubmitJob job{.target_imgid = call.command.target_imgid,
                .target_version = call.command.target_version,
                .grant = call.command.target_grant,
                .cmdid = call.command.cmdid,
                .if_current = call.command.if_current,
                .parent_imgid = (*record)->imgid,
                .parent_version = (*record)->version,
                .changed = {}};
  std::error_code ignored;
  if (std::filesystem::exists(layout.overlay(insid), ignored)) job.changed.push_back(layout.overlay(insid));
  if (base_of(call.tid) == Base::build_copy) {
    const auto machine = layout.build(call.tid.target);
    if (!std::filesystem::exists(machine, ignored))
      return fail(ErrorCode::not_found, machine.string() + " is not there; prepare the build first");
    job.changed.push_back(machine);
  }
  if (job.changed.empty()) {
    return fail(ErrorCode::conflict,
                "nothing was changed in " + call.tid.str() + "; run it before submitting");
  }
  auto base = images_.base(job.parent_imgid, job.parent_version);
  if (base) return job;
  const auto& lazy = (*record)->lazy;
  if (base.error().code != ErrorCode::not_found || !lazy) return fail(base.error());
  auto request = make_fill_request(lazy->source, lazy->grant, lazy->priority);
  if (!request) return fail(request.error());
  const auto name = name_of(job.parent_imgid, job.parent_version);
  const auto tell = teller(call, Event::uploading, kUploading, "waiting for the rest of " + name);
  if (auto ok = images_.fetch(*request, tell, call.stop); !ok) return fail(ok.error());
  return job;
}

}  // namespace educloud::nc
