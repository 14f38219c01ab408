// What two nodes say to each other about a VM that moves, over real HTTP; their guests are fakes.
#include "common/http/server.hpp"
#include "common/sys/file.hpp"
#include "common/sys/pause.hpp"
#include "common/transfer/grant.hpp"
#include "nc/app/move_desk.hpp"
#include "unit/nc/node_fixture.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;

const std::string kServer = "IMG00000001:IMG00000001:VS0000beef";

/// nc1 is the fixture's node; nc2 takes what it sends.
class MoveProtocol : public NodeTest {
 protected:
  static inline const std::string kKey = std::string(64, '2');

  void SetUp() override {
    NodeTest::SetUp();
    there_ = prefix_.string() + "-there";
    images_there_ = std::make_unique<FakeImageTools>(there_);
    std::filesystem::create_directories(there_);
    open_other();
  }
  void TearDown() override {
    close_other();
    NodeTest::TearDown();
    std::filesystem::remove_all(there_);
  }
  void open_other() {
    inbox::Options options;
    options.file = there_ / "inbox.sqlite";
    options.exchange = "cc_status";
    options.routing_key = "taskstatus.nc-nc2";
    options.nid = "nc2";
    bus_there_ = broker_.connect("nc-nc2");
    inbox_there_ = std::move(*inbox::Inbox::open(options, *bus_there_, clock_));
    OperationOptions operations;
    operations.layout = Layout(there_);
    operations.limits = {
        .max_memory_mib = 4096, .max_cpus = 4, .advertise = "127.0.0.1", .guest_egress = false};
    operations.limits.data_disk_bytes = 1 << 30;
    operations.disks = &disks_;
    operations.lazy.proxy = false;
    operations.folders = [this](VmSpec&, const std::stop_token& stop) -> Result<std::string> {
      ++folders_asked_;
      while (folders_hang_ && sys::pause(std::chrono::milliseconds{5}, stop)) {
      }
      if (stop.stop_requested()) return fail(ErrorCode::cancelled, "interrupted");
      return std::string();
    };
    node_there_ =
        std::make_unique<Node>(operations, "nc2", *inbox_there_, hypervisor_there_, *images_there_, clock_);
    ASSERT_TRUE(hypervisor_there_.start([](const VmEvent&) {}));
    desk_ = std::make_unique<MoveDesk>(MoveDeskOptions{"nc2", kKey}, node_there_->operations(),
                                       hypervisor_there_, clock_);
    http::Router router;
    desk_->add_routes(router);
    http::ServerOptions server;
    server.port = port_;
    server_ = std::make_unique<http::Server>(server, std::move(router));
    ASSERT_TRUE(server_->start());
    port_ = server_->port();
  }
  void close_other() {
    server_->stop();
    desk_->stop();
    server_.reset();
    desk_.reset();
    node_there_.reset();
    inbox_there_.reset();
    bus_there_.reset();
  }
  msg::Command order(const std::string& tid, const std::string& key = kKey) {
    auto made = command("instance/migrate", tid);
    made.epoch = 5;
    auto& to = made.move.emplace();
    to.nid = "nc2";
    to.address = "127.0.0.1";
    to.port = port_;
    to.grant = transfer::sign_grant(key, {"PUT", "/migrations/" + tid.substr(24), "nc2", 9'000'000'000});
    to.rdp_port = 5990;
    to.web_port = 8990;
    return made;
  }
  /// Of the epoch that a move began.
  msg::TaskStatus ask_later(const std::string& op, const std::string& tid) {
    auto made = command(op, tid);
    made.epoch = 5;
    return ask(made);
  }
  /// What clc sends to nc2.
  void send_there(const std::string& op, std::int64_t epoch) {
    auto made = command(op, kDesktop);
    made.nid = "nc2";
    made.epoch = epoch;
    made.runtime_option->folders = {{"d", "space/pub-data", 0}};
    bus::Delivery delivery;
    delivery.body = msg::serialize(made);
    delivery.settle = [](bus::Verdict) {};
    node_there_->handle(std::move(delivery));
    while (node_there_->run_one(Lane::machines)) {
    }
  }
  std::string told_there() {
    const auto entry = inbox_there_->find(kDesktop);
    return entry && entry->status ? entry->status->event : "";
  }
  /// nc1's word that it sends the desktop.
  int announce(std::int64_t epoch = 5) {
    auto announced = order(kDesktop);
    announced.epoch = epoch;
    announced.nid = "nc2";
    announced.runtime_option->folders = {{"d", "space/pub-data", 0}};
    http::Client client(*http::Url::parse("http://127.0.0.1:" + std::to_string(port_)), {});
    const auto target = "/migrations/VD0000beef?" + announced.move->grant;
    announced.move.reset();
    auto said = client.send({.method = "PUT", .target = target, .body = msg::serialize(announced)});
    return said ? static_cast<int>(said->status) : 0;
  }
  template <typename Done>
  static bool soon(const Done& done) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{30};
    while (!done() && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds{10});
    return done();
  }
  bool is_there(const std::string& tid) { return hypervisor_there_.state(vm(tid)).has_value(); }
  bool runs_here(const std::string& tid) {
    auto state = hypervisor_.state(vm(tid));
    return state && *state == VmState::running;
  }
  void mark(const msg::Command& of, int handed) {
    ASSERT_TRUE(sys::write_file_atomically(vm_folder(of.tid) / "move.json",
                                           nlohmann::json{{"cmdid", of.cmdid}, {"handed", handed}}.dump(),
                                           0600));
  }

  std::filesystem::path there_;
  FakeHypervisor hypervisor_there_;
  std::unique_ptr<FakeImageTools> images_there_;
  std::unique_ptr<bus::Bus> bus_there_;
  std::unique_ptr<inbox::Inbox> inbox_there_;
  std::unique_ptr<Node> node_there_;
  std::unique_ptr<MoveDesk> desk_;
  std::unique_ptr<http::Server> server_;
  int port_ = 0;
  std::atomic<int> folders_asked_ = 0;
  std::atomic<bool> folders_hang_ = false;
};

TEST_F(MoveProtocol, ADesktopRunsThereAndNoMoreHere) {
  ASSERT_EQ(ask("image/prepare", kDesktop).event, "prepared");
  ASSERT_EQ(ask("image/run", kDesktop).event, "running");
  const auto done = ask(order(kDesktop));
  EXPECT_EQ(done.event, "running");
  EXPECT_EQ(done.final, 1);
  EXPECT_EQ(done.prompt, "it runs on nc2 now");
  EXPECT_THAT(events(), ::testing::Contains("migrating"));
  EXPECT_FALSE(hypervisor_.state(vm(kDesktop)));
  EXPECT_FALSE(std::filesystem::exists(overlay(kDesktop)));
  ASSERT_TRUE(is_there(kDesktop));
  EXPECT_EQ(*hypervisor_there_.state(vm(kDesktop)), VmState::running);
  const auto spec = hypervisor_there_.spec(vm(kDesktop));
  EXPECT_EQ(spec->epoch, 5);
  EXPECT_EQ(spec->display_port, 5990);
  EXPECT_EQ(spec->display_password, "secret");
  EXPECT_EQ(spec->memory_mib, 128);
  // That its VM is gone is no news here.
  told_.clear();
  clock_.advance(std::chrono::seconds{5});
  node_->reconcile();
  clock_.advance(std::chrono::seconds{5});
  node_->reconcile();
  work();
  EXPECT_TRUE(told_.empty());
  // clc's farewell.
  EXPECT_EQ(ask_later("task/delete", kDesktop).event, "deleted");
  EXPECT_TRUE(is_there(kDesktop));
}

TEST_F(MoveProtocol, WhatFailsOnTheWayLeavesItHere) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  hypervisor_.fail_next_move({ErrorCode::unavailable, "Broken pipe", {}});
  const auto refused = ask(order(kDesktop));
  EXPECT_EQ(refused.event, "refused");
  EXPECT_EQ(refused.state, "running");
  EXPECT_THAT(refused.errormsg, HasSubstr("Broken pipe"));
  EXPECT_TRUE(runs_here(kDesktop));
  EXPECT_FALSE(is_there(kDesktop));
  EXPECT_FALSE(std::filesystem::exists(there_ / "VMs" / "VD0000beef"));
  EXPECT_EQ(ask(order(kDesktop)).event, "running") << "the next time";
  EXPECT_TRUE(is_there(kDesktop));
}

