#include "clc/domain/task_rules.hpp"

#include <tuple>

#include "clc/domain/boot_gate.hpp"

namespace educloud::clc {
namespace {

using task::Event;
using task::Phase;
using task::State;

constexpr task::TaskState kStopped{Phase::editing, State::stopped};
constexpr task::TaskState kRunning{Phase::editing, State::running};
constexpr task::TaskState kPaused{Phase::editing, State::paused};
constexpr task::TaskState kMigrating{Phase::editing, State::migrating};
constexpr task::TaskState kDeleting{Phase::editing, State::deleting};
constexpr task::TaskState kSubmitInit{Phase::submitting, State::init};
constexpr task::TaskState kSubmitted{Phase::submitting, State::done};

std::string where(const Task& task) {
  return std::string(to_string(task.state.phase)) + "/" + std::string(to_string(task.state.state)) +
         (task.failed ? " (failed)" : "");
}

tl::unexpected<Error> refuse(const Task& task, std::string_view what, std::string_view instead) {
  return fail(ErrorCode::conflict, "task " + task.tid + " is at " + where(task) + " and cannot be " +
                                       std::string(what) + ": " + std::string(instead));
}

/// What a node says that a VM which ran is at, if it says any of that.
std::optional<Event> vm_event(const Task& task, std::string_view told) {
  if (task.state != kRunning && task.state != kPaused && task.state != kMigrating) return std::nullopt;
  if (told == to_string(State::running)) return Event::running;
  if (told == to_string(State::paused)) return Event::paused;
  if (told == to_string(State::stopped)) return Event::failed;
  return std::nullopt;
}

/// Its node has ended the VM, because it might have begun elsewhere for all that it knew.
bool is_fenced(const Task& task, const msg::TaskStatus& status) {
  return status.final == 1 && status.seq > 0 && (task.state == kRunning || task.state == kPaused);
}

bool edits_image(const Task& task) {
  return task.kind == TaskKind::modify || task.kind == TaskKind::build;
}

}  // namespace

bool is_operation(std::string_view op) {
  return op.starts_with("instance/") || op.starts_with("snapshot/");
}

std::int64_t resend_after_ms(std::int64_t resends) {
  return std::min(kResendMs << std::clamp<std::int64_t>(resends, 0, 8), kLongestResendMs);
}

Result<task::Transition> user_transition(const Task& task, Event event) {
  const auto row = task::step(task.state, event);
  switch (event) {
    case Event::start:
      if (is_walrus_task(task.kind)) return refuse(task, "started", "it has no VM");
      if (task.op_open && task.state != kStopped) return refuse(task, "started", "it is under way already");
      if (!row) return refuse(task, "started", "it has to be stopped first");
      break;
    case Event::stop:
      if (is_walrus_task(task.kind)) return refuse(task, "stopped", "it has no VM");
      if (!row) return refuse(task, "stopped", "its VM does not run; cancel it instead");
      break;
    case Event::submit:
      if (task.kind == TaskKind::run)
        return refuse(task, "submitted", "only a modify or build makes a new version");
      if (is_maintenance(task.kind) && !task.failed) return refuse(task, "submitted", "it is under way");
      if (task.kind == TaskKind::import && !task.failed)
        return refuse(task, "submitted", "it waits for its upload");
      if (edits_image(task) && task.state == kSubmitInit && !task.failed) {
        return refuse(task, "submitted", "it is being submitted already");
      }
      if (!row) return refuse(task, "submitted", "stop its VM first");
      break;
    case Event::operate:
      if (is_walrus_task(task.kind) || task.kind == TaskKind::push || !row)
        return refuse(task, "changed that way", "it has no VM that runs");
      if (task.op_open) return refuse(task, "changed that way", "it is busy with " + task.op);
      break;
    case Event::cancel:
      if (is_maintenance(task.kind) && !task.failed) {
        return refuse(task, "cancelled", "walrus is carrying it out; it takes seconds");
      }
      // Given up by time only: were its marks lifted now, versions that walrus still removes would seem
      // usable.
      if (is_maintenance(task.kind) && task.seq < 0)
        return refuse(task, "cancelled", "walrus has not answered and may still do it; submit it again");
      if (task.state == kSubmitted)
        return refuse(task, "cancelled", "its version is published; it is being tidied up");
      if (!row) return refuse(task, "cancelled", "it has ended");
      break;
    default: return refuse(task, "changed", "only a node tells that");
  }
  return *row;
}

Result<> check_source_in_use(const Task& task, int current) {
  if (task.kind != TaskKind::modify || task.replace || current == task.source_version) return {};
  const std::string theirs = std::to_string(current), ours = std::to_string(task.source_version);
  return fail(
      ErrorCode::conflict,
      "version " + ours + " of " + task.dst + ", which task " + task.tid +
          " changed, is not in use any more: version " + theirs +
          " is, and this change does not hold what that one brought. Nothing was published and nothing is "
          "lost. Either submit again with on_conflict=replace: the change becomes the next version "
          "and is in use, version " +
          theirs + " stays listed and can be rolled back to. Or cancel the task: the change is discarded",
      "on_conflict");
}

Result<> check_format(const Version& version) {
  if (version.format == "raw") return {};
  return fail(ErrorCode::conflict, "version " + std::to_string(version.version) + " of " + version.imgid +
                                       " is a " + version.format +
                                       " file from before images were kept as chunks: import it again from "
                                       "walrus' images/" +
                                       version.imgid + "/versions/" + std::to_string(version.version) +
                                       "/machine");
}

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::accept: return "accept";
    case Verdict::duplicate: return "duplicate";
    case Verdict::stale: return "stale";
    case Verdict::other_command: return "other_command";
    case Verdict::wrong_sender: return "wrong_sender";
    case Verdict::not_allowed: return "not_allowed";
    case Verdict::malformed: return "malformed";
  }
  return "malformed";
}

