#include "nc/app/node.hpp"

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::nc {
namespace {

/// A VM that is missing is looked for again after this long: libvirt lists some that are just ending, and
/// misses some just starting.
constexpr std::int64_t kSecondLookMs = 1000;
constexpr std::chrono::milliseconds kLookAgain{500};

void count_command(std::string_view result) {
  obs::metrics().count("educloud_nc_commands_total", "Commands taken from the queue by what became of them",
                       1, {{"result", std::string(result)}});
}

}  // namespace

Result<msg::Command> Node::check(const bus::Delivery& delivery) const {
  auto command = msg::parse<msg::Command>(delivery.body);
  if (!command) return command;
  if (auto cmdid = CommandId::parse(command->cmdid); !cmdid) return fail(cmdid.error());
  if (auto tid = TaskId::parse(command->tid); !tid) return fail(tid.error());
  if (!command->nid.empty() && command->nid != host_) {
    return fail(ErrorCode::invalid_argument, "the command is for node '" + command->nid + "'", "nid");
  }
  if (command->op == "image/import" || command->op == "image/use" || command->op == "image/prune" ||
      command->op == "image/delete") {
    return fail(ErrorCode::invalid_argument, command->op + " is no command for a node", "op");
  }
  return command;
}

void Node::handle(bus::Delivery delivery) {
  auto command = check(delivery);
  if (!command) {
    obs::warn("command.refused", {{"queue", delivery.queue}, {"reason", command.error().message}});
    count_command("refused");
    return delivery.settle(bus::Verdict::reject);
  }
  auto accepted = inbox_.accept(*command);
  if (!accepted) {
    obs::error("command.not_stored", {{"tid", command->tid}, {"reason", accepted.error().message}});
    count_command("requeued");
    return delivery.settle(bus::Verdict::requeue);
  }
  delivery.settle(bus::Verdict::ack);
  switch (*accepted) {
    case inbox::Accepted::fresh: count_command("fresh"); return push({std::move(*command)});
    case inbox::Accepted::expired:
      count_command("expired");
      return operations_.report_failure(*command, inbox::expired_error(*command, clock_.wall_ms()));
    case inbox::Accepted::duplicate: return count_command("duplicate");
    case inbox::Accepted::stale:
      obs::info("command.stale", {{"tid", command->tid}, {"op", command->op}, {"cmdid", command->cmdid}});
      return count_command("stale");
  }
}

void Node::push(Job job) {
  const msg::Command command = job.command;
  Result<> queued;
  {
    std::lock_guard lock(mutex_);
    queued = queue_.push(std::move(job));
  }
  changed_.notify_all();
  if (!queued) operations_.report_failure(command, queued.error());
}

void Node::redo_unfinished() {
  for (auto& entry : inbox_.unfinished()) {
    obs::info("operation.redo", {{"tid", entry.command.tid}, {"op", entry.command.op}});
    push({std::move(entry.command)});
  }
}

void Node::on_vm_event(const VmEvent& event) {
  if (event.kind == VmEvent::Kind::started) return;
  if (event.kind == VmEvent::Kind::rebooted) return operations_.rebooted(event.insid);
  if (event.kind == VmEvent::Kind::resync) {
    changed_.notify_all();
    return;
  }
  for (auto& entry : inbox_.tasks()) {
    auto tid = TaskId::parse(entry.command.tid);
    if (!tid || tid->instance.str() != event.insid || !entry.finished) continue;
    Job job{std::move(entry.command)};
    job.vm_changed = event.kind == VmEvent::Kind::paused || event.kind == VmEvent::Kind::resumed;
    job.vm_ended = !job.vm_changed;
    job.crashed = event.kind == VmEvent::Kind::crashed;
    job.detail = event.detail;
    push(std::move(job));
  }
}

void Node::reconcile() {
  auto vms = hypervisor_.list();
  if (!vms) return;  // not knowing is not "none"
  const std::int64_t now = clock_.boot_ms();
  for (auto& entry : inbox_.tasks()) {
    if (!is_up(entry)) continue;
    const std::string tid = entry.command.tid;
    const auto vm = std::find_if(vms->begin(), vms->end(), [&](const VmInfo& one) { return one.tid == tid; });
    std::unique_lock lock(mutex_);
    const bool busy = queue_.is_busy(tid);
    if (vm != vms->end() || busy) {
      missing_.erase(tid);
      lock.unlock();
      const bool paused = vm != vms->end() && vm->state == VmState::paused;
      if (busy || paused == (entry.status->state == to_string(task::State::paused))) continue;
      Job job{std::move(entry.command)};
      job.vm_changed = true;
      job.detail = paused ? "the VM was paused on the host" : "the VM goes on";
      push(std::move(job));
      continue;
    }
    const auto first = missing_.try_emplace(tid, now).first->second;
    if (now - first < kSecondLookMs) continue;
    missing_.erase(tid);
    lock.unlock();
    push({std::move(entry.command), true, "the VM ended while nc or libvirt was away", true});
  }
}

bool Node::run(std::optional<TaskQueue::Started> next) {
  if (!next) return false;
  std::optional<Job> rest;
  try {
    rest = operations_.run(next->job, next->stop);
  } catch (const std::exception& e) {
    obs::error("operation.exception", {{"tid", next->job.command.tid}, {"what", e.what()}});
    operations_.report_failure(next->job.command,
                               {ErrorCode::internal, std::string("a defect: ") + e.what(), {}});
  }
  {
    std::lock_guard lock(mutex_);
    queue_.finish(next->job.command.tid, std::move(rest));
  }
  changed_.notify_all();
  return true;
}

bool Node::run_one(Lane lane) {
  std::unique_lock lock(mutex_);
  auto next = queue_.next(lane);
  lock.unlock();
  return run(std::move(next));
}

void Node::work(Lane lane, std::stop_token stop) {
  while (!stop.stop_requested()) {
    std::optional<TaskQueue::Started> next;
    {
      std::unique_lock lock(mutex_);
      const auto find = [&] { return (next = queue_.next(lane)).has_value(); };
      // Nobody tells when the time of one that was put off has come.
      if (lane == Lane::returns) {
        changed_.wait_for(lock, stop, kLookAgain, find);
      } else {
        changed_.wait(lock, stop, find);
      }
    }
    run(std::move(next));
  }
}

void Node::start(const Workers& workers) {
  const auto add = [this](Lane lane, int count) {
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this, lane](std::stop_token stop) { work(lane, stop); });
    }
  };
  add(Lane::copies, workers.copies);
  add(Lane::background, workers.background);
  add(Lane::machines, workers.machines);
  add(Lane::returns, workers.returns);
}

void Node::stop() {
  {
    std::lock_guard lock(mutex_);
    queue_.close();
  }
  for (auto& thread : threads_) thread.request_stop();
  threads_.clear();
  operations_.stop();
}

}  // namespace educloud::nc
