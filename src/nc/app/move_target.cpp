// A VM that comes from another node: what has to be here before it (ADR 11).
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "nc/app/lease_file.hpp"
#include "nc/app/operations.hpp"

namespace educloud::nc {

namespace {
constexpr std::chrono::seconds kAnswerPatience{10};  ///< less than who asks has
}

Result<> Operations::receive(const msg::Command& command, const OnCopied& tell, std::stop_token stop) {
  auto tid = TaskId::parse(command.tid);
  if (!tid) return fail(tid.error());
  const auto insid = tid->instance;
  if (!command.source || command.source->imgid != tid->source.str() || keeps_overlay(insid))
    return fail(ErrorCode::invalid_argument, "not a VM that can come from another node", "source");
  auto spec = make_spec(command, *tid, options_.layout, options_.limits);
  if (!spec) return fail(spec.error());
  if (auto ok = is_free(insid); !ok) return ok;
  if (auto ok = may_start({command, *tid, stop}); !ok) return ok;
  auto request = make_fill_request(*command.source, command.source_grant, "user");
  if (!request) return fail(request.error());
  if (!images_.base(request->imgid, request->version)) {
    if (auto ok = need_room(*request); !ok) return ok;
  }
  if (auto ok = images_.fetch(*request, tell, stop); !ok) return ok;
  if (auto ok = need_disk(0, "taking a VM"); !ok) return ok;
  // The image may have taken an hour, in which it was stopped and started here.
  auto hold = owners_.receive(insid, command.epoch);
  if (!hold) return fail(hold.error());
  auto ours = hold->stop();
  const std::stop_callback asked(stop, [ours]() mutable { ours.request_stop(); });
  if (auto ok = is_free(insid); !ok) return ok;
  return make_ready({command, std::move(*tid), ours.get_token()}, *spec);
}

/// All but the image, and the VM that waits.
Result<> Operations::make_ready(const Call& call, VmSpec& spec) {
  const auto& insid = call.tid.instance;
  if (auto ok = make_disk(call, spec); !ok) return ok;
  if (auto ok = make_scratch(spec); !ok) return ok;
  if (auto ok = make_seed(call, spec); !ok) return ok;
  for (const auto& mark : {options_.layout.move_mark(insid), options_.layout.taken_mark(insid)}) {
    if (auto ok = remove_file(mark); !ok) return ok;
  }
  if (auto ok = remove_file(spec.console_log); !ok) return ok;
  if (auto ok = join_database(call, spec); !ok) return ok;
  if (auto ok = prepare_folders(call, spec); !ok) return fail(ok.error());
  if (auto ok = make_move_folder(insid); !ok) return ok;
  update_in_use();
  if (call.stop.stop_requested()) return fail(ErrorCode::cancelled, "interrupted");
  if (auto ok = may_start(call); !ok) return ok;
  if (spec.exclusive && !options_.state_dir.empty()) {
    if (auto ok = note_exclusive(options_.state_dir, insid); !ok) return ok;
  }
  if (options_.was_fenced) (void)options_.was_fenced(insid);  // the one before
  return hypervisor_.receive(spec, places(insid));
}

Result<> Operations::is_no_task_of_ours(const InstanceId& insid) const {
  for (const auto& entry : inbox_.tasks()) {
    auto tid = TaskId::parse(entry.command.tid);
    if (!tid || tid->instance != insid) continue;
    const bool over = entry.finished && !is_up(entry);
    if (!over) return fail(ErrorCode::conflict, "VM " + insid.str() + " is this node's by now");
  }
  return {};
}

/// Nor a VM of that name.
Result<> Operations::is_free(const InstanceId& insid) {
  // Not "none" if it is not known.
  if (auto state = hypervisor_.state(insid); state || state.error().code != ErrorCode::not_found)
    return fail(state ? Error{ErrorCode::conflict, "a VM " + insid.str() + " is here already", {}}
                      : state.error());
  return is_no_task_of_ours(insid);
}

Result<> Operations::take_over(const InstanceId& insid) {
  auto hold = owners_.take(insid, 0, {}, kAnswerPatience);
  if (!hold) return fail(hold.error());
  const auto taken = options_.layout.taken_mark(insid);
  auto arrived = hypervisor_.has_arrived(insid);
  if (!arrived) {
    std::error_code ignored;
    const bool was_here = std::filesystem::exists(taken, ignored);
    // It ran here and has ended since: the other node must not let an older moment of it go on.
    if (arrived.error().code == ErrorCode::not_found && was_here) return {};
    return fail(arrived.error());
  }
  if (!*arrived) return fail(ErrorCode::unavailable, "not all of the VM has arrived yet");
  constexpr unsigned kMode = 0600;
  auto noted = sys::make_directories(taken.parent_path());
  if (noted) noted = sys::write_file_atomically(taken, "", kMode);
  // Never "not found": the other node would let it go on there.
  if (!noted) return fail(ErrorCode::unavailable, noted.error().message);
  if (auto ok = keep_database(insid); !ok) return ok;
  if (auto ok = hypervisor_.take_over(insid); !ok) return ok;
  (void)remove_tree(options_.layout.move_folder(insid));
  return {};
}

Result<> Operations::give_up(const InstanceId& insid) {
  auto hold = owners_.take(insid, 0, {}, kAnswerPatience);
  if (!hold) return fail(hold.error());
  auto state = hypervisor_.state(insid);
  if (!state && state.error().code != ErrorCode::not_found) return fail(state.error());
  if (state && *state != VmState::paused)
    return fail(ErrorCode::conflict, "VM " + insid.str() + " runs here");
  if (auto ok = is_no_task_of_ours(insid); !ok) return ok;
  if (auto ok = hypervisor_.destroy(insid); !ok) return ok;
  if (!options_.state_dir.empty()) strike_exclusive(options_.state_dir, insid);
  close_database(insid, {}, {});
  return remove_instance(insid);
}

}  // namespace educloud::nc