TEST_F(MoveProtocol, OnlyWithClcsLeaveForThatNode) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  const auto refused = ask(order(kDesktop, std::string(64, '3')));
  EXPECT_EQ(refused.event, "refused");
  EXPECT_TRUE(runs_here(kDesktop));
  EXPECT_FALSE(is_there(kDesktop));
}

TEST_F(MoveProtocol, WhatCannotMoveIsRefused) {
  ask("image/prepare", kModify);
  ask("image/run", kModify);
  EXPECT_THAT(ask(order(kModify)).errormsg, HasSubstr("submit it first"));
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  auto with_folders = order(kDesktop);
  with_folders.runtime_option->folders = {{"d", "space/pub-data", 0}};
  EXPECT_THAT(ask(with_folders).errormsg, HasSubstr("--folders smb"));
  ask_later("instance/pause", kDesktop);
  EXPECT_THAT(ask(order(kDesktop)).errormsg, HasSubstr("resume it"));
  EXPECT_FALSE(is_there(kDesktop));
}

TEST_F(MoveProtocol, OfARestartInTheMiddleTheVmStaysHere) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  const auto one = order(kDesktop);
  mark(one, 0);
  ASSERT_TRUE(hypervisor_.pause(vm(kDesktop)));
  const auto refused = ask(one);
  EXPECT_EQ(refused.event, "refused");
  EXPECT_THAT(refused.errormsg, HasSubstr("restarted"));
  EXPECT_TRUE(runs_here(kDesktop));
}

