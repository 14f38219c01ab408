// image/run, image/stop, task/delete, and VMs that end by themselves.
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "common/sys/pause.hpp"
#include "nc/app/lease_file.hpp"
#include "nc/app/operations.hpp"
#include "nc/domain/seed.hpp"

namespace educloud::nc {

using task::Event;
using task::Phase;
using task::State;

namespace {

constexpr task::TaskState kBooting{Phase::editing, State::booting};
constexpr task::TaskState kRunning{Phase::editing, State::running};
constexpr task::TaskState kStopped{Phase::editing, State::stopped};
constexpr task::TaskState kDeleting{Phase::editing, State::deleting};

constexpr std::chrono::milliseconds kPoll{100};
constexpr std::chrono::seconds kPatience{60};  ///< for a libvirtd that is being restarted

tl::unexpected<Error> interrupted() {
  return fail(ErrorCode::cancelled, "interrupted");
}

}  // namespace

Result<VmState> Operations::state_of(const Call& call) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    auto state = hypervisor_.state(call.tid.instance);
    if (state || state.error().code != ErrorCode::unavailable) return state;
    if (std::chrono::steady_clock::now() > deadline) return state;
    if (!sys::pause(kPoll, call.stop)) return interrupted();
  }
}

/// The disk over a socket, for as long as not all of it is here. Notes in the record how to go on.
Result<BaseDisk> Operations::lazy_base(const Call& call, const InstanceRecord& record) {
  auto request = make_fill_request(record.lazy->source, record.lazy->grant, record.lazy->priority);
  if (!request) return fail(request.error());
  auto bytes = lazy_.serve(call.tid.instance, *request, call.stop);
  if (!bytes) return fail(bytes.error());
  return BaseDisk{{{options_.layout.nbd_socket(call.tid.instance), "raw", true}}, *bytes};
}

/// What the VM's overlay stands on, top first.
Result<BaseDisk> Operations::base_of_vm(const Call& call, InstanceRecord& record) {
  auto base = images_.base(record.imgid, record.version);
  if (!base && base.error().code == ErrorCode::not_found) {
    const auto& command = call.command;
    const bool build = base_of(call.tid) == Base::build_copy;
    if (command.lazy == 1 && command.source && !build) {
      record.lazy = LazyRecord{*command.source, command.source_grant, command.priority};
    }
    if (record.lazy && !build) return lazy_base(call, record);
    return fail(ErrorCode::not_found, record.imgid + " version " + std::to_string(record.version) +
                                          " is not on this node; prepare it first");
  }
  if (!base) return base;
  lazy_.drop(call.tid.instance);
  record.lazy.reset();
  if (base_of(call.tid) == Base::cached_version) return base;
  const auto file = options_.layout.build(call.tid.target);
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored))
    return fail(ErrorCode::not_found, file.string() + " is not there; prepare the build first");
  base->layers.insert(base->layers.begin(), DiskLayer{file, "qcow2"});
  return base;
}

/// The overlay the VM writes to: new for a desktop, kept for a build or modify.
Result<> Operations::make_disk(const Call& call, VmSpec& spec) {
  const auto& layout = options_.layout;
  const auto& insid = call.tid.instance;
  const auto overlay = layout.overlay(insid);
  auto found = read_record(layout, insid);
  if (!found) return fail(found.error());
  std::optional<InstanceRecord> record = std::move(*found);
  std::error_code ignored;
  const bool exists = std::filesystem::exists(overlay, ignored);
  const bool build = base_of(call.tid) == Base::build_copy;
  if (!build && !call.command.source)
    return fail(ErrorCode::invalid_argument, "image/run without source", "source");
  if (build && !record) return fail(ErrorCode::not_found, "the build was not prepared on this node");
  if (!build && !(keeps_overlay(insid) && exists && record)) {
    record = InstanceRecord{call.tid.str(), call.command.source->imgid, call.command.source->version};
  }
  if (!build && record->version != call.command.source->version) {
    return fail(ErrorCode::conflict, "the changes of " + insid.str() + " stand on version " +
                                         std::to_string(record->version) + ", not on " +
                                         std::to_string(call.command.source->version) +
                                         "; submit or delete the task");
  }
  const bool was_lazy = record->lazy.has_value();
  auto base = base_of_vm(call, *record);
  if (!base) return fail(base.error());
  // In this order a kill leaves an overlay only with the record that belongs to it.
  const bool anew = !keeps_overlay(insid) || !exists;
  if (anew) {
    if (auto ok = remove_file(overlay); !ok) return ok;
  }
  if (anew || was_lazy != record->lazy.has_value()) {
    if (auto ok = write_record(layout, insid, *record); !ok) return ok;
  }
  if (anew) {
    if (auto ok = images_.make_overlay(base->layers.front(), base->disk_bytes, overlay); !ok) return ok;
  }
  spec.disk = {{overlay, "qcow2"}};
  spec.disk.insert(spec.disk.end(), base->layers.begin(), base->layers.end());
  return {};
}

