#include "clc/app/engine.hpp"

#include "clc/store/accounts.hpp"
#include "common/base/ids.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {

using task::Action;
using task::Event;

namespace {

constexpr task::TaskState kStopped{task::Phase::editing, task::State::stopped};

/// Users upload an image; a disk for data is made by walrus.
std::string_view import_op(store::Sql& sql, const Task& task) {
  const auto image = store::find_image(sql, task.dst);
  return image && image->usage == "database" ? "image/blank" : "image/import";
}

tl::unexpected<Error> vanished(std::string_view what) {
  return fail(ErrorCode::not_found, std::string(what) + " is not there any more");
}

}  // namespace

void Engine::on_outbox(std::function<void()> wake) {
  wake_ = std::move(wake);
}

Result<Task> Engine::begin(store::Sql& sql, Task task, const std::vector<int>& versions) {
  task.created_at = task.updated_at = now();
  // A desktop has the same task id at each run; whatever is still under way of an earlier run must lose.
  if (const auto earlier = store::find_task(sql, task.tid)) task.epoch = earlier->epoch + 1;
  // A push says itself which version goes where.
  if (!is_walrus_task(task.kind) && task.kind != TaskKind::push) {
    if (auto ok = place(sql, task); !ok) return fail(ok.error());
  }
  task.id = store::add_task(sql, task);
  Result<> sent;
  switch (task.kind) {
    case TaskKind::import: sent = send(sql, task, import_op(sql, task)); break;
    case TaskKind::use: sent = send(sql, task, "image/use"); break;
    case TaskKind::prune: sent = send(sql, task, "image/prune", versions); break;
    case TaskKind::remove: sent = send(sql, task, "image/delete", versions); break;
    case TaskKind::modify:
    case TaskKind::build:
    case TaskKind::push:
    case TaskKind::run: sent = send(sql, task, "image/prepare"); break;
  }
  if (!sent) return fail(sent.error());
  store::update_task(sql, task);
  changed(sql, task);
  obs::info("task.created", {{"tid", task.tid}, {"kind", to_string(task.kind)}, {"node", task.node}});
  return task;
}

Result<Task> Engine::user_event(store::Sql& sql, Task task, Event event) {
  auto row = user_transition(task, event);
  if (!row) return fail(row.error());
  if (event == Event::submit) {
    const auto image = store::find_image(sql, task.dst);
    if (!image) return vanished("image " + task.dst);
    if (auto ok = check_source_in_use(task, image->current_version); !ok) return fail(ok.error());
  }
  if (event == Event::start && task.kind != TaskKind::push) {
    const std::string old_node = task.node, old_cluster = task.cluster;
    if (auto ok = place(sql, task); !ok) return fail(ok.error());
    // The cc may know a higher epoch of its disk than we do: of a move that came to nothing, or of the time
    // since the backup that our database was restored from.
    if (task.kind == TaskKind::run && has_disk(sql, task)) ++task.epoch;
    if (task.node != old_node) {
      // Nothing of a stopped desktop is worth carrying over. The old node is told to forget it; its answer
      // is not awaited, and a new epoch makes whatever it still says about it too old to count.
      Task old = task;
      old.node = old_node;
      old.cluster = old_cluster;
      say_farewell(sql, std::move(old), 3'600'000);
      store::free_ports(sql, task.insid);
      ++task.epoch;
    }
  }
  if (auto ok = apply(sql, task, *row, nullptr); !ok) return fail(ok.error());
  return task;
}

Result<Task> Engine::operate(store::Sql& sql, Task task, Operation operation) {
  auto row = user_transition(task, Event::operate);
  if (!row) return fail(row.error());
  operation_ = std::move(operation);
  auto ok = apply(sql, task, *row, nullptr);
  operation_.reset();
  if (!ok) return fail(ok.error());
  return task;
}