TEST_F(MoveProtocol, OnceHandedOverTheOtherNodeDecides) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  // All of it was there when this daemon was killed, before it asked.
  auto one = order(kDesktop);
  VmSpec spec = *hypervisor_.spec(vm(kDesktop));
  ASSERT_TRUE(hypervisor_there_.receive(spec, {}));
  ASSERT_TRUE(hypervisor_.pause(vm(kDesktop)));
  mark(one, 1);
  EXPECT_EQ(ask(one).event, "running");
  EXPECT_FALSE(hypervisor_.state(vm(kDesktop)));
  EXPECT_EQ(*hypervisor_there_.state(vm(kDesktop)), VmState::running);
}

TEST_F(MoveProtocol, WhatRanThereAndEndedDoesNotGoOnHere) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  const auto one = order(kDesktop);
  ASSERT_TRUE(hypervisor_there_.receive(*hypervisor_.spec(vm(kDesktop)), {}));
  ASSERT_TRUE(hypervisor_.pause(vm(kDesktop)));
  mark(one, 1);
  http::Client client(*http::Url::parse("http://127.0.0.1:" + std::to_string(port_)), {});
  const auto target = "/migrations/VD0000beef/take-over?" + one.move->grant;
  ASSERT_EQ(client.send({.method = "POST", .target = target})->status, 200);
  ASSERT_TRUE(hypervisor_there_.destroy(vm(kDesktop)));
  EXPECT_EQ(ask(one).event, "running") << "the answer was lost: clc starts it anew over there";
  EXPECT_FALSE(hypervisor_.state(vm(kDesktop)));
}

TEST_F(MoveProtocol, WhatCannotBeClearedAwayHereDoesNotMakeTheMoveFail) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  const auto one = order(kDesktop);
  ASSERT_TRUE(hypervisor_there_.receive(*hypervisor_.spec(vm(kDesktop)), {}));
  ASSERT_TRUE(hypervisor_.pause(vm(kDesktop)));
  mark(one, 1);
  // A file that cannot be removed, and a hypervisor that is away just then.
  std::filesystem::remove(overlay(kDesktop));
  std::filesystem::create_directories(overlay(kDesktop) / "in-the-way");
  hypervisor_.set_reachable(false);
  std::jthread comes_back([&] {
    soon([&] {
      const auto there = hypervisor_there_.state(vm(kDesktop));
      return there && *there == VmState::running;
    });
    hypervisor_.set_reachable(true);
  });
  const auto done = ask(one);
  EXPECT_EQ(done.event, "running") << done.errormsg;
  EXPECT_EQ(done.final, 1);
  EXPECT_FALSE(hypervisor_.state(vm(kDesktop)));
  EXPECT_EQ(*hypervisor_there_.state(vm(kDesktop)), VmState::running);
  EXPECT_EQ(ask_later("task/delete", kDesktop).event, "deleted") << "clc's farewell";
  EXPECT_FALSE(std::filesystem::exists(vm_folder(kDesktop)));
}

TEST_F(MoveProtocol, LostOnTheWayItGoesOnHere) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  const auto one = order(kDesktop);
  ASSERT_TRUE(hypervisor_.pause(vm(kDesktop)));
  mark(one, 1);
  const auto refused = ask(one);  // the other node knows of no such VM
  EXPECT_EQ(refused.event, "refused");
  EXPECT_TRUE(runs_here(kDesktop));
}

TEST_F(MoveProtocol, WhatAnotherNodeMayHaveIsNotResumedHere) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  ASSERT_TRUE(hypervisor_.pause(vm(kDesktop)));
  mark(order(kDesktop), 1);
  EXPECT_EQ(ask("instance/resume", kDesktop).event, "refused");
  EXPECT_FALSE(runs_here(kDesktop));
  // A stop needs no guest that runs.
  EXPECT_EQ(ask("image/stop", kDesktop).event, "stopped");
  EXPECT_EQ(ask("image/prepare", kDesktop).event, "prepared");
  EXPECT_EQ(ask("image/run", kDesktop).event, "running");
  EXPECT_EQ(ask("instance/pause", kDesktop).event, "paused");
  EXPECT_EQ(ask("instance/resume", kDesktop).event, "running") << "the mark was of the VM before";
}