/// The disk for the guest's first boot; without one asked for, an earlier one goes.
Result<> Operations::make_seed(const Call& call, VmSpec& spec) const {
  const auto file = options_.layout.seed(call.tid.instance);
  const auto& first_boot = call.command.runtime_option->first_boot;
  if (!first_boot) return remove_file(file);
  spec.seed = file;
  constexpr unsigned kSecret = 0600;
  return sys::write_file_atomically(file, seed_disk(call.tid.instance, *first_boot), kSecret);
}

/// What is told of them, if anything.
Result<std::string> Operations::prepare_folders(const Call& call, VmSpec& spec) const {
  if (spec.folders.empty()) return std::string();
  if (options_.folders) return options_.folders(spec, call.stop);
  spec.folders.clear();
  return std::string();
}

Result<> Operations::may_start(const Call& call) const {
  return options_.may_start ? options_.may_start(call.stop) : Result<>{};
}

Result<std::optional<VmInfo>> Operations::find_vm(const InstanceId& insid) {
  auto vms = hypervisor_.list();
  if (!vms) return fail(vms.error());
  const auto at = std::ranges::find(*vms, insid, &VmInfo::insid);
  return at == vms->end() ? std::nullopt : std::optional(std::move(*at));
}

bool Operations::is_arriving(const VmInfo& vm) const {
  std::error_code ignored;
  return vm.incoming && !std::filesystem::exists(options_.layout.taken_mark(vm.insid), ignored);
}

Result<bool> Operations::is_outdone(const Call& call) {
  auto state = state_of(call);
  if (!state && state.error().code != ErrorCode::not_found) return fail(state.error());
  auto vm = state ? find_vm(call.tid.instance) : std::optional<VmInfo>();
  if (!vm) return fail(vm.error());
  return *vm && (*vm)->incoming && (*vm)->epoch > call.command.epoch;
}

// clc has given that run up, with its ports and its password, while we were away.
Result<bool> Operations::end_older(const Call& call) {
  const auto& insid = call.tid.instance;
  auto vm = find_vm(insid);
  if (!vm) return fail(vm.error());
  if (!*vm) return false;
  const auto epoch = (*vm)->epoch;
  if (epoch == 0 || epoch >= call.command.epoch) {
    // Neither booted nor all here: to keep it would be to tell of a guest that nobody has.
    if (is_arriving(**vm))
      return fail(ErrorCode::conflict, "VM " + insid.str() + " is on its way here from another node");
    return false;
  }
  obs::warn("vm.older_ended", {{"tid", call.tid.str()}, {"epoch", epoch}, {"now", call.command.epoch}});
  auto ended = end_vm(call, std::chrono::milliseconds{0});
  if (!ended) return fail(ended.error());
  if (auto ok = drop_overlay(insid); !ok) return fail(ok.error());
  return true;
}

