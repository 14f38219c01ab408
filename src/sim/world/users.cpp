#include "sim/world/users.hpp"

namespace educloud::sim {

using clc::Cloud;

namespace {

std::string_view to_string(Users::Wish wish) {
  switch (wish) {
    case Users::Wish::running: return "running";
    case Users::Wish::stopped: return "stopped";
    case Users::Wish::gone: return "gone";
  }
  return "gone";
}

}  // namespace

void Users::refused(std::string_view what, const Error& error) {
  world_.tell("user: " + std::string(what) + ": " + std::string(to_string(error.code)) + ": " +
              error.message.substr(0, 160));
  if (error.code == ErrorCode::conflict || error.code == ErrorCode::exhausted ||
      error.code == ErrorCode::unavailable || error.code == ErrorCode::not_found) {
    return;
  }
  world_.defect(std::string(what) + " was answered with " + std::string(to_string(error.code)) + ": " +
                error.message);
}

void Users::act() {
  if (!clc_.is_up()) return;
  if (unsure_) look_around();
  if (desks_.size() < options_.most_desks && rng_.chance(0.4)) return define(rng_.chance(0.2));
  if (edits_.size() < options_.most_edits && rng_.chance(0.25)) return edit();
  if (!edits_.empty() && rng_.chance(0.4)) {
    tend(rng_.pick(edits_));
  } else if (!desks_.empty()) {
    Desk& desk = rng_.pick(desks_);
    if (rng_.chance(0.35)) change_mind(desk);
    tend(desk);
  }
  forget_ended();
}

void Users::forget_ended() {
  std::erase_if(desks_, [](const Desk& one) { return one.insid.empty(); });
  std::erase_if(edits_, [](const Edit& one) { return one.tid.empty(); });
}

void Users::insist() {
  if (!clc_.is_up()) return;
  if (unsure_) look_around();
  for (auto& desk : desks_) tend(desk);
  for (auto& one : edits_) tend(one);
  forget_ended();
}

void Users::leave() {
  settled_ = leaving_ = true;
  for (auto& desk : desks_) {
    desk.wish = Wish::gone;
    desk.content = false;
  }
  for (auto& one : edits_) one.submit = false;
}

bool Users::are_content() const {
  return !unsure_ && edits_.empty() &&
         std::all_of(desks_.begin(), desks_.end(), [](const Desk& one) { return one.content; });
}

std::string Users::complaint() const {
  std::string text;
  for (const auto& desk : desks_) {
    if (!desk.content) text += desk.insid + " is wanted " + std::string(to_string(desk.wish)) + "; ";
  }
  for (const auto& one : edits_) text += one.tid + (one.submit ? " is to be submitted; " : " is given up; ");
  return text + (unsure_ ? "some calls got no answer" : "");
}

void Users::change_mind(Desk& desk) {
  if (desk.wish == Wish::gone) return;
  desk.content = desk.refused = false;
  if (desk.temporary) {
    desk.wish = Wish::gone;
    return;
  }
  desk.wish = rng_.chance(0.55) ? Wish::running : (rng_.chance(0.7) ? Wish::stopped : Wish::gone);
}

void Users::define(bool temporary) {
  clc::NewVm request;
  request.imgid = options_.images[rng_.below(options_.images.size())];
  request.kind = temporary ? "TVD" : "VD";
  request.memory_mib = options_.memory_mib;
  request.cpus = 1;
  if (!temporary) request.autostart = rng_.chance(0.5);
  if (rng_.chance(0.2)) request.node = options_.nodes[rng_.below(options_.nodes.size())];
  const auto answer = clc_.call([&](Cloud& cloud) { return cloud.define_vm(kAdmin, request); });
  if (!answer) {
    unsure_ = true;
    return;
  }
  if (!*answer) return refused("define", answer->error());
  Desk desk;
  desk.insid = (*answer)->instance.insid;
  desk.temporary = temporary;
  desk.wish = temporary || rng_.chance(0.6) ? Wish::running : Wish::stopped;
  world_.tell("user: defined " + desk.insid);
  desks_.push_back(desk);
}

void Users::tend(Desk& desk) {
  const auto answer = clc_.call([&](Cloud& cloud) { return cloud.vm(kAdmin, desk.insid); });
  if (!answer) return;
  if (*answer) return pursue(desk, **answer);
  if ((*answer).error().code != ErrorCode::not_found)
    return refused("look at " + desk.insid, (*answer).error());
  // A temporary desktop goes with its run.
  if (desk.wish != Wish::gone && !desk.temporary) world_.defect("VM " + desk.insid + " is lost");
  desk.insid.clear();
}

void Users::pursue(Desk& desk, const clc::VmView& view) {
  desk.content = false;
  const auto& state = view.state;
  const auto stop = [&] {
    const auto answer = clc_.call([&](Cloud& cloud) { return cloud.stop_vm(kAdmin, desk.insid); });
    if (answer && !*answer) refused("stop " + desk.insid, answer->error());
  };
  switch (desk.wish) {
    case Wish::running:
      desk.content = state == "running" || (desk.refused && options_.may_be_refused);
      if (state == "defined" || state == "stopped" || state == "failed") start(desk);
      return;
    case Wish::stopped:
      desk.content = state == "defined" || state == "stopped" || state == "failed";
      if (state == "running" || state == "booting") stop();
      return;
    case Wish::gone: {
      if (view.instance.deleting && !rng_.chance(0.2)) return;
      const auto answer = clc_.call([&](Cloud& cloud) { return cloud.delete_vm(kAdmin, desk.insid); });
      if (answer && !*answer) refused("delete " + desk.insid, answer->error());
      return;
    }
  }
}

void Users::start(Desk& desk) {
  world_.tell("user: starts " + desk.insid);
  const auto answer = clc_.call([&](Cloud& cloud) { return cloud.run_vm(kAdmin, desk.insid); });
  desk.refused = answer && !*answer && answer->error().code == ErrorCode::exhausted;
  if (answer && !*answer) refused("start " + desk.insid, answer->error());
}

void Users::edit() {
  clc::EditRequest request;
  request.memory_mib = options_.memory_mib;
  request.cpus = 1;
  const auto& image = options_.images[rng_.below(options_.images.size())];
  const auto answer = clc_.call([&](Cloud& cloud) { return cloud.modify_image(kAdmin, image, request); });
  if (!answer) {
    unsure_ = true;
    return;
  }
  if (!*answer) return refused("modify", answer->error());
  world_.tell("user: edits " + (*answer)->task.tid);
  edits_.push_back({(*answer)->task.tid, rng_.chance(0.8)});
}

void Users::tend(Edit& edit) {
  const auto answer = clc_.call([&](Cloud& cloud) { return cloud.task(kAdmin, edit.tid); });
  if (!answer) return;
  if (!*answer) return world_.defect("task " + edit.tid + " is lost: " + answer->error().message);
  const auto& task = (*answer)->task;
  if (task.state.state == task::State::gone) {
    edit.tid.clear();
    return;
  }
  pursue(edit, task);
}

void Users::pursue(Edit& edit, const clc::Task& task) {
  using task::Phase;
  using task::State;
  if (task.failed && rng_.chance(settled_ ? 0.1 : 0.3)) edit.submit = false;
  const auto state = task.state.state;
  if (!edit.submit) {
    if (state == State::deleting) return;
    const auto answer = clc_.call([&](Cloud& cloud) { return cloud.cancel_task(kAdmin, edit.tid); });
    if (answer && !*answer) refused("cancel " + edit.tid, answer->error());
    return;
  }
  std::optional<Result<clc::TaskView>> answer;
  const bool preparing = task.state.phase == Phase::preparing && task.failed;
  const bool never_ran = state == State::stopped && (task.failed || !task.achieved) && rng_.chance(0.5);
  if (preparing || never_ran) {
    answer = clc_.call([&](Cloud& cloud) { return cloud.start_task(kAdmin, edit.tid); });
  } else if (state == State::running || state == State::booting) {
    answer = clc_.call([&](Cloud& cloud) { return cloud.stop_task(kAdmin, edit.tid); });
  } else if (state == State::stopped || (task.state.phase == Phase::submitting && task.failed)) {
    answer = clc_.call([&](Cloud& cloud) { return cloud.submit_task(kAdmin, edit.tid, true); });
  }
  if (answer && !*answer) refused("go on with " + edit.tid, answer->error());
}

void Users::look_around() {
  const auto vms = clc_.call([&](Cloud& cloud) { return cloud.vms(kAdmin, {500, ""}); });
  clc::TaskFilter open;
  open.open_only = true;
  const auto tasks = clc_.call([&](Cloud& cloud) { return cloud.tasks(kAdmin, {500, ""}, open); });
  if (!vms || !*vms || !tasks || !*tasks) return;
  unsure_ = false;
  for (const auto& view : (*vms)->items) {
    const auto& insid = view.instance.insid;
    const auto is_it = [&](const Desk& one) { return one.insid == insid; };
    if (std::any_of(desks_.begin(), desks_.end(), is_it)) continue;
    Desk desk;
    desk.insid = insid;
    desk.temporary = insid.starts_with("TVD");
    desk.wish = leaving_ ? Wish::gone : (desk.temporary ? Wish::running : Wish::stopped);
    desks_.push_back(desk);
  }
  for (const auto& view : (*tasks)->items) {
    if (view.task.kind != clc::TaskKind::modify) continue;
    const auto is_it = [&](const Edit& one) { return one.tid == view.task.tid; };
    if (std::none_of(edits_.begin(), edits_.end(), is_it)) edits_.push_back({view.task.tid, !leaving_});
  }
}

}  // namespace educloud::sim
