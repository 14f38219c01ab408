#include "clc/app/leases.hpp"
#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

/// Nodes nc1 and nc2 of cc1 with leases; time passes in steps of five seconds.
class LostTest : public CloudTest {
 protected:
  void SetUp() override {
    CloudTest::SetUp();
    begin_leases();
  }
  void begin_leases() {
    leases = std::make_unique<Leases>(*store, cloud->impl().engine, *heartbeats, *bus, clock);
  }
  void pass(int seconds) {
    for (int i = 0; i < seconds; i += 5) {
      clock.advance(std::chrono::seconds{5});
      if (cc_beats) beat();
      ASSERT_TRUE(ticker->tick());
      ASSERT_TRUE(leases->tick());
      settle();
    }
  }
  std::string granted() {
    std::string out;
    for (const auto& one : grants) out += one.host + ":" + std::to_string(one.epoch) + " ";
    return out;
  }
  Node node(const std::string& host) {
    return *store->read([&](store::Sql& sql) -> Result<Node> { return *store::find_node(sql, host); });
  }
  void say_inventory(std::int64_t lease_epoch, const std::string& host = "nc1",
                     std::vector<msg::InventoryVm> vms = {}) {
    msg::Inventory round;
    round.vms = std::move(vms);
    round.host = host;
    round.ccid = "cc1";
    round.round = "r" + std::to_string(++round_);
    round.lease_epoch = lease_epoch;
    publish(*cc, "nodestatus.cc-cc1", msg::serialize(round));
    settle();
  }
  /// A desktop that runs on nc1.
  std::string desktop() {
    nc2_beats = false;
    pass(20);
    const auto insid = define(import("debian"));
    const auto task = cloud->run_vm(admin, insid);
    EXPECT_TRUE(task) << task.error().message;
    EXPECT_EQ(task->task.node, "nc1");
    bring_up();
    ops();
    nc2_beats = true;
    pass(5);
    return task->task.tid;
  }
  Task task(const std::string& tid) { return cloud->task(admin, tid)->task; }

  std::unique_ptr<Leases> leases;
  bool cc_beats = true;

 private:
  int round_ = 0;
};

TEST_F(LostTest, NodesThatAreHeardOfAreGrantedTheirLease) {
  pass(5);
  EXPECT_EQ(granted(), "nc1:1 nc2:1 ");
  nc1_beats = false;
  pass(15);
  EXPECT_EQ(granted(), "nc1:1 nc2:1 ");
  pass(5);
  EXPECT_EQ(granted(), "nc2:1 ") << "suspect: no more grants";
  EXPECT_EQ(node("nc1").lost_at, 0);
}

TEST_F(LostTest, ADesktopOfALostNodeBeginsAgainElsewhere) {
  const auto tid = desktop();
  const auto run = last();
  nc1_beats = false;
  pass(60);
  EXPECT_EQ(ops(), "") << "not yet";
  EXPECT_EQ(node("nc1").lost_at, 0);
  pass(5);
  EXPECT_GT(node("nc1").lost_at, 0);
  EXPECT_EQ(node("nc1").lease_epoch, 2);
  EXPECT_EQ(ops(), "task/delete image/prepare");
  const auto farewell = commands[commands.size() - 2];
  EXPECT_EQ(farewell.nid, "nc1");
  EXPECT_EQ(std::pair(farewell.epoch, farewell.attempt), std::pair(run.epoch, run.attempt + 1));
  EXPECT_GT(farewell.deadline, clock.wall_ms() + 6 * 24 * 3'600'000LL);
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_EQ(last().epoch, run.epoch + 1);
  EXPECT_EQ(at(tid), "preparing/init+");
  say(Event::prepared);
  EXPECT_EQ(ops(), "image/run");
  say(Event::running);
  EXPECT_EQ(at(tid), "editing/running+");
  EXPECT_EQ(task(tid).node, "nc2");
  auto late = answer(run, Event::stopped);
  tell(late);
  EXPECT_EQ(at(tid), "editing/running+") << "what the old node still says does not count";
  const auto ports = store->read([](store::Sql& sql) -> Result<std::int64_t> {
    return sql.number("SELECT COUNT(*) FROM ports WHERE node = 'nc1'");
  });
  EXPECT_EQ(*ports, 0);
}

TEST_F(LostTest, ANodeThatStillRunsWhatWentElsewhereIsNotBackYet) {
  const auto tid = desktop();
  const auto run = last();
  nc1_beats = false;
  pass(65);
  EXPECT_EQ(task(tid).node, "nc2");
  nc1_beats = true;
  pass(10);
  say_inventory(2, "nc1", {{task(tid).insid, tid, run.cmdid, "running", run.epoch, 0}});
  pass(5);
  EXPECT_GT(node("nc1").lost_at, 0) << "its ports and memory are not free";
  say_inventory(2);
  pass(5);
  EXPECT_EQ(node("nc1").lost_at, 0);
}

TEST_F(LostTest, ANodeThatIsBackIsOneOfThemOnlyOnceItKnows) {
  desktop();
  nc1_beats = false;
  pass(65);
  ops();
  nc1_beats = true;
  pass(10);
  EXPECT_EQ(granted(), "nc1:2 nc2:1 ");
  EXPECT_GT(node("nc1").lost_at, 0);
  say_inventory(1);
  pass(5);
  EXPECT_GT(node("nc1").lost_at, 0) << "taken before it heard of its loss";
  say_inventory(2);
  pass(5);
  EXPECT_EQ(node("nc1").lost_at, 0);
}