Operations::Final Operations::start(const Call& call) {
  const auto& insid = call.tid.instance;
  auto spec = make_spec(call.command, call.tid, options_.layout, options_.limits);
  if (!spec) return fail(spec.error());
  progress(call, Event::booting, kBooting, 0, 0, 0, "starting the VM");
  auto state = state_of(call);
  if (!state && state.error().code != ErrorCode::not_found) return fail(state.error());
  if (state) {
    auto ended = end_older(call);
    if (!ended) return fail(ended.error());
    if (*ended) state = fail(ErrorCode::not_found, "it has just been ended");
  }
  // Redone after a restart of ours: its disk is in use and must not be touched.
  if (state) {
    if (auto ok = hypervisor_.define_and_start(*spec); !ok) return fail(ok.error());
    note_leave(call);
    return final_report(call, Event::running, kRunning, "the VM runs" + limit_network(call, spec->limits));
  }
  if (auto ok = may_start(call); !ok) return fail(ok.error());
  if (auto ok = need_disk(0, "starting a VM"); !ok) return fail(ok.error());
  if (auto ok = make_disk(call, *spec); !ok) return fail(ok.error());
  if (auto ok = make_scratch(*spec); !ok) return fail(ok.error());
  if (auto ok = remove_file(options_.layout.move_mark(insid)); !ok) return fail(ok.error());
  if (auto ok = make_seed(call, *spec); !ok) return fail(ok.error());
  if (auto ok = remove_file(spec->console_log); !ok) return fail(ok.error());
  auto folders = prepare_folders(call, *spec);
  if (!folders) return fail(folders.error());
  auto warning = connect_database(call, *spec);
  if (!warning) return fail(warning.error());
  if (call.stop.stop_requested()) return interrupted();
  update_in_use();
  // Again: this process may have been stopped for minutes in between.
  if (auto ok = may_start(call); !ok) return fail(ok.error());
  if (spec->exclusive && !options_.state_dir.empty()) {
    if (auto ok = note_exclusive(options_.state_dir, insid); !ok) return fail(ok.error());
  }
  // That the one before was ended so is no news of this one.
  if (options_.was_fenced) (void)options_.was_fenced(insid);
  auto started = hypervisor_.define_and_start(*spec);
  if (!started) {
    end_start(call);
    if (auto ok = drop_overlay(insid); !ok) {
      obs::warn("overlay.not_removed", {{"tid", call.tid.str()}, {"reason", ok.error().message}});
    }
    return fail(started.error());
  }
  state = hypervisor_.state(insid);
  if (!state && state.error().code == ErrorCode::not_found) {
    end_start(call);
    return fail(ErrorCode::unavailable, "the VM ended right after its start; see its console log");
  }
  auto report = final_report(call, Event::running, kRunning,
                             "the VM runs" + limit_network(call, spec->limits) + *folders);
  report.warning = std::move(*warning);
  return report;
}

Result<bool> Operations::end_vm(const Call& call, std::chrono::milliseconds grace) {
  const auto& insid = call.tid.instance;
  const auto begun = std::chrono::steady_clock::now();
  const bool is_away = is_handed_over(insid);
  bool pressed = grace.count() == 0 || is_away;
  // A guest that stands still does not feel the button.
  if (auto state = hypervisor_.state(insid); !pressed && state && *state == VmState::paused)
    (void)hypervisor_.resume(insid);
  bool hard = false;
  for (;;) {
    const auto waited = std::chrono::steady_clock::now() - begun;
    Result<> done;
    if (!pressed) {
      done = hypervisor_.shutdown(insid);
      pressed = done.has_value();
    } else if (waited >= grace || is_away) {
      hard = hypervisor_.state(insid).has_value() || hard;
      done = hypervisor_.destroy(insid);
    }
    auto state = hypervisor_.state(insid);
    if (!state && state.error().code == ErrorCode::not_found) return hard;
    // A guest without ACPI refuses the button: then it is the plug's turn.
    if (!done && done.error().code != ErrorCode::unavailable && !pressed) pressed = true;
    if (waited > grace + kPatience) {
      return fail(done ? Error{ErrorCode::timeout, "VM " + insid.str() + " does not end", {}} : done.error());
    }
    if (!sys::pause(kPoll, call.stop)) return interrupted();
  }
}

