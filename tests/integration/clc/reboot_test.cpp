#include "clc/app/leases.hpp"
#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

/// Node nc1 of cc1, whose host is restarted.
class RebootTest : public CloudTest {
 protected:
  void SetUp() override {
    CloudTest::SetUp();
    nc2_beats = false;
    booted_at["nc1"] = 1000;
    advance(20);
    image = import("debian");
  }
  void tune(CloudOptions& options) override {
    options.display_port_last = 5999;
    options.gate.max_parallel = gate;
  }
  /// A desktop that runs on nc1; its tid.
  std::string running(bool autostart, const std::string& kind = "VD") {
    const auto insid = define(image, kind);
    EXPECT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
      sql.run("UPDATE instances SET autostart = ? WHERE insid = ?", {autostart, insid});
      return {};
    }));
    const auto task = cloud->run_vm(admin, insid);
    EXPECT_TRUE(task) << task.error().message;
    bring_up();
    ops();
    return task->task.tid;
  }
  /// The heartbeat that tells of a new boot.
  void reboot() {
    ++booted_at["nc1"];
    advance(1);
  }
  Task task(const std::string& tid) { return cloud->task(admin, tid)->task; }

  std::string image;
  int gate = 40;
};

TEST_F(RebootTest, WhatStartsByItselfStartsAgainAndAnythingElseIsStopped) {
  const auto kept = running(true), plain = running(false);
  const auto before = task(kept);
  reboot();
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().tid, kept);
  EXPECT_EQ(last().epoch, before.epoch + 1);
  EXPECT_EQ(at(plain), "editing/stopped!+");
  EXPECT_THAT(task(plain).errormsg, HasSubstr("node nc1 was restarted"));
  say(Event::prepared);
  EXPECT_EQ(ops(), "image/run");
  say(Event::running);
  EXPECT_EQ(at(kept), "editing/running+");
  advance(30);
  EXPECT_EQ(ops(), "") << "once for each reboot";
}

TEST_F(RebootTest, TheFirstHeartbeatSaysNothingOfAReboot) {
  booted_at["nc1"] = 0;
  store->write([](store::Sql& sql) -> Result<> {
    sql.run("UPDATE nodes SET booted_at = 0");
    return {};
  });
  const auto tid = running(true);
  booted_at["nc1"] = 5000;
  advance(5);
  EXPECT_EQ(ops(), "");
  EXPECT_EQ(at(tid), "editing/running+");
}

TEST_F(RebootTest, AStatusMayTellOfItBeforeTheHeartbeatDoes) {
  const auto kept = running(true), plain = running(false);
  const auto of_plain = last();
  const auto of_kept = *std::find_if(commands.rbegin(), commands.rend(),
                                     [&](const msg::Command& one) { return one.tid == kept; });
  for (const auto& command : {of_kept, of_plain}) {
    auto ended = answer(command, Event::failed);
    ended.errormsg = "the VM ended while nc or libvirt was away";
    ended.booted_at = 1001;
    tell(ended);
  }
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(at(kept), "preparing/init+");
  EXPECT_THAT(task(plain).errormsg, HasSubstr("node nc1 was restarted"));
  reboot();
  EXPECT_EQ(ops(), "");
  auto old = answer(of_kept, Event::running);
  old.booted_at = 1000;
  tell(old);
  EXPECT_EQ(at(kept), "preparing/init+") << "of the time before";
}

TEST_F(RebootTest, SurvivesACrashOfClc) {
  const auto kept = running(true);
  reboot();
  EXPECT_EQ(ops(), "image/prepare");
  halt();
  boot();
  beat();
  advance(5);
  EXPECT_EQ(ops(), "") << "it was noted with what it led to";
  reboot();
  EXPECT_EQ(ops(), "") << "the node goes on with its command after another one";
  --booted_at["nc1"];
  advance(5);
  EXPECT_EQ(ops(), "") << "an old heartbeat";
  say(Event::prepared);
  ops();
  say(Event::running);
  EXPECT_EQ(at(kept), "editing/running+");
}

TEST_F(RebootTest, WhatTheNodeDoesAgainIsLeftToIt) {
  const auto stopping = running(true);
  ASSERT_TRUE(cloud->stop_vm(admin, task(stopping).insid));
  EXPECT_EQ(ops(), "image/stop");
  reboot();
  EXPECT_EQ(ops(), "");
  say(Event::stopped);
  EXPECT_EQ(at(stopping), "editing/stopped+") << "its owner had stopped it";
}

TEST_F(RebootTest, ALongRebootOfTheOnlyNode) {
  Leases leases(*store, cloud->impl().engine, *heartbeats, *bus, clock);
  const auto kept = running(true);
  nc1_beats = false;
  for (int i = 0; i < 30; ++i) {
    advance(5, false);
    beat();
    ASSERT_TRUE(leases.tick());
  }
  EXPECT_THAT(task(kept).errormsg, HasSubstr("node nc1 is lost"));
  EXPECT_EQ(ops(), "");
  nc1_beats = true;
  reboot();
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().nid, "nc1");
  EXPECT_EQ(at(kept), "preparing/init+");
}

class StagedTest : public RebootTest {
 protected:
  StagedTest() { gate = 1; }
};

TEST_F(StagedTest, TheOldestFirstThroughTheGate) {
  const auto first = running(true);
  advance(60);
  const auto second = running(true);
  advance(60);
  reboot();
  EXPECT_EQ(ops(), "image/prepare image/prepare");
  const auto prepares = std::vector(commands.end() - 2, commands.end());
  EXPECT_EQ(prepares[0].tid, first);
  EXPECT_EQ(prepares[1].tid, second);
  for (const auto& one : prepares) tell(answer(one, Event::prepared));
  EXPECT_EQ(ops(), "image/run") << "one at once";
  EXPECT_EQ(last().tid, first);
  say(Event::running);
  EXPECT_EQ(ops(), "image/run");
  EXPECT_EQ(last().tid, second);
}

}  // namespace
}  // namespace educloud::clc