Judgement judge_status(const Task& task, const msg::TaskStatus& status, std::string_view sender) {
  Judgement out;
  const bool from_walrus = is_walrus_task(task.kind);
  const bool right_sender = from_walrus ? sender == "walrus" && status.nid.empty()
                                        : sender == "cc-" + task.cluster && status.nid == task.node;
  if (!right_sender) {
    out.verdict = Verdict::wrong_sender;
    return out;
  }
  if (status.cmdid != task.cmdid || task.cmdid.empty()) {
    out.verdict = Verdict::other_command;
    return out;
  }
  const auto theirs = std::tuple(status.epoch, status.attempt, status.seq);
  const auto ours = std::tuple(task.epoch, task.attempt, task.seq);
  if (theirs <= ours) {
    out.verdict = theirs == ours ? Verdict::duplicate : Verdict::stale;
    return out;
  }
  const auto event = task::parse_event(status.event);
  if (!event || *event == Event::start || *event == Event::submit || *event == Event::cancel ||
      *event == Event::stop || *event == Event::operate || *event == Event::timeout ||
      *event == Event::fetched || (*event == Event::lost && !is_fenced(task, status))) {
    return out;  // those are ours to say
  }
  out.event = *event;
  // Upkeep of an image has one step; "deleted" is walrus' natural word for the end of a prune.
  if (is_maintenance(task.kind) && *event == Event::deleted && task.state == kSubmitInit)
    out.event = Event::submitted;
  // A push wants the version on the node and no VM.
  if (task.kind == TaskKind::push && *event == Event::prepared) out.event = Event::fetched;
  const auto vm = status.seq > 0 && out.event == Event::refused ? vm_event(task, status.state) : std::nullopt;
  if (vm == Event::failed) out.event = Event::failed;
  out.transition = task::step(task.state, out.event);
  // Refused is the operation; where the VM is by now its node says, and the row for that takes it there.
  if (const auto row = vm ? task::step(task.state, *vm) : std::nullopt; row && out.transition)
    out.transition->to = row->to;
  out.verdict = out.transition ? Verdict::accept : Verdict::not_allowed;
  return out;
}

bool answers(std::string_view op, Event event) {
  if (event == Event::failed) return true;
  if (op == "image/prepare") return event == Event::prepared || event == Event::fetched;
  if (op == "image/run") return event == Event::running || event == Event::stopped;
  if (op == "image/stop") return event == Event::stopped;
  if (op == "task/delete") return event == Event::deleted;
  return event == Event::submitted || event == Event::deleted;  // submit, import and walrus' upkeep
}

