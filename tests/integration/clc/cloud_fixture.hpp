#pragma once

#include <gmock/gmock.h>

#include <filesystem>

#include "clc/app/cloud_impl.hpp"
#include "clc/app/event_hub.hpp"
#include "clc/app/heartbeats.hpp"
#include "clc/app/outbox_relay.hpp"
#include "clc/app/setup.hpp"
#include "clc/app/status_consumer.hpp"
#include "clc/app/ticker.hpp"
#include "common/base/ids.hpp"
#include "common/bus/memory_bus.hpp"
#include "common/msg/command.hpp"
#include "common/msg/inventory.hpp"
#include "common/msg/lease.hpp"
#include "common/transfer/receipt.hpp"

namespace educloud::clc {

using task::Event;

/// A cloud of one cc with nodes nc1 and nc2 and a walrus, whose parts the test plays. Its database is a real
/// file, its broker is in memory, its clock stands still until `advance`.
class CloudTest : public testing::Test {
 protected:
  static inline const std::string kKey = std::string(64, '7');
  const Principal admin{"root", true};

  void SetUp() override {
    char name[] = "/tmp/clc_flow_XXXXXX";
    folder_ = ::mkdtemp(name);
    broker.bind("cc_cmd", "cc1", "cc_cmd_queue.cc1");
    broker.bind("walrus_cmd", "walrus", "walrus_cmd_queue");
    broker.bind("clc_status", "taskstatus.#", "clc_status_queue");
    broker.bind("clc_status", "nodestatus.#", "clc_heartbeat_queue");
    broker.bind("clc_status", "ccstatus.#", "clc_heartbeat_queue");
    boot();
    ASSERT_TRUE(create_account(*store, clock, "root", "correct horse", true));
    ASSERT_TRUE(create_account(*store, clock, "ann", "correct horse", false));
    ASSERT_TRUE(register_cluster(*store, "cc1"));
    ASSERT_TRUE(register_node(*store, "nc1", "cc1"));
    ASSERT_TRUE(register_node(*store, "nc2", "cc1"));
    cc = broker.connect("cc-cc1");
    walrus = broker.connect("walrus");
    cc->subscribe({"cc_cmd_queue.cc1", 4, [this](bus::Delivery d) { receive(std::move(d)); }});
    walrus->subscribe({"walrus_cmd_queue", 4, [this](bus::Delivery d) { receive(std::move(d)); }});
    cc->start([] {});
    walrus->start([] {});
    beat();
  }
  void TearDown() override {
    halt();
    std::filesystem::remove_all(folder_);
  }

  virtual void tune(CloudOptions&) {}
  virtual std::unique_ptr<bus::Bus> connect_clc() { return broker.connect("clc"); }

  /// clc starts. With `halt` before: as after a crash, since everything else of it is in memory.
  void boot() {
    auto opened = store::Store::open(folder_ / "clc.sqlite");
    ASSERT_TRUE(opened) << opened.error().message;
    store = std::move(*opened);
    CloudOptions options;
    options.walrus_url = "http://walrus:8001";
    options.data_key = kKey;
    options.display_port_last = 5901;
    tune(options);
    heartbeats = std::make_unique<Heartbeats>(clock);
    cloud = std::make_unique<Cloud>(*store, *heartbeats, events, clock, options);
    bus = connect_clc();
    relay = std::make_unique<OutboxRelay>(*store, *bus, clock);
    statuses = std::make_unique<StatusConsumer>(*store, cloud->impl().engine, clock);
    ticker = std::make_unique<Ticker>(*store, cloud->impl().engine, *heartbeats, clock);
    heartbeats->subscribe(*bus);
    statuses->subscribe(*bus);
    bus->start([] {});
    ASSERT_TRUE(ticker->prepare());
  }
  void halt() {
    if (bus) bus->stop();
    if (store) store->close();
    ticker.reset();
    statuses.reset();
    relay.reset();
    bus.reset();
    cloud.reset();
    heartbeats.reset();
    store.reset();
  }

  /// Waits until the writer thread has done all it was given.
  void drain() {
    ASSERT_TRUE(store->write([](store::Sql&) -> Result<> { return {}; }));
  }
  /// Delivers everything there is, both ways.
  void settle() {
    for (int quiet = 0; quiet < 2;) {
      drain();
      const int moved = relay->pump() + broker.deliver_all();
      drain();
      quiet = moved == 0 ? quiet + 1 : 0;
    }
  }
  void advance(std::int64_t seconds, bool with_beat = true) {
    clock.advance(std::chrono::seconds{seconds});
    if (with_beat) beat();
    ASSERT_TRUE(ticker->tick());
    settle();
  }

  void receive(bus::Delivery delivery) {
    if (msg::is_type(delivery.body, "lease")) {
      auto lease = msg::parse<msg::Lease>(delivery.body);
      ASSERT_TRUE(lease) << lease.error().message;
      grants = std::move(lease->grants);
      return delivery.settle(bus::Verdict::ack);
    }
    auto command = msg::parse<msg::Command>(delivery.body);
    ASSERT_TRUE(command) << command.error().message;
    commands.push_back(std::move(*command));
    delivery.settle(bus::Verdict::ack);
  }
  /// The ops received since the last call, as "op op ...".
  std::string ops() {
    settle();
    std::string text;
    for (; seen_ < commands.size(); ++seen_) text += (text.empty() ? "" : " ") + commands[seen_].op;
    return text;
  }
  const msg::Command& last() { return commands.at(commands.size() - 1); }