TEST_F(MoveProtocol, AnAnnouncementThatNobodyFollowsUpIsGivenUp) {
  const auto one = order(kDesktop);
  auto announced = one;
  announced.move.reset();
  announced.nid = "nc2";
  http::Client client(*http::Url::parse("http://127.0.0.1:" + std::to_string(port_)), {});
  const auto target = "/migrations/VD0000beef?" + one.move->grant;
  ASSERT_EQ(client.send({.method = "PUT", .target = target, .body = msg::serialize(announced)})->status, 200);
  const auto until = [&](bool there) { return soon([&] { return is_there(kDesktop) == there; }); };
  ASSERT_TRUE(until(true));
  // The fake's VM has arrived at once: it may have been promised, so silence does not end it; a word does.
  clock_.advance(std::chrono::milliseconds{MoveDesk::kSilenceMs + 1});
  EXPECT_TRUE(is_there(kDesktop));
  EXPECT_EQ(client.send({.method = "DELETE", .target = target})->status, 200);
  EXPECT_TRUE(until(false));
  EXPECT_EQ(client.send({.method = "POST", .target = "/migrations/VD0000beef/take-over?" + one.move->grant})
                ->status,
            404);
}

TEST_F(MoveProtocol, AStartDoesNotTakeWhatIsStillOnItsWayForItsOwn) {
  ASSERT_EQ(announce(5), 200);
  ASSERT_TRUE(soon([&] { return is_there(kDesktop); }));
  send_there("image/run", 5);
  EXPECT_EQ(told_there(), "failed");
  EXPECT_EQ(*hypervisor_there_.state(vm(kDesktop)), VmState::paused) << "it may be promised";
  send_there("image/run", 6);
  EXPECT_EQ(told_there(), "running");
  EXPECT_EQ(*hypervisor_there_.state(vm(kDesktop)), VmState::running);
  EXPECT_EQ(hypervisor_there_.spec(vm(kDesktop))->epoch, 6) << "a VM of its own";
}

TEST_F(MoveProtocol, AStartEndsWhatIsBeingMadeReady) {
  folders_hang_ = true;
  ASSERT_EQ(announce(5), 200);
  ASSERT_TRUE(soon([&] { return folders_asked_ == 1; }));
  std::jthread lets_go([&] {
    if (soon([&] { return folders_asked_ == 2; })) folders_hang_ = false;
  });
  send_there("image/run", 6);
  EXPECT_EQ(told_there(), "running");
  EXPECT_EQ(hypervisor_there_.spec(vm(kDesktop))->epoch, 6);
  EXPECT_EQ(hypervisor_there_.starts(), 1);
  // Nor does the end of the other take anything away.
  desk_->stop();
  EXPECT_TRUE(is_there(kDesktop));
  EXPECT_TRUE(std::filesystem::exists(there_ / "VMs/VD0000beef/overlay.qcow2"));
  int said = 0;
  EXPECT_TRUE(soon([&] { return said == 409 || (said = announce(7)) == 409; })) << "it is that node's by now";
}

TEST_F(MoveProtocol, AnOldFarewellDoesNotEndWhatHasComeBack) {
  ASSERT_EQ(announce(5), 200);
  ASSERT_TRUE(soon([&] { return is_there(kDesktop); }));
  send_there("task/delete", 4);
  EXPECT_EQ(told_there(), "deleted");
  EXPECT_TRUE(is_there(kDesktop));
  send_there("task/delete", 5);
  EXPECT_FALSE(is_there(kDesktop));
  EXPECT_FALSE(std::filesystem::exists(there_ / "VMs/VD0000beef"));
}

TEST_F(MoveProtocol, SilenceEndsWhatHangsWhileItIsMadeReady) {
  folders_hang_ = true;
  ASSERT_EQ(announce(), 200);
  ASSERT_TRUE(soon([&] { return folders_asked_ == 1; }));
  clock_.advance(std::chrono::milliseconds{MoveDesk::kSilenceMs + 1});
  EXPECT_TRUE(soon([&] { return !std::filesystem::exists(there_ / "VMs/VD0000beef"); }));
  EXPECT_FALSE(is_there(kDesktop));
  folders_hang_ = false;
  EXPECT_EQ(announce(6), 200) << "the next one can come";
  EXPECT_TRUE(soon([&] { return is_there(kDesktop); }));
}

}  // namespace
}  // namespace educloud::nc