TEST_F(LostTest, AnOlderDatabaseTakesTheNodesEpoch) {
  pass(5);
  say_inventory(9);
  pass(10);
  EXPECT_EQ(granted(), "nc1:9 nc2:1 ") << "one with a lower epoch would not count there";
}

TEST_F(LostTest, ADesktopThatFindsNoNodeIsTriedForAgain) {
  const auto tid = desktop();
  nc1_beats = nc2_beats = false;
  pass(65);
  EXPECT_TRUE(task(tid).failed);
  EXPECT_THAT(task(tid).errormsg, StartsWith("node nc1 is lost; and it cannot start elsewhere: no node can"));
  EXPECT_EQ(ops(), "");
  nc2_beats = true;
  pass(10);
  say_inventory(2, "nc2");
  pass(60);
  EXPECT_THAT(ops(), StartsWith("task/delete image/prepare"));
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_FALSE(task(tid).failed);
}

TEST_F(LostTest, ADesktopThatNeverFindsANodeIsGivenUpInTheEnd) {
  const auto tid = desktop();
  nc1_beats = nc2_beats = false;
  pass(2100);
  EXPECT_EQ(at(tid), "editing/stopped!+");
  EXPECT_EQ(ops(), "task/delete") << "the lost node forgets it some day";
  nc2_beats = true;
  pass(10);
  say_inventory(2, "nc2");
  pass(120);
  EXPECT_EQ(ops(), "") << "the user decides now";
  ASSERT_TRUE(cloud->run_vm(admin, tid.substr(24)));
}

TEST_F(LostTest, ANodeThatComesBackInTimeKeepsWhatFoundNoOther) {
  const auto tid = desktop();
  nc1_beats = nc2_beats = false;
  pass(70);
  EXPECT_TRUE(task(tid).failed);
  nc1_beats = true;
  pass(10);
  msg::Inventory round;
  const auto& run = last();
  round.host = "nc1";
  round.ccid = "cc1";
  round.round = "back";
  round.lease_epoch = 2;
  round.vms = {{tid.substr(24), tid, run.cmdid, "running", run.epoch, 0}};
  round.tasks = {{tid, run.cmdid, run.op, run.epoch, run.attempt, 5, 1}};
  publish(*cc, "nodestatus.cc-cc1", msg::serialize(round));
  settle();
  pass(5);
  EXPECT_EQ(at(tid), "editing/running+");
  EXPECT_EQ(task(tid).errormsg, "");
  EXPECT_EQ(ops(), "");
}

TEST_F(LostTest, WhatWasMadeOnANodeWaitsForIt) {
  nc2_beats = false;
  pass(20);
  const auto modify = cloud->modify_image(admin, import("debian"), {});
  ASSERT_TRUE(modify) << modify.error().message;
  bring_up();
  nc2_beats = true;
  nc1_beats = false;
  pass(70);
  const auto tid = modify->task.tid;
  EXPECT_EQ(task(tid).node, "nc1");
  EXPECT_EQ(at(tid), "editing/running!");
  EXPECT_THAT(task(tid).errormsg, HasSubstr("goes on when the node comes back"));
  EXPECT_EQ(ops(), "");
  ASSERT_TRUE(cloud->cancel_task(admin, tid, true)) << "no need to wait ten minutes";
  EXPECT_EQ(at(tid), "submitting/gone");
}

TEST_F(LostTest, WhatWasToStopOrGoIsStoppedOrGone) {
  const auto stopping = desktop();
  ASSERT_TRUE(cloud->stop_vm(admin, stopping.substr(24)));
  EXPECT_EQ(ops(), "image/stop");
  nc1_beats = false;
  pass(65);
  EXPECT_EQ(at(stopping), "editing/stopped+");
  EXPECT_THAT(ops(), testing::EndsWith("task/delete"));
  ASSERT_TRUE(cloud->delete_vm(admin, stopping.substr(24)));
  pass(10);
  EXPECT_EQ(at(stopping), "submitting/gone+");
}

TEST_F(LostTest, AClusterThatIsCutOffIsNotStartedTwice) {
  const auto tid = desktop();
  cc_beats = nc1_beats = nc2_beats = false;
  pass(120);
  EXPECT_GT(node("nc1").lost_at, 0) << "by the rule";
  EXPECT_EQ(ops(), "") << "but its desktops may well run on";
  cc_beats = nc1_beats = nc2_beats = true;
  pass(60);
  EXPECT_EQ(ops(), "");
  EXPECT_EQ(at(tid), "editing/running+");
}

TEST_F(LostTest, NothingIsLostBecauseWeWereAway) {
  const auto tid = desktop();
  nc1_beats = false;
  pass(30);
  clock.advance(std::chrono::seconds{600});  // stopped, suspended
  ASSERT_TRUE(leases->tick());
  EXPECT_EQ(node("nc1").lost_at, 0);
  halt();
  boot();
  begin_leases();
  pass(55);
  EXPECT_EQ(node("nc1").lost_at, 0) << "nor in the first minute after a start";
  pass(20);
  EXPECT_GT(node("nc1").lost_at, 0);
  EXPECT_EQ(task(tid).node, "nc2");
}

}  // namespace
}  // namespace educloud::clc
