#pragma once

#include <filesystem>
#include <memory>
#include <set>

#include "nc/app/inventory.hpp"
#include "nc/app/lease_keeper.hpp"
#include "nc/app/node.hpp"
#include "nc/app/sweeper.hpp"
#include "nc/hypervisor/fake_hypervisor.hpp"
#include "sim/bus/broker.hpp"
#include "sim/world/host.hpp"
#include "sim/world/walrus_host.hpp"

namespace educloud::sim {

/// What goes wrong on a node, as a probability each time it could.
struct NodeTrouble {
  double fetch = 0, submit = 0, start = 0;
  std::int64_t slowest_job_ms = 200;  ///< from when a command is on disk until it is carried out
};

/// FakeHypervisor whose calls are also places where nc may be killed. The VMs outlive nc.
class SimHypervisor : public nc::FakeHypervisor {
 public:
  SimHypervisor(Host& nc, Rng& rng, const NodeTrouble& trouble) : nc_(nc), rng_(rng), trouble_(trouble) {}
  std::function<void()> on_start = [] {};
  Result<> define_and_start(const nc::VmSpec& spec) override;
  Result<> shutdown(const InstanceId& insid) override;
  Result<> destroy(const InstanceId& insid) override;

 private:
  Host& nc_;
  Rng& rng_;
  const NodeTrouble& trouble_;
};

/// nc: its inbox, queue and operations over a fake hypervisor, and a cache that knows only which versions it
/// has.
class NcHost : public Host {
 public:
  struct Options {
    std::filesystem::path folder;
    std::string cluster;
    int cpus = 8;
    std::int64_t memory_mib = 8192;
  };
  NcHost(Surroundings surroundings, Broker& broker, WalrusHost& walrus, std::string name, std::uint64_t seed,
         Options options);
  ~NcHost() override;

  const Options& options() const { return options_; }
  NodeTrouble trouble;
  /// The VMs that are really there, whether nc runs or not.
  struct Vm {
    std::string insid, tid;
    std::int64_t memory_mib = 0;
    int cpus = 0, display_port = 0, web_port = 0;
  };
  std::vector<Vm> vms();
  /// Called when a VM has just started.
  void on_start(std::function<void()> look) { hypervisor_.on_start = std::move(look); }
  /// The guest ends by itself; `crashed`: its QEMU dies.
  void end_guest(const std::string& insid, bool crashed);
  /// Power off: nc and the VMs are gone, what is on disk stays.
  void lose_power();
  /// Folders of instances on its disk.
  std::vector<std::string> folders() const;
  /// Commands without a final status; only while it is up.
  std::size_t unfinished() const;

 protected:
  Result<> boot() override;
  void wreck() override;

 private:
  class Images;
  void work_soon();
  void work();
  void beat();
  void subscribe();
  void open_upkeep();
  msg::NodeStatus status();
  std::filesystem::path prefix() const { return options_.folder / name_; }

  Broker& broker_;
  WalrusHost& walrus_;
  const Options options_;
  // On disk, or not nc's at all: outlives the process.
  std::set<std::pair<std::string, int>> cached_;
  int boots_ = 1;  ///< of the host
  SimHypervisor hypervisor_;
  // The process, destroyed from the last to the first.
  std::int64_t booted_at_ = 0;
  std::unique_ptr<bus::Bus> bus_;
  std::unique_ptr<inbox::Inbox> inbox_;
  std::unique_ptr<Images> images_;
  std::unique_ptr<nc::LeaseKeeper> lease_;
  std::unique_ptr<nc::Node> node_;
  std::unique_ptr<nc::InventoryReporter> inventory_;
  std::unique_ptr<nc::OrphanSweeper> sweeper_;
};

}  // namespace educloud::sim
