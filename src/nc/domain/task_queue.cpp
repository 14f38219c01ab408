#include "nc/domain/task_queue.hpp"

namespace educloud::nc {

Lane lane_of(const msg::Command& command) {
  if (command.op != "image/prepare" && command.op != "image/submit") return Lane::machines;
  return command.priority == "user" ? Lane::copies : Lane::background;
}

namespace {
Lane lane_of(const Job& job) {
  return job.vm_ended ? Lane::machines : nc::lane_of(job.command);
}
}  // namespace

Result<> TaskQueue::push(Job job) {
  const std::string tid = job.command.tid;
  const auto found = slots_.find(tid);
  // A command that is under way sees for itself what became of the VM.
  if (job.vm_ended && found != slots_.end()) return {};
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

std::optional<TaskQueue::Started> TaskQueue::next(Lane lane) {
  for (auto at = ready_.begin(); at != ready_.end(); ++at) {
    Slot& slot = slots_.at(at->second);
    if (lane_of(*slot.waiting) != lane) continue;
    ready_.erase(at);
    Started started{std::move(*slot.waiting), {}};
    slot.waiting.reset();
    slot.running.emplace();
    started.stop = slot.running->get_token();
    return started;
  }
  return std::nullopt;
}

void TaskQueue::finish(const std::string& tid) {
  const auto found = slots_.find(tid);
  if (found == slots_.end()) return;
  found->second.running.reset();
  if (found->second.waiting) {
    ready_[found->second.order] = tid;
  } else {
    slots_.erase(found);
  }
}

void TaskQueue::close() {
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
