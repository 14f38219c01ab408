#include "nc/domain/task_queue.hpp"

namespace educloud::nc {

Lane lane_of(const msg::Command& command) {
  if (command.op != "image/prepare" && command.op != "image/submit") return Lane::machines;
  return command.priority == "user" ? Lane::copies : Lane::background;
}

bool is_operation(std::string_view op) {
  return op.starts_with("instance/") || op.starts_with("snapshot/");
}

namespace {
Lane lane_of(const Job& job) {
  if (job.gives_back) return Lane::returns;
  return job.is_command() ? nc::lane_of(job.command) : Lane::machines;
}
}  // namespace

Result<> TaskQueue::push(Job job) {
  const std::string tid = job.command.tid;
  const auto found = slots_.find(tid);
  if (!job.is_command() && found != slots_.end()) {
    // A command that is under way sees for itself what became of the VM.
    Slot& busy = found->second;
    if (busy.waiting ? busy.waiting->is_command() : busy.runs_command) return {};
    if (busy.waiting && busy.waiting->vm_ended) return {};
    if (!busy.waiting) busy.order = next_order_++;
    busy.waiting = std::move(job);
    return {};
  }
  if (found == slots_.end() && slots_.size() >= max_tasks_) {
    return fail(ErrorCode::exhausted,
                "this node already works on " + std::to_string(slots_.size()) + " tasks");
  }
  Slot& slot = slots_[tid];
  if (slot.running) slot.running->request_stop();
  if (!slot.waiting) slot.order = next_order_++;
  slot.waiting = std::move(job);
  if (!slot.running) ready_[slot.order] = tid;
  return {};
}

std::optional<TaskQueue::Started> TaskQueue::next(Lane lane, std::chrono::steady_clock::time_point now) {
  for (auto at = ready_.begin(); at != ready_.end(); ++at) {
    Slot& slot = slots_.at(at->second);
    if (lane_of(*slot.waiting) != lane || slot.waiting->not_before > now) continue;
    ready_.erase(at);
    Started started{std::move(*slot.waiting), {}};
    slot.waiting.reset();
    slot.running.emplace();
    slot.runs_command = started.job.is_command();
    started.stop = slot.running->get_token();
    return started;
  }
  return std::nullopt;
}

void TaskQueue::finish(const std::string& tid, std::optional<Job> next) {
  const auto found = slots_.find(tid);
  if (found == slots_.end()) return;
  found->second.running.reset();
  if (next && !found->second.waiting && !closed_) {
    found->second.waiting = std::move(next);
    found->second.order = next_order_++;
  }
  if (found->second.waiting) {
    ready_[found->second.order] = tid;
  } else {
    slots_.erase(found);
  }
}

void TaskQueue::close() {
  closed_ = true;
  ready_.clear();
  for (auto at = slots_.begin(); at != slots_.end();) {
    at->second.waiting.reset();
    if (at->second.running) {
      at->second.running->request_stop();
      ++at;
    } else {
      at = slots_.erase(at);
    }
  }
}

}  // namespace educloud::nc
