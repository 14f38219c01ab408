#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "common/bus/bus.hpp"
#include "nc/app/operations.hpp"

namespace educloud::nc {

/// The node's hands: takes commands over, runs them, at most one per task, and keeps what is told about VMs
/// true. Thread-safe.
class Node {
 public:
  Node(OperationOptions options, std::string host, inbox::Inbox& inbox, Hypervisor& hypervisor,
       ImageTools& images, const Clock& clock)
      : operations_(std::move(options), inbox, hypervisor, images),
        host_(std::move(host)),
        inbox_(inbox),
        hypervisor_(hypervisor),
        clock_(clock) {}
  ~Node() { stop(); }

  /// Takes a delivered command over and settles the delivery: rejected if it is no command for this node,
  /// requeued if the disk did not take it, else acked once it is on disk. Blocks for a disk sync.
  void handle(bus::Delivery delivery);
  /// From the hypervisor's event thread.
  void on_vm_event(const VmEvent& event);

  /// Before anything else: what guests stand on is kept, and what they still read over sockets is served.
  void recover() { operations_.recover(); }
  /// Queues again what was not finished when the daemon ended.
  void redo_unfinished();
  /// Removes what is left of an instance that has neither a task nor a VM.
  Result<> forget(const InstanceId& insid) { return operations_.forget(insid); }
  /// For VMs that move: Operations::receive, give_up, places.
  Operations& operations() { return operations_; }
  /// Compares VMs with tasks: one believed to be up that is missing twice in a row has ended unseen.
  void reconcile();

  struct Workers {
    int copies = 4;
    int background = 2;
    int machines = 16;  ///< a stop may wait a minute for its guest
    int returns = 8;
  };
  /// Without it, tests call `run_one`.
  void start(const Workers& workers);
  /// Interrupts what runs (it is redone after the next start) and joins. Idempotent.
  void stop();
  /// Runs the next job of `lane` on the caller's thread. False: there is none.
  bool run_one(Lane lane);

 private:
  Result<msg::Command> check(const bus::Delivery& delivery) const;
  void push(Job job);
  void work(Lane lane, std::stop_token stop);
  bool run(std::optional<TaskQueue::Started> next);

  Operations operations_;
  const std::string host_;
  inbox::Inbox& inbox_;
  Hypervisor& hypervisor_;
  const Clock& clock_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  TaskQueue queue_;                              // under mutex_
  std::map<std::string, std::int64_t> missing_;  // under mutex_: tid -> boot_ms when its VM was first missed
  std::vector<std::jthread> threads_;
};

}  // namespace educloud::nc