Task after_event(Task task, const task::Transition& transition, const msg::TaskStatus* status,
                 std::int64_t now_ms) {
  const bool moved = task.state != transition.to;
  task.state = transition.to;
  if (moved) task.gated_at = 0;
  task.updated_at = now_ms;
  if (status) {
    task.seq = status->seq;
    task.resends = 0;
    task.news_at = now_ms;
    task.progress = status->progress;
    task.bytes_done = status->bytes_done;
    task.bytes_total = status->bytes_total;
    task.bytes_per_s = status->bytes_per_s;
    task.prompt = status->prompt.substr(0, 500);
  } else if (moved) {
    task.progress = 0;
    task.bytes_done = task.bytes_total = task.bytes_per_s = 0;
  }
  switch (transition.event) {
    case Event::failed:
      task.failed = true;
      task.errormsg =
          status && !status->errormsg.empty() ? status->errormsg.substr(0, 2000) : "failed without a reason";
      break;
    case Event::timeout: task.failed = true; break;
    case Event::refused:  // the VM is as well as it was
      if (status) task.errormsg = status->errormsg.substr(0, 2000);
      break;
    default:
      task.failed = false;
      // It went well, but for something that its user has to know.
      task.errormsg = status ? status->errormsg.substr(0, 2000) : "";
  }
  // An operation tells the VM's state all the while; its last word is its answer.
  const bool answered =
      status && (is_operation(task.op) ? status->final == 1 : answers(task.op, transition.event));
  if (answered || transition.event == Event::refused) task.op_open = false;
  // Given up: the user decides, so nothing is sent again behind his back.
  if (transition.event == Event::timeout && transition.action == task::Action::none) task.op_open = false;
  if (task.kind == TaskKind::run && transition.event == Event::running) task.achieved = true;
  if (transition.event == Event::fetched) task.achieved = true;
  if (task.state.state == State::gone) {
    task.ended_at = now_ms;
    task.op_open = false;
  }
  const std::int64_t patience = patience_ms(task);
  task.deadline_at = patience == 0 ? 0 : now_ms + patience;
  return task;
}

std::int64_t patience_ms(const Task& task) {
  constexpr std::int64_t kMinute = 60'000;
  if (task.state.state == State::gone) return 0;
  if (task.gated_at > 0) return BootGate::kPatienceMs;
  if (task.state == kDeleting || task.state == kSubmitted)
    return kMinute;  // asked again for as long as it takes
  if (task.op_open && is_operation(task.op)) return 10 * kMinute;
  if (task.state == kRunning || task.state == kPaused)
    return task.op_open && task.op == "image/stop" ? 3 * kMinute : 0;
  if (task.state == kStopped || !task.op_open) return 0;
  if (is_maintenance(task.kind)) return 10 * kMinute;
  if (task.kind == TaskKind::push) return 60 * kMinute;         // whoever waits for a desktop goes first
  if (task.kind == TaskKind::import) return 24 * 60 * kMinute;  // people go home in the middle of an upload
  switch (task.state.state) {
    case State::init: return task.state.phase == Phase::preparing ? 5 * kMinute : 30 * kMinute;
    case State::downloading: return 10 * kMinute;
    case State::cloning: return 15 * kMinute;
    case State::uploading: return 30 * kMinute;  // walrus checks and syncs a large image in silence
    case State::done: return 3 * kMinute;
    case State::booting: return 10 * kMinute;
    default: return 10 * kMinute;
  }
}

std::string timeout_text(const Task& task) {
  if (task.gated_at > 0) {
    return "waited " + std::to_string(patience_ms(task) / 60'000) + " min in the boot queue of " + task.node +
           ": start it again, or see what boots there (educloud task list)";
  }
  const std::string who = is_walrus_task(task.kind) ? "walrus" : "node " + task.node;
  const std::string what = task.op.empty() ? "the task" : task.op;
  return "no answer or progress from " + who + " on " + what + " for " +
         std::to_string(patience_ms(task) / 60'000) +
         " min: check that it is up and reaches the broker, then " +
         (task.state.phase == Phase::submitting ? "submit again or cancel" : "start again or cancel");
}

bool needs_source(const Task& task) {
  if (task.state.state == State::gone || is_maintenance(task.kind) || task.kind == TaskKind::import)
    return false;
  if (task.kind == TaskKind::run) return task::holds_capacity(task.state);
  if (task.kind == TaskKind::push) return task.state.phase == Phase::preparing;
  return true;
}

std::string_view vm_state(const Task& task) {
  if (task.state.state == State::deleting) return "deleting";
  if (task.failed) return "failed";
  if (task.state.phase == Phase::preparing)
    return task.state.state == State::done && task.gated_at == 0 ? "booting" : "preparing";
  if (task.state.phase == Phase::submitting) return "submitting";
  return to_string(task.state.state);
}

}  // namespace educloud::clc
