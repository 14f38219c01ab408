#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/ids.hpp"
#include "common/bus/memory_bus.hpp"
#include "nc/app/node.hpp"
#include "nc/hypervisor/fake_hypervisor.hpp"
#include "unit/nc/fake_cc_disks.hpp"
#include "unit/nc/fake_image_tools.hpp"

namespace educloud::nc {

inline constexpr const char* kDesktop = "IMG00000001:IMG00000001:VD0000beef";
inline constexpr const char* kModify = "IMG00000001:IMG00000001:TMP0000beef";
inline constexpr const char* kBuild = "IMG00000001:IMG00000002:TMP0000cafe";

/// A node with a fake hypervisor and fake transfers; commands go in and statuses come out through a broker in
/// memory.
class NodeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/educloud-node-XXXXXX";
    prefix_ = mkdtemp(pattern);
    broker_.bind("nc_cmd", "nc1", "nc_cmd_queue.nc1");
    broker_.bind("cc_status", "taskstatus.nc-nc1", "cc_status_queue");
    cc_ = broker_.connect("cc-cc1");
    cc_->subscribe({"cc_status_queue", 64, [this](bus::Delivery delivery) {
                      told_.push_back(*msg::parse<msg::TaskStatus>(delivery.body));
                      delivery.settle(bus::Verdict::ack);
                    }});
    cc_->start([] {});
    bus_ = broker_.connect("nc-nc1");
    bus_->subscribe(
        {"nc_cmd_queue.nc1", 4, [this](bus::Delivery delivery) { node_->handle(std::move(delivery)); }});
    bus_->start([] {});
    images_ = std::make_unique<FakeImageTools>(prefix_);
    boot();
  }
  void TearDown() override {
    node_.reset();
    inbox_.reset();
    std::filesystem::remove_all(prefix_);
  }

  /// A new process: what is on disk and the VMs are still there.
  void boot() {
    node_.reset();
    inbox_.reset();
    inbox::Options options;
    options.file = prefix_ / "inbox.sqlite";
    options.exchange = "cc_status";
    options.routing_key = "taskstatus.nc-nc1";
    options.nid = "nc1";
    inbox_ = std::move(*inbox::Inbox::open(options, *bus_, clock_));
    OperationOptions operations;
    operations.layout = Layout(prefix_);
    operations.limits = {
        .max_memory_mib = 4096, .max_cpus = 4, .advertise = "127.0.0.1", .guest_egress = false};
    operations.limits.data_disk_bytes = 1 << 30;
    operations.disks = &disks_;
    operations.stop_grace = grace_;
    operations.lazy.proxy = false;
    operations.was_fenced = [this](const InstanceId&) { return std::exchange(fenced_, false); };
    operations.give_back_again = std::chrono::milliseconds{0};
    node_ = std::make_unique<Node>(operations, "nc1", *inbox_, hypervisor_, *images_, clock_);
    ASSERT_TRUE(hypervisor_.start([this](const VmEvent& event) { node_->on_vm_event(event); }));
    node_->recover();
    node_->redo_unfinished();
  }

  msg::Command command(const std::string& op, const std::string& tid) {
    msg::Command made;
    made.op = op;
    made.tid = tid;
    made.nid = "nc1";
    made.cmdid = new_command_id().str();
    made.attempt = ++attempt_;
    made.source = msg::ImageVersion{"IMG00000001", 3, std::string(64, 'd'), 1000, 1 << 20, "raw"};
    made.source_grant = "node=nc1&expires=1&sig=x";
    made.target_imgid = tid.substr(12, 11);
    made.target_version = 4;
    auto& option = made.runtime_option.emplace();
    option.memory_mib = 128;
    option.rdp_port = 5901;
    option.web_port = 8081;
    option.display_password = "secret";
    return made;
  }
  void send(const msg::Command& one) { send(msg::serialize(one)); }
  void send(const std::string& body) {
    ASSERT_TRUE(cc_->publish({"nc_cmd", "nc1", body, new_command_id().str()}, [](bus::Outcome) {}));
    broker_.deliver_all();
  }
  void work() {
    while (node_->run_one(Lane::copies) || node_->run_one(Lane::background) ||
           node_->run_one(Lane::machines) || node_->run_one(Lane::returns)) {
    }
    broker_.deliver_all();
  }
  /// Sends a command, runs everything, returns the last status told.
  msg::TaskStatus ask(const msg::Command& one) {
    told_.clear();
    send(one);
    work();
    return told_.empty() ? msg::TaskStatus{} : told_.back();
  }
  msg::TaskStatus ask(const std::string& op, const std::string& tid) { return ask(command(op, tid)); }
  std::vector<std::string> events() const {
    std::vector<std::string> all;
    for (const auto& status : told_) all.push_back(status.event);
    return all;
  }
  std::filesystem::path vm_folder(const std::string& tid) const { return prefix_ / "VMs" / tid.substr(24); }
  std::filesystem::path overlay(const std::string& tid) const { return vm_folder(tid) / "overlay.qcow2"; }
  static InstanceId vm(const std::string& tid) { return *InstanceId::parse(tid.substr(24)); }

  std::filesystem::path prefix_;
  std::chrono::milliseconds grace_{0};
  bool fenced_ = false;  ///< the next VM that ends does so for want of a lease
  ManualClock clock_;
  bus::MemoryBroker broker_;
  FakeHypervisor hypervisor_;
  std::unique_ptr<bus::Bus> cc_, bus_;
  std::unique_ptr<FakeImageTools> images_;
  FakeCcDisks disks_;
  std::unique_ptr<inbox::Inbox> inbox_;
  std::unique_ptr<Node> node_;
  std::vector<msg::TaskStatus> told_;
  std::int64_t attempt_ = 0;
};

}  // namespace educloud::nc