Operations::Final Operations::stop(const Call& call) {
  auto outdone = is_outdone(call);
  if (!outdone) return fail(outdone.error());
  if (*outdone) return final_report(call, Event::stopped, kStopped, "the VM here is a later one");
  auto hard = end_vm(call, options_.stop_grace);
  if (!hard) return fail(hard.error());
  if (auto ok = end_database(call, std::pair(Event::running, kRunning)); !ok) return fail(ok.error());
  if (auto ok = drop_overlay(call.tid.instance); !ok) return fail(ok.error());
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(options_.stop_grace).count();
  return final_report(
      call, Event::stopped, kStopped,
      *hard ? "the guest did not power off within " + std::to_string(seconds) + " s and was switched off"
            : std::string("the guest powered off"));
}

Operations::Final Operations::remove(const Call& call) {
  const auto& layout = options_.layout;
  auto outdone = is_outdone(call);
  if (!outdone) return fail(outdone.error());
  if (*outdone) return final_report(call, Event::deleted, kDeleting, "the VM here is a later one");
  auto ended = end_vm(call, std::chrono::milliseconds{0});
  if (!ended) return fail(ended.error());
  if (auto ok = remove_database(call); !ok) return fail(ok.error());
  networks_.drop(call.tid.instance);
  lazy_.drop(call.tid.instance);
  if (!options_.state_dir.empty()) strike_exclusive(options_.state_dir, call.tid.instance);
  std::vector<std::filesystem::path> theirs{layout.instance(call.tid.instance)};
  if (call.tid.is_build()) theirs.push_back(layout.build_folder(call.tid.target));
  for (const auto& path : theirs) {
    if (auto ok = remove_tree(path); !ok) return fail(ok.error());
  }
  return final_report(call, Event::deleted, kDeleting, "nothing of the task is left on the node");
}

std::optional<Job> Operations::vm_ended(const Job& job, std::stop_token stop) {
  const auto entry = inbox_.find(job.command.tid);
  // A command that came meanwhile sees for itself; a task that is not up has nothing to lose.
  if (!entry || entry->command.cmdid != job.command.cmdid || !is_up(*entry)) return std::nullopt;
  auto tid = TaskId::parse(job.command.tid);
  if (!tid) return std::nullopt;
  auto state = hypervisor_.state(tid->instance);
  if (state || state.error().code != ErrorCode::not_found) return std::nullopt;
  const Call call{job.command, std::move(*tid), {}};
  if (has_newer_copy(call.tid.instance)) {
    Job rest = job;
    rest.gives_back = true;
    if (!job.gives_back) return rest;
    bool is_put_off = false;
    const Call giving{job.command, call.tid, std::move(stop), true, &is_put_off};
    if (!return_copy(giving, std::pair(Event::running, kRunning))) {
      // Interrupted: a newer command sees to it, or the next start of this daemon.
      if (!is_put_off) return std::nullopt;
      rest.not_before = std::chrono::steady_clock::now() + options_.give_back_again;
      return rest;
    }
  }
  // The command that came last may have been about something else.
  const bool has_database = call.command.database || has_open_database(call.tid.instance);
  close_database(call);
  if (auto ok = drop_overlay(call.tid.instance); !ok) {
    obs::warn("overlay.not_removed", {{"tid", call.tid.str()}, {"reason", ok.error().message}});
  }
  obs::info("vm.ended", {{"tid", call.tid.str()}, {"detail", job.detail}, {"crashed", job.crashed}});
  auto report = final_report(call, job.crashed ? Event::failed : Event::stopped, kStopped, job.detail);
  if (has_database && options_.was_fenced && options_.was_fenced(call.tid.instance)) {
    report.event = Event::lost;
    report.error =
        Error{ErrorCode::unavailable,
              "this node had heard nothing of clc for 45 s, and a server must not run twice: start it again",
              {}};
  } else if (job.crashed) {
    report.error = Error{ErrorCode::unavailable, job.detail + "; start it again", {}};
  }
  if (auto told = inbox_.report(report); !told) {
    obs::warn("operation.not_told", {{"tid", call.tid.str()}, {"reason", told.error().message}});
  }
  update_in_use();
  return std::nullopt;
}

}  // namespace educloud::nc
