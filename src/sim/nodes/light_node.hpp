#pragma once

#include <deque>
#include <mutex>

#include "common/base/clock.hpp"
#include "common/bus/bus.hpp"
#include "common/inbox/inbox.hpp"
#include "nc/app/config.hpp"
#include "nc/app/inventory.hpp"
#include "nc/app/lease_keeper.hpp"
#include "nc/app/node.hpp"
#include "nc/hypervisor/fake_hypervisor.hpp"
#include "sim/nodes/everything_here.hpp"

namespace educloud::sim {

/// What a lightweight node says it has.
struct Hardware {
  int cpus = 64;
  std::int64_t memory_mib = 512 * 1024;
  std::int64_t disk_mib = 4 * 1024 * 1024;
};

/// One line per status a node publishes, "<unix microseconds> <tid> <event>", for who measures how long they
/// take.
class StatusTrace {
 public:
  static Result<std::unique_ptr<StatusTrace>> open(const std::filesystem::path& file);
  ~StatusTrace();
  StatusTrace(const StatusTrace&) = delete;
  StatusTrace& operator=(const StatusTrace&) = delete;
  void write(const bus::Outgoing& message);

 private:
  explicit StatusTrace(std::FILE* file) : file_(file) {}
  std::mutex mutex_;
  std::FILE* file_;
};

/// A node controller with real bus, inbox and operations, a hypervisor that does nothing and no disks. It has
/// two threads, those of its bus; everything else is done by whoever calls `work`, `tick` and `beat`.
class LightNode {
 public:
  struct Options {
    nc::Config config;
    Hardware hardware;
    std::size_t number = 0;         ///< makes its MAC address
    StatusTrace* trace = nullptr;   ///< outlives the node
    std::function<void()> on_work;  ///< `work` has something to do; from any thread
  };
  /// Errors: a key, directory or database that cannot be had.
  static Result<std::unique_ptr<LightNode>> open(Options options, const Clock& clock);
  ~LightNode() { stop(); }
  LightNode(const LightNode&) = delete;
  LightNode& operator=(const LightNode&) = delete;

  Result<> start();
  void stop();
  bool is_ready() const { return bus_->is_ready(); }
  int vms_started() const { return hypervisor_.starts(); }

  /// Takes over what has come and runs it to its end. One thread at a time.
  void work();
  /// Repeats what the broker has not confirmed, keeps to the lease, tells the inventory. Some times a second.
  void tick();
  /// The heartbeat, and the look for VMs that ended unseen. One thread at a time.
  void beat();

 private:
  LightNode(Options options, const Clock& clock);
  Result<> open_parts();
  void subscribe();
  std::optional<bus::Delivery> take();
  msg::NodeStatus status();

  const Options options_;
  const Clock& clock_;
  const std::int64_t started_at_;
  std::unique_ptr<bus::Bus> bus_;
  std::unique_ptr<inbox::Inbox> inbox_;
  nc::FakeHypervisor hypervisor_;
  EverythingHere images_;
  nc::LeaseKeeper lease_;
  std::unique_ptr<nc::Node> node_;
  std::unique_ptr<nc::InventoryReporter> inventory_;
  std::mutex mutex_;
  std::deque<bus::Delivery> arrived_;  // under mutex_; the prefetch bounds it
};

}  // namespace educloud::sim