Result<Task> Engine::force_end(store::Sql& sql, Task task) {
  if (is_walrus_task(task.kind)) return fail(ErrorCode::conflict, "task " + task.tid + " is on no node");
  if (task.state.state == task::State::gone)
    return fail(ErrorCode::conflict, "task " + task.tid + " has ended");
  const auto node = store::find_node(sql, task.node);
  const bool registered = node && node->cluster == task.cluster;
  const auto silence_ms = heartbeats_.silence_ms(task.node, task.cluster);
  if (registered && silence_ms <= kSilenceMs && node->lost_at == 0) {
    return fail(ErrorCode::conflict,
                "node " + task.node + " was heard of, or clc started, " + std::to_string(silence_ms / 1000) +
                    " s ago: cancel without force, or wait until it has been silent for " +
                    std::to_string(kSilenceMs / 60'000) + " min");
  }
  if (!task::step(task.state, Event::deleted)) {
    const auto row = task::step(task.state, Event::cancel);
    if (!row) return fail(ErrorCode::internal, "a task that cannot be cancelled");
    if (auto ok = apply(sql, task, *row, nullptr); !ok) return fail(ok.error());
  }
  const auto gone = task::step(task.state, Event::deleted);
  if (!gone) return fail(ErrorCode::internal, "a task that cannot end");
  say_farewell(sql, task, 7 * 24 * 3'600'000LL);
  const bool leaves_disk = has_disk(sql, task) && disk_goes(sql, task);
  if (auto ok = apply(sql, task, *gone, nullptr); !ok) return fail(ok.error());
  if (leaves_disk) remove_left_disk(sql, task);
  obs::warn("task.forced", {{"tid", task.tid}, {"node", task.node}, {"node_silent_s", silence_ms / 1000}});
  return task;
}

/// `was` as it stood on the node that is to forget it.
void Engine::say_farewell(store::Sql& sql, Task was, std::int64_t patience_ms) {
  ++was.attempt;
  const auto farewell = make_command(was, "task/delete", {}, new_command_id().str(), now(), patience_ms);
  queue_command(sql, was, msg::serialize(farewell), farewell.deadline);
}

Result<> Engine::accepted(store::Sql& sql, Task task, const Judgement& judgement,
                          const msg::TaskStatus& status) {
  task::Transition row = *judgement.transition;
  measure(task, row.event, status);
  if (row.event == Event::lost) return fenced(sql, std::move(task), status);
  if (row.event == Event::failed && task.op == "image/stop" && task.state.phase == task::Phase::editing &&
      task.state.state != task::State::deleting) {
    return stop_failed(sql, std::move(task), status);
  }
  if (row.event == Event::running && task.op == "instance/migrate" && status.final == 1)
    return moved(sql, std::move(task), row, status);
  if (row.event == Event::failed && task.op == "image/run" && status.seq == 0)
    return run_undeliverable(sql, std::move(task), status);
  if (row.event == Event::failed && task.op == "image/submit") {
    msg::TaskStatus told = status;
    const auto image = store::find_image(sql, task.dst);
    const auto in_use = image ? check_source_in_use(task, image->current_version) : Result<>{};
    if (!in_use) told.errormsg = in_use.error().message + " (" + status.errormsg + ")";
    return apply(sql, task, row, &told);
  }
  if (row.action != Action::publish_version || is_maintenance(task.kind))
    return apply(sql, task, row, &status);
  // A node cannot make a version by saying so: without walrus' signature the submit has failed.
  auto version = version_from_receipt(task, status.receipt, options_.data_key);
  if (version && !is_walrus_task(task.kind)) {
    // Both disks or none: a server's data without its programs, or the other way round, is no version.
    auto database = submitted_database(sql, task, status.database_receipt);
    if (!database) version = fail(database.error());
  }
  if (!version) {
    obs::error("task.bad_receipt",
               {{"tid", task.tid}, {"node", task.node}, {"error", version.error().message}});
    const auto failed = task::step(task.state, Event::failed);
    if (!failed) return fail(ErrorCode::internal, "no way to fail from here");
    msg::TaskStatus refused = status;
    refused.errormsg = "the submit was refused: " + version.error().message + "; submit again";
    return apply(sql, task, *failed, &refused);
  }
  return apply(sql, task, row, &status);
}

/// The VM was not ended, so the task stays where it is and keeps its ports; a stop of a VM that runs is sent
/// anew when its time is up.
Result<> Engine::stop_failed(store::Sql& sql, Task task, const msg::TaskStatus& status) {
  task.seq = status.seq;
  task.news_at = task.updated_at = now();
  task.errormsg = status.errormsg.substr(0, 2000);
  obs::warn("task.not_stopped", {{"tid", task.tid}, {"node", task.node}, {"error", task.errormsg}});
  store::update_task(sql, task);
  changed(sql, task);
  return {};
}

/// The cc says that its node has no queue (its seq is 0, a node's never is). Another copy of the command may
/// be under way all the same: the VM counts as stopped, and its ports are free, when the node has said so.
Result<> Engine::run_undeliverable(store::Sql& sql, Task task, const msg::TaskStatus& status) {
  const auto row = task::step(task.state, Event::timeout);
  if (!row) return fail(ErrorCode::internal, "no way to give up a boot from here");
  task.errormsg = status.errormsg.substr(0, 2000);
  return apply(sql, task, *row, nullptr);
}

Result<> Engine::timed_out(store::Sql& sql, Task task) {
  if (task.gated_at > 0) {
    // Nothing was started for it: there is nothing to stop, and no answer to wait for.
    if (auto ok = fail_here(task, timeout_text(task)); !ok) return ok;
    store::update_task(sql, task);
    changed(sql, task);
    return {};
  }
  // An operation that is not answered leaves the VM as it is; its inventory tells what became of it.
  const bool harmless = task.op_open && is_operation(task.op);
  const auto row = task::step(task.state, harmless ? Event::refused : Event::timeout);
  if (!row) return {};
  task.errormsg = timeout_text(task);
  obs::warn("task.timeout", {{"tid", task.tid}, {"op", task.op}, {"node", task.node}});
  return apply(sql, task, *row, nullptr);
}

void Engine::resend(store::Sql& sql, Task task) {
  if (task.command.empty()) return;
  auto command = msg::parse<msg::Command>(task.command);
  if (!command) return;
  ++task.resends;
  if (store::is_in_outbox(sql, task.cmdid)) {
    // The broker is away: one copy waiting is enough, else they would pile up for as long as it is.
    task.cmd_sent_at = now();
    store::update_task(sql, task);
    return;
  }
  // It is still wanted, so it may still be begun; whoever has it already goes by its cmdid and repeats its
  // status.
  command->deadline = std::max(command->deadline, now() + 60'000);
  queue_command(sql, task, msg::serialize(*command), command->deadline);
  task.cmd_sent_at = now();
  store::update_task(sql, task);
  obs::metrics().count("educloud_clc_commands_resent_total", "Commands sent again for want of news");
}

Result<> Engine::apply(store::Sql& sql, Task& task, const task::Transition& row,
                       const msg::TaskStatus* status) {
  const bool moved = task.state != row.to;
  const bool moves = task.op_open && task.op == "instance/migrate";
  const std::string order = moves ? task.command : "";
  const bool takes_snapshot = task.op_open && task.op.starts_with("snapshot/");
  const std::optional<Task> before = takes_snapshot ? std::optional(task) : std::nullopt;
  task = after_event(std::move(task), row, status, now());
  if (task.state.phase == task::Phase::preparing) task.leaves_at = 0;
  if (moves && !task.op_open) end_move(sql, task, row.event);
  // Any command that follows takes the move's place.
  if (moves && (!task.op_open || row.action != Action::none)) turn_away(sql, order);
  if (before) follow_snapshot(sql, *before, task, row, status);
  if (auto ok = act(sql, task, row.action, status); !ok) return ok;
  if (auto ok = after(sql, task, row.event); !ok) return ok;
  store::update_task(sql, task);
  changed(sql, task);
  if (moved && !is_walrus_task(task.kind)) {
    if (auto ok = open_gate(sql, task.node); !ok) return ok;
  }
  if (moved || task.failed) {
    obs::info("task.state", {{"tid", task.tid},
                             {"phase", to_string(task.state.phase)},
                             {"state", to_string(task.state.state)},
                             {"event", to_string(row.event)},
                             {"failed", task.failed},
                             {"error", task.errormsg}});
    obs::metrics().count("educloud_clc_task_transitions_total", "Transitions of tasks, by event", 1,
                         {{"event", std::string(to_string(row.event))}});
  }
  return {};
}

Result<> Engine::act(store::Sql& sql, Task& task, Action action, const msg::TaskStatus* status) {
  switch (action) {
    case Action::none: return {};
    case Action::send_prepare: return send(sql, task, "image/prepare");
    case Action::send_run: return run_or_wait(sql, task);
    case Action::send_stop: return send(sql, task, "image/stop");
    case Action::send_operation:
      if (!operation_) return fail(ErrorCode::internal, "an operation that nobody asked for");
      return send(sql, task, operation_->op);
    case Action::send_submit: {
      if (task.kind == TaskKind::import) return send(sql, task, import_op(sql, task));
      if (task.kind == TaskKind::use) return send(sql, task, "image/use");
      if (is_maintenance(task.kind)) {
        const auto last = msg::parse<msg::Command>(task.command);
        return send(sql, task, task.op, last ? last->versions : std::vector<int>{});
      }
      return send(sql, task, "image/submit");
    }
    case Action::send_delete: {
      if (!is_maintenance(task.kind)) return send(sql, task, "task/delete");
      // Nobody holds anything of an upkeep task: it is over.
      const auto gone = task::step(task.state, Event::deleted);
      if (!gone) return fail(ErrorCode::internal, "an upkeep task cannot end from here");
      return apply(sql, task, *gone, nullptr);
    }
    case Action::publish_version: {
      if (is_maintenance(task.kind)) return finish_upkeep(sql, task);
      if (auto ok = publish_version(sql, task, status); !ok) return ok;
      return send(sql, task, "task/delete");
    }
    case Action::release: release(sql, task); return {};
  }
  return {};
}

Result<> Engine::after(store::Sql& sql, Task& task, Event event) {
  note_disk(sql, task, event);
  const bool ended = event == Event::stopped || event == Event::failed;
  if (is_walrus_task(task.kind) || task.state != kStopped || !ended) return {};
  store::free_ports(sql, task.insid);
  if (task.kind != TaskKind::run) return {};
  if (task.leaves_at > now()) task.leaves_at = 0;  // it was not the drain that ended it
  explain_stop(sql, task);
  if (task.failed) return {};
  const auto instance = store::find_instance(sql, task.insid);
  if (!instance || (!task.insid.starts_with("TVD") && !instance->deleting)) return {};
  const auto row = task::step(task.state, Event::cancel);
  return row ? apply(sql, task, *row, nullptr) : Result<>{};
}

void Engine::queue_command(store::Sql& sql, const Task& task, const std::string& body,
                           std::int64_t deadline_at) {
  store::OutboxRow row;
  const bool walrus = is_walrus_task(task.kind);
  row.exchange = walrus ? "walrus_cmd" : "cc_cmd";
  row.routing_key = walrus ? "walrus" : task.cluster;
  row.body = body;
  row.msgid = new_command_id().str();
  row.deadline_at = deadline_at;
  store::add_outbox(sql, row, now());
  sql.after_commit([this] { wake_(); });
}

void Engine::changed(store::Sql& sql, const Task& task) {
  sql.after_commit([this, seen = view(sql, task)] { events_.publish(seen); });
}

TaskView Engine::view(store::Sql& sql, const Task& task) const {
  TaskView view;
  view.task = task;
  if (const auto image = store::find_image(sql, task.dst)) view.image_name = image->name;
  if (const auto instance = store::find_instance(sql, task.insid)) view.instance_name = instance->name;
  if (task.gated_at > 0) show_queue(sql, view);
  show_warning(view);
  return view;
}

}  // namespace educloud::clc
