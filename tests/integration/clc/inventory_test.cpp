#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

/// What nodes say they hold, and what clc makes of it.
class InventoryTest : public CloudTest {
 protected:
  /// A desktop that runs on nc1, as clc believes.
  std::string running_vm() {
    const auto insid = define(import("debian"));
    const auto task = cloud->run_vm(admin, insid);
    EXPECT_TRUE(task) << task.error().message;
    bring_up();
    ops();
    return task->task.tid;
  }
  msg::Inventory empty_round(const std::string& host = "nc1") {
    msg::Inventory out;
    out.host = host;
    out.ccid = "cc1";
    out.ts = clock.wall_ms();
    out.round = "r" + std::to_string(++round_);
    return out;
  }
  /// Of the last command: done, and its VM runs.
  msg::Inventory full_round() {
    auto out = empty_round();
    const auto& command = last();
    out.tasks = {{command.tid, command.cmdid, command.op, command.epoch, command.attempt, 5, 1}};
    out.vms = {{command.tid.substr(24), command.tid, command.cmdid, "running", command.epoch, 0}};
    return out;
  }
  void send(const msg::Inventory& part) {
    publish(*cc, "nodestatus.cc-cc1", msg::serialize(part));
    settle();
  }
  /// Sends it a minute later, and lets clc act.
  std::string after_a_minute(const msg::Inventory& part) {
    clock.advance(std::chrono::seconds{60});
    beat();
    send(part);
    EXPECT_TRUE(ticker->tick());
    return ops();
  }
  std::int64_t ports() {
    return *store->read(
        [](store::Sql& sql) -> Result<std::int64_t> { return sql.number("SELECT COUNT(*) FROM ports"); });
  }

 private:
  int round_ = 0;
};

TEST_F(InventoryTest, ANodeThatHoldsWhatItShouldIsLeftAlone) {
  const auto tid = running_vm();
  EXPECT_EQ(after_a_minute(full_round()), "");
  EXPECT_EQ(at(tid), "editing/running+");
}

TEST_F(InventoryTest, ARunningVmThatItsNodeDoesNotHaveIsAskedAbout) {
  const auto tid = running_vm();
  const auto cmdid = last().cmdid;
  EXPECT_EQ(after_a_minute(empty_round()), "image/run");
  EXPECT_EQ(last().cmdid, cmdid) << "the same one, so that it is done at most once";
  say(Event::stopped);
  EXPECT_EQ(at(tid), "editing/stopped+");
}

TEST_F(InventoryTest, AWipedBrokerLosesNoCommand) {
  const auto insid = define(import("debian"));
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  EXPECT_EQ(ops(), "image/prepare");
  clock.advance(std::chrono::seconds{20});  // before clc would send it again by itself
  beat();
  send(empty_round());
  ASSERT_TRUE(ticker->tick());
  EXPECT_EQ(ops(), "image/prepare");
}

TEST_F(InventoryTest, OnlyACompleteRoundCounts) {
  running_vm();
  auto first = empty_round();
  first.parts = 2;
  EXPECT_EQ(after_a_minute(first), "");
  send(first);
  auto other = empty_round();
  other.parts = 2;
  other.part = 2;
  EXPECT_EQ(after_a_minute(other), "") << "of another round";
  auto second = other;
  second.part = 1;
  EXPECT_EQ(after_a_minute(second), "image/run");
}

TEST_F(InventoryTest, OnlyItsOwnCcSpeaksForANode) {
  running_vm();
  clock.advance(std::chrono::seconds{60});
  auto outsider = broker.connect("cc-cc9");
  auto forged = empty_round();
  forged.ccid = "cc9";
  publish(*outsider, "nodestatus.cc-cc9", msg::serialize(forged));
  const auto before = broker.dead_letters();
  forged.ccid = "cc1";
  publish(*outsider, "nodestatus.cc-cc9", msg::serialize(forged));
  settle();
  EXPECT_EQ(broker.dead_letters(), before + 1) << "cc9 named cc1";
  ASSERT_TRUE(ticker->tick());
  EXPECT_EQ(ops(), "") << "nc1 is no node of cc9";
}

TEST_F(InventoryTest, AVmOfAnEndedTaskIsEndedOnce) {
  const auto tid = running_vm();
  const auto round = full_round();
  ASSERT_TRUE(cloud->cancel_task(admin, tid));
  EXPECT_EQ(ops(), "task/delete");
  say(Event::deleted);
  EXPECT_EQ(after_a_minute(round), "task/delete");
  EXPECT_GT(last().attempt, round.tasks[0].attempt);
  auto again = round;
  again.round = "again";
  clock.advance(std::chrono::seconds{30});
  send(again);
  ASSERT_TRUE(ticker->tick());
  EXPECT_EQ(ops(), "") << "it was told half a minute ago";
}

