// Snapshots of a VM: rows that follow what its node says (engine_snapshots.cpp).
#include "clc/app/cloud_impl.hpp"
#include "clc/store/snapshots.hpp"
#include "common/base/random.hpp"

namespace educloud::clc {
namespace {

bool is_stopped(const Task& task) {
  return task.state.phase == task::Phase::editing && task.state.state == task::State::stopped;
}

/// A desktop's next start throws its overlay away, so what lies in that is of no use once it has stopped.
bool is_ended_desktop(const Task& task) {
  return task.kind == TaskKind::run && is_stopped(task);
}

Result<Task> task_with_overlay(store::Sql& sql, const Instance& instance) {
  auto open = store::open_task_of_instance(sql, instance.insid);
  if (!open)
    return fail(ErrorCode::conflict, "instance " + instance.insid + " does not run: it has no disk yet");
  if (is_ended_desktop(*open)) {
    return fail(
        ErrorCode::conflict,
        "instance " + instance.insid +
            " has stopped, and a desktop's disk begins anew at each start: its snapshots are of one run");
  }
  return std::move(*open);
}

/// Of the operation that is being carried out on it, else as it is kept.
SnapshotView view_of(const Snapshot& snapshot, const std::optional<Task>& task) {
  SnapshotView view{snapshot, snapshot.state, task ? task->tid : ""};
  const bool under_way = task && task->op_open && task->op.starts_with("snapshot/");
  const auto command = under_way ? msg::parse<msg::Command>(task->command) : Result<msg::Command>();
  const bool mine = under_way && command && command->snapshot == snapshot.snapid;
  // Its command was replaced in a way that left no trace here, such as by an older copy of the database.
  if (!mine && snapshot.state == "taking") view.state = "failed";
  if (mine && task->op == "snapshot/restore") view.state = "restoring";
  if (mine && task->op == "snapshot/delete") view.state = "deleting";
  return view;
}

/// 32 random bits do collide some day.
std::string free_snapshot_id(store::Sql& sql) {
  std::string id;
  do id = "snap-" + random_hex(4);
  while (store::is_snapshot(sql, id));
  return id;
}

Result<Snapshot> snapshot_of(store::Sql& sql, const Instance& instance, std::string_view snapid) {
  if (auto ok = check_snapshot_id(snapid); !ok) return fail(ok.error());
  auto one = store::find_snapshot(sql, instance.insid, snapid);
  if (!one)
    return fail(ErrorCode::not_found, instance.insid + " has no snapshot " + std::string(snapid), "snapid");
  return std::move(*one);
}

Operation operation_on(std::string op, const Snapshot& snapshot) {
  Operation out;
  out.op = std::move(op);
  out.snapshot = snapshot.snapid;
  out.with_memory = snapshot.with_memory;
  return out;
}

}  // namespace

Result<Page<SnapshotView>> Cloud::snapshots(const Principal& who, std::string_view insid) {
  auto& impl = *impl_;
  return impl.store.read([&](store::Sql& sql) -> Result<Page<SnapshotView>> {
    auto instance = impl.instance(sql, who, Deed::see_vm, insid);
    if (!instance) return fail(instance.error());
    const auto task = store::open_task_of_instance(sql, instance->insid);
    Page<SnapshotView> out;
    for (const auto& one : store::list_snapshots(sql, instance->insid))
      out.items.push_back(view_of(one, task));
    return out;
  });
}

Result<SnapshotView> Cloud::take_snapshot(const Principal& who, std::string_view insid,
                                          const NewSnapshot& request) {
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<SnapshotView> {
    auto instance = impl.instance(sql, who, Deed::control_vm, insid);
    if (!instance) return fail(instance.error());
    auto task = task_with_overlay(sql, *instance);
    if (!task) return fail(task.error());
    if (request.memory && is_stopped(*task))
      return fail(ErrorCode::conflict, instance->insid + " has stopped: there is no memory to keep",
                  "memory");
    if (store::count_snapshots(sql, instance->insid) >= impl.options.max_snapshots) {
      return fail(ErrorCode::exhausted,
                  instance->insid + " has " + std::to_string(impl.options.max_snapshots) +
                      " snapshots, the most it may have ([limits] max_snapshots): delete one");
    }
    Snapshot one;
    one.snapid = free_snapshot_id(sql);
    one.insid = instance->insid;
    one.name = request.name.empty() ? one.snapid : request.name;
    if (auto ok = check_name(one.name, "name"); !ok) return fail(ok.error());
    one.with_memory = request.memory;
    one.node = task->node;
    one.created_at = impl.clock.wall_ms();
    store::add_snapshot(sql, one);
    auto sent = impl.engine.operate(sql, std::move(*task), operation_on("snapshot/take", one));
    if (!sent) return fail(sent.error());
    impl.audit(sql, who, "snapshot.take", one.snapid, one.insid);
    return view_of(one, *sent);
  });
}

Result<TaskView> Cloud::restore_snapshot(const Principal& who, std::string_view insid,
                                         std::string_view snapid) {
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<TaskView> {
    auto instance = impl.instance(sql, who, Deed::control_vm, insid);
    if (!instance) return fail(instance.error());
    auto one = snapshot_of(sql, *instance, snapid);
    if (!one) return fail(one.error());
    if (one->state != "ready")
      return fail(ErrorCode::conflict, one->snapid + " is not ready (" + one->state + ")");
    auto task = task_with_overlay(sql, *instance);
    if (!task) return fail(task.error());
    auto sent = impl.engine.operate(sql, std::move(*task), operation_on("snapshot/restore", *one));
    if (!sent) return fail(sent.error());
    impl.audit(sql, who, "snapshot.restore", one->snapid, one->insid);
    return impl.engine.view(sql, *sent);
  });
}

Result<SnapshotView> Cloud::delete_snapshot(const Principal& who, std::string_view insid,
                                            std::string_view snapid) {
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<SnapshotView> {
    auto instance = impl.instance(sql, who, Deed::control_vm, insid);
    if (!instance) return fail(instance.error());
    auto one = snapshot_of(sql, *instance, snapid);
    if (!one) return fail(one.error());
    impl.audit(sql, who, "snapshot.delete", one->snapid, one->insid);
    const auto open = store::open_task_of_instance(sql, instance->insid);
    if (!open || is_ended_desktop(*open)) {
      store::remove_snapshot(sql, one->snapid);
      return SnapshotView{*one, "deleted", open ? open->tid : ""};
    }
    auto sent = impl.engine.operate(sql, *open, operation_on("snapshot/delete", *one));
    if (!sent) return fail(sent.error());
    return view_of(*one, *sent);
  });
}

}  // namespace educloud::clc