  void beat_node(const std::string& host, std::vector<msg::CachedImage> images = {}) {
    msg::NodeStatus status;
    status.nid = "nc#52:54:00:00:00:01#status";
    status.host = host;
    status.ccid = "cc1";
    status.hardware_data = {8, 5, 32768, 1000, 500'000, 1000};
    status.net_data.ip0 = host == "nc1" ? "10.0.0.11" : "10.0.0.12";
    status.vm_data = running_vms[host];
    status.images = std::move(images);
    status.service_data.booted_at = booted_at[host];
    status.service_data.data_port = 8003;
    publish(*cc, "nodestatus.cc-cc1", msg::serialize(status));
  }
  void beat() {
    msg::CcStatus status;
    status.ccid = "cc#52:54:00:00:00:02#status";
    status.host = "cc1";
    status.net_data.ip0 = "10.0.0.2";
    status.service_data.data_port = 8002;
    publish(*cc, "ccstatus.cc-cc1", msg::serialize(status));
    if (nc1_beats) beat_node("nc1");
    if (nc2_beats) beat_node("nc2");
    settle();
  }
  void publish(bus::Bus& from, const std::string& key, const std::string& body) {
    ASSERT_TRUE(from.publish({"clc_status", key, body, "", {}}, [](bus::Outcome) {}));
  }

  /// A status that answers `command`.
  msg::TaskStatus answer(const msg::Command& command, Event event) {
    msg::TaskStatus status;
    status.phase = "preparing";
    status.state = "init";
    status.tid = command.tid;
    status.cmdid = command.cmdid;
    status.nid = command.nid;
    status.ccid = command.ccid;
    status.epoch = command.epoch;
    status.attempt = command.attempt;
    status.seq = ++seq_[command.tid];
    status.msgid = "m" + std::to_string(++msgid_);
    status.event = to_string(event);
    status.failed = event == Event::failed ? 1 : 0;
    return status;
  }
  void tell(const msg::TaskStatus& status) {
    const bool of_walrus = status.nid.empty();
    publish(of_walrus ? *walrus : *cc, of_walrus ? "taskstatus.walrus" : "taskstatus.cc-cc1",
            msg::serialize(status));
    settle();
  }
  /// Answers the last command.
  void say(Event event, const std::string& errormsg = "") {
    auto status = answer(last(), event);
    status.errormsg = errormsg;
    tell(status);
  }
  std::string receipt(const msg::Command& command, char digit = 'a') {
    return transfer::sign_receipt(kKey, {command.target_imgid, command.target_version, std::string(64, digit),
                                         5 << 20, 100 << 20, "raw", "", command.cmdid});
  }
  void say_submitted(char digit = 'a') {
    auto status = answer(last(), Event::submitted);
    status.receipt = receipt(last(), digit);
    tell(status);
  }

  /// "phase/state", with "!" if failed, "+" if what it was for is reached.
  std::string at(const std::string& tid) {
    const auto view = cloud->task(admin, tid);
    if (!view) return view.error().message;
    const auto& task = view->task;
    return std::string(to_string(task.state.phase)) + "/" + std::string(to_string(task.state.state)) +
           (task.failed ? "!" : "") + (task.achieved ? "+" : "");
  }
  /// An image with one version.
  std::string import(const std::string& name) {
    NewImage request;
    request.name = name;
    const auto made = cloud->create_image(admin, request);
    EXPECT_TRUE(made) << made.error().message;
    ops();
    say_submitted();
    EXPECT_EQ(ops(), "task/delete");
    say(Event::deleted);
    EXPECT_EQ(cloud->image(admin, made->imgid)->state, "ready");
    return made->imgid;
  }
  /// Through prepare and run.
  void bring_up() {
    ASSERT_EQ(ops(), "image/prepare");
    say(Event::prepared);
    ASSERT_EQ(ops(), "image/run");
    say(Event::booting);
    say(Event::running);
  }
  std::string define(const std::string& imgid, const std::string& kind = "VD") {
    NewVm request;
    request.imgid = imgid;
    request.kind = kind;
    const auto vm = cloud->define_vm(admin, request);
    EXPECT_TRUE(vm) << vm.error().message;
    return vm ? vm->instance.insid : "";
  }

  std::filesystem::path folder_;
  ManualClock clock;
  bus::MemoryBroker broker;
  EventHub events;
  std::unique_ptr<store::Store> store;
  std::unique_ptr<Heartbeats> heartbeats;
  std::unique_ptr<Cloud> cloud;
  std::unique_ptr<bus::Bus> bus, cc, walrus;
  std::unique_ptr<OutboxRelay> relay;
  std::unique_ptr<StatusConsumer> statuses;
  std::unique_ptr<Ticker> ticker;
  std::vector<msg::Command> commands;
  std::vector<msg::LeaseGrant> grants;  ///< of the last lease
  std::map<std::string, std::vector<msg::VmData>> running_vms;
  std::map<std::string, std::int64_t> booted_at;  ///< as the nodes' heartbeats tell
  bool nc1_beats = true, nc2_beats = true;

 private:
  std::size_t seen_ = 0;
  std::map<std::string, std::int64_t> seq_;
  int msgid_ = 0;
};

}  // namespace educloud::clc