TEST_F(InventoryTest, AnUnknownVmIsEndedOnlyWhenItStays) {
  auto round = empty_round();
  round.vms = {{"VD0000beef", "IMG00000001:IMG00000001:VD0000beef", "c", "running", 7, 0}};
  EXPECT_EQ(after_a_minute(round), "") << "first it is only said";
  round.round = "next";
  EXPECT_EQ(after_a_minute(round), "task/delete");
  EXPECT_EQ(last().nid, "nc1");
  EXPECT_EQ(last().epoch, 7);
}

TEST_F(InventoryTest, FilesOfAnUnknownTaskAreNeverTouched) {
  auto round = empty_round();
  round.vms = {{"TMP0000beef", "IMG00000001:IMG00000001:TMP0000beef", "", "shutoff", 0, 0}};
  for (int i = 0; i < 5; ++i) {
    round.round = "r" + std::to_string(i);
    EXPECT_EQ(after_a_minute(round), "");
  }
}

TEST_F(InventoryTest, AnOlderDatabaseGoesOnFromWhereTheNodeIs) {
  const auto tid = running_vm();
  auto round = full_round();
  round.tasks[0].cmdid = new_command_id().str();
  round.tasks[0].attempt += 5;
  round.tasks[0].op = "image/stop";
  EXPECT_EQ(after_a_minute(round), "image/stop");
  EXPECT_EQ(last().cmdid, round.tasks[0].cmdid) << "the node repeats what it knows";
  say(Event::stopped);
  EXPECT_EQ(at(tid), "editing/stopped+");
  ASSERT_TRUE(cloud->run_vm(admin, tid.substr(24)));
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_GT(last().attempt, round.tasks[0].attempt) << "and the next command counts";
}

TEST_F(InventoryTest, ADesktopDeletedSinceAnOlderDatabaseDoesNotRunForEver) {
  const auto tid = running_vm();
  EXPECT_EQ(after_a_minute(empty_round()), "image/run");
  EXPECT_EQ(at(tid), "editing/running+") << "the node may have lost its inbox: then it answers";
  EXPECT_EQ(after_a_minute(empty_round()), "");
  EXPECT_EQ(at(tid), "editing/stopped!+");
  EXPECT_EQ(ports(), 0);
  EXPECT_THAT(cloud->task(admin, tid)->task.errormsg, testing::HasSubstr("start it again"));
  ASSERT_TRUE(cloud->run_vm(admin, tid.substr(24)));
  EXPECT_EQ(ops(), "image/prepare");
}

TEST_F(InventoryTest, AnAdoptedVmIsReachedWhereItIs) {
  const auto tid = running_vm();
  const auto insid = tid.substr(24);
  auto round = full_round();
  round.tasks[0].cmdid = round.vms[0].cmdid = new_command_id().str();
  round.tasks[0].attempt += 3;
  round.tasks[0].rdp_port = 5901;
  ASSERT_TRUE(store->write([](store::Sql& sql) -> Result<> {
    EXPECT_EQ(store::take_port(sql, "nc1", "display", "VD0000beef", 5900, 5901), 5901) << "by an old book";
    return {};
  }));
  round.tasks[0].web_port = 20007;
  EXPECT_EQ(after_a_minute(round), "image/run");
  say(Event::running);
  EXPECT_EQ(at(tid), "editing/running+");
  const auto access = cloud->vm(admin, insid)->access;
  ASSERT_TRUE(access);
  EXPECT_EQ(access->display_port, 5901);
  EXPECT_EQ(access->web_port, 20007);
  EXPECT_EQ(access->display_password, "") << "rather none than a wrong one";
  EXPECT_EQ(ports(), 2);
}

TEST_F(InventoryTest, PortsOfNobodyAreFreedAfterAWhile) {
  ASSERT_TRUE(store->write([](store::Sql& sql) -> Result<> {
    store::take_port(sql, "nc1", "display", "VD0000beef", 5900, 5901);
    return {};
  }));
  advance(61);
  advance(500);
  EXPECT_EQ(ports(), 1) << "seen, and not for long enough";
  advance(200);
  EXPECT_EQ(ports(), 0);
  running_vm();
  const auto held = ports();
  EXPECT_GT(held, 0);
  for (int i = 0; i < 3; ++i) advance(400);
  EXPECT_EQ(ports(), held) << "these are somebody's";
}

}  // namespace
}  // namespace educloud::clc
