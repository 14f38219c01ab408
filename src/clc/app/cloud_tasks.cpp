#include "clc/app/cloud_impl.hpp"

namespace educloud::clc {

Result<Page<TaskView>> Cloud::tasks(const Principal& who, const PageRequest& page, const TaskFilter& filter) {
  auto before = parse_cursor(page);
  if (!before) return fail(before.error());
  if (!filter.insid.empty()) {
    if (auto id = InstanceId::parse(filter.insid); !id) return fail(id.error());
  }
  if (!filter.imgid.empty()) {
    if (auto id = ImageId::parse(filter.imgid); !id) return fail(id.error());
  }
  const std::string owner = who.admin ? "" : who.account;
  return impl_->store.read([&](store::Sql& sql) -> Result<Page<TaskView>> {
    Page<TaskView> out;
    const auto rows =
        store::list_tasks(sql, *before, page.limit, owner, filter.open_only, filter.insid, filter.imgid);
    for (const auto& row : rows) {
      if (may(who, Deed::see_task, row.owner)) out.items.push_back(impl_->engine.view(sql, row));
    }
    if (static_cast<int>(rows.size()) == page.limit) out.next = std::to_string(rows.back().id);
    return out;
  });
}

Result<TaskView> Cloud::task(const Principal& who, std::string_view tid) {
  return impl_->store.read([&](store::Sql& sql) -> Result<TaskView> {
    auto task = impl_->task(sql, who, Deed::see_task, tid);
    if (!task) return fail(task.error());
    return impl_->engine.view(sql, *task);
  });
}

namespace {

Result<TaskView> control(Cloud::Impl& impl, const Principal& who, std::string_view tid, task::Event event,
                         bool replace = false) {
  return impl.write_placing([&](store::Sql& sql) -> Result<TaskView> {
    auto task = impl.task(sql, who, Deed::control_task, tid);
    if (!task) return fail(task.error());
    if (event == task::Event::submit) task->replace = replace;
    auto changed = impl.engine.user_event(sql, std::move(*task), event);
    if (!changed) return fail(changed.error());
    impl.audit(sql, who, "task." + std::string(to_string(event)), tid, replace ? "on_conflict=replace" : "");
    return impl.engine.view(sql, *changed);
  });
}

}  // namespace

Result<TaskView> Cloud::start_task(const Principal& who, std::string_view tid) {
  return control(*impl_, who, tid, task::Event::start);
}
Result<TaskView> Cloud::stop_task(const Principal& who, std::string_view tid) {
  return control(*impl_, who, tid, task::Event::stop);
}
Result<TaskView> Cloud::submit_task(const Principal& who, std::string_view tid, bool replace) {
  return control(*impl_, who, tid, task::Event::submit, replace);
}
Result<TaskView> Cloud::cancel_task(const Principal& who, std::string_view tid, bool force) {
  if (!force) return control(*impl_, who, tid, task::Event::cancel);
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<TaskView> {
    auto task = impl.task(sql, who, Deed::control_task, tid);
    if (!task) return fail(task.error());
    if (auto ok = check(who, Deed::force_task, task->owner, task->tid); !ok) return fail(ok.error());
    auto ended = impl.engine.force_end(sql, std::move(*task));
    if (!ended) return fail(ended.error());
    impl.audit(sql, who, "task.force", tid, ended->node);
    return impl.engine.view(sql, *ended);
  });
}

}  // namespace educloud::clc
