// What can be done to a VM that runs, and its limits.
#include "clc/app/cloud_impl.hpp"

namespace educloud::clc {
namespace {

bool is_up(const Task& task) {
  return task.state.phase == task::Phase::editing &&
         (task.state.state == task::State::running || task.state.state == task::State::paused);
}

/// True once the node has been told how to run it, until it does.
bool boots(const Task& task) {
  return !is_up(task) && task.op == "image/run" && task.op_open;
}

tl::unexpected<Error> does_not_run(const std::string& insid, std::string_view state) {
  return fail(ErrorCode::conflict, "instance " + insid + " does not run (" + std::string(state) + ")");
}

}  // namespace

std::string_view to_string(VmOperation operation) {
  switch (operation) {
    case VmOperation::pause: return "pause";
    case VmOperation::resume: return "resume";
    case VmOperation::restart: return "restart";
  }
  return "pause";
}

Result<TaskView> Cloud::operate_vm(const Principal& who, std::string_view insid, VmOperation operation) {
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<TaskView> {
    auto instance = impl.instance(sql, who, Deed::control_vm, insid);
    if (!instance) return fail(instance.error());
    const auto open = store::open_task_of_instance(sql, instance->insid);
    if (!open) return does_not_run(instance->insid, "defined");
    if (!is_up(*open)) return does_not_run(instance->insid, vm_state(*open));
    if (operation == VmOperation::restart && open->state.state == task::State::paused)
      return fail(ErrorCode::conflict, "instance " + instance->insid + " is paused: resume it first");
    Operation wanted;
    wanted.op = "instance/" + std::string(to_string(operation));
    auto task = impl.engine.operate(sql, *open, std::move(wanted));
    if (!task) return fail(task.error());
    impl.audit(sql, who, "vm." + std::string(to_string(operation)), instance->insid, task->node);
    return impl.engine.view(sql, *task);
  });
}

Result<TaskView> Cloud::move_vm(const Principal& who, std::string_view insid, const std::string& node) {
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<TaskView> {
    auto instance = impl.instance(sql, who, Deed::control_vm, insid);
    if (!instance) return fail(instance.error());
    // Where VMs run is the administrators' affair.
    if (auto ok = check(who, Deed::change_nodes, "", instance->insid); !ok) return fail(ok.error());
    const auto open = store::open_task_of_instance(sql, instance->insid);
    if (!open) return does_not_run(instance->insid, "defined");
    if (!is_up(*open)) return does_not_run(instance->insid, vm_state(*open));
    auto task = impl.engine.move_vm(sql, *open, node);
    if (!task) return fail(task.error());
    impl.audit(sql, who, "vm.migrate", instance->insid, open->node);
    return impl.engine.view(sql, *task);
  });
}

Result<VmView> Cloud::limit_vm(const Principal& who, std::string_view insid, const LimitsChange& change) {
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<VmView> {
    auto instance = impl.instance(sql, who, Deed::control_vm, insid);
    if (!instance) return fail(instance.error());
    instance->limits = changed(instance->limits, change);
    if (auto ok = check_limits(instance->limits); !ok) return fail(ok.error());
    const auto type = store::find_vmtype(sql, instance->vmtype);
    const msg::Limits allowed = type ? type->limits : msg::Limits{};
    const auto key = exceeding(instance->limits, allowed);
    if (!key.empty()) {
      auto ok = check(who, Deed::exceed_limits, instance->owner, instance->insid + ", " + std::string(key));
      if (!ok) return fail(ErrorCode::permission_denied, ok.error().message, std::string(key));
    }
    store::set_instance_limits(sql, instance->insid, instance->limits);
    const auto open = store::open_task_of_instance(sql, instance->insid);
    if (open && boots(*open))
      return fail(ErrorCode::conflict, "instance " + instance->insid + " boots: try again once it runs");
    if (open && is_up(*open)) {
      Operation wanted;
      wanted.op = "instance/limit";
      wanted.limits = effective_limits(instance->limits, allowed);
      auto task = impl.engine.operate(sql, *open, std::move(wanted));
      if (!task) return fail(task.error());
    }
    impl.audit(sql, who, "vm.limit", instance->insid, msg::serialize(instance->limits));
    return impl.vm_view(sql, who, *instance);
  });
}

}  // namespace educloud::clc
