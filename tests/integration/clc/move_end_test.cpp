#include "integration/clc/server_fixture.hpp"

// Moves that end otherwise than planned, and what is left of them: leaves, VMs, epochs, tasks.

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class MoveEnd : public ServerTest {
 protected:
  void tune(CloudOptions& options) override { options.display_port_last = options.display_port_first + 3; }

  /// A server that runs on nc1 and can move.
  void server() {
    const auto imgid = import_server("wiki");
    NewVm request;
    request.imgid = imgid;
    request.kind = "VS";
    request.folder_protocol = "smb";
    request.node = "nc1";
    const auto vm = cloud->define_vm(admin, request);
    ASSERT_TRUE(vm) << vm.error().message;
    insid_ = vm->instance.insid;
    tid_ = imgid + ":" + imgid + ":" + insid_;
    ASSERT_TRUE(cloud->run_vm(admin, insid_));
    bring_up();
  }
  msg::Command move() {
    EXPECT_TRUE(cloud->move_vm(admin, insid_, "nc2"));
    EXPECT_EQ(ops(), "instance/migrate");
    return last();
  }
  void say_final(const msg::Command& of, Event event, const std::string& state = "") {
    auto status = answer(of, event);
    status.final = 1;
    status.state = state.empty() ? std::string(to_string(event)) : state;
    if (event == Event::refused) status.errormsg = "the cable was cut";
    tell(status);
  }
  /// The node that a grant for `path` is for, so many hours from now.
  std::string leave_of(const std::string& grant, const std::string& path, int hours = 0) {
    const auto query = http::parse_target("/?" + grant)->query;
    const auto node = transfer::verify_grant(kKey, "PUT", path, query, clock.wall_ms() / 1000 + hours * 3600);
    return node ? *node : "nobody";
  }
  std::string disk(std::int64_t epoch) { return "/disks/" + insid_ + "/" + std::to_string(epoch); }
  const msg::Command& before_last() { return commands.at(commands.size() - 2); }
  const Task task() { return cloud->task(admin, tid_)->task; }

  /// What `host` holds, half a minute after the round before; what clc makes of it.
  std::string round(const std::string& host, std::vector<msg::InventoryVm> vms,
                    std::vector<msg::InventoryTask> tasks) {
    clock.advance(std::chrono::seconds{30});
    beat();
    msg::Inventory out;
    out.host = host;
    out.ccid = "cc1";
    out.ts = clock.wall_ms();
    out.lease_epoch = 1;
    out.round = "r" + std::to_string(++round_);
    out.vms = std::move(vms);
    out.tasks = std::move(tasks);
    publish(*cc, "nodestatus.cc-cc1", msg::serialize(out));
    settle();
    EXPECT_TRUE(ticker->tick());
    return ops();
  }
  /// As a node of a time that clc has forgotten has it: `later` epochs above what clc knows.
  msg::InventoryTask entry(const std::string& op, int later) {
    return {tid_, new_command_id().str(), op, task().epoch + later, task().attempt + later, 5, 1};
  }
  msg::InventoryVm vm_of(const msg::InventoryTask& entry) {
    return {insid_, tid_, entry.cmdid, "running", entry.epoch, 1};
  }

  std::string insid_, tid_;

 private:
  int round_ = 0;
};

TEST_F(MoveEnd, TheLeaveThatGoesByWayOfTheOldNodeIsForTheMoveAlone) {
  server();
  const auto order = move();
  const auto path = disk(order.epoch);
  const auto& grant = order.move->database_grant;
  EXPECT_EQ(leave_of(grant, path + "/move"), "nc2");
  EXPECT_EQ(leave_of(grant, path), "nobody");
  EXPECT_EQ(leave_of(grant, path + "/move", 24), "nobody");
  EXPECT_EQ(order.database_grant, "");
  say_final(order, Event::running);
  EXPECT_EQ(ops(), "task/delete image/run");
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_EQ(leave_of(last().database_grant, path), "nc2") << "of its own, to close it with";
}

TEST_F(MoveEnd, WhatComesAfterARefusalIsOfAnEpochThatWasNeverOnItsWay) {
  server();
  const auto order = move();
  say_final(order, Event::refused, "running");
  ASSERT_EQ(ops(), "task/delete");
  EXPECT_EQ(last().nid, "nc2") << "what it has of it goes";
  EXPECT_EQ(last().epoch, order.epoch);
  EXPECT_EQ(last().database_grant, "");
  ASSERT_TRUE(cloud->operate_vm(admin, insid_, VmOperation::pause));
  EXPECT_EQ(ops(), "instance/pause");
  EXPECT_EQ(last().epoch, order.epoch + 1);
  say_final(last(), Event::paused);
  EXPECT_EQ(cloud->vm(admin, insid_)->state, "paused");
  ASSERT_TRUE(cloud->stop_vm(admin, insid_));
  EXPECT_EQ(ops(), "image/stop");
  EXPECT_EQ(last().epoch, order.epoch + 1) << "once is enough";
  EXPECT_EQ(leave_of(last().database_grant, disk(order.epoch + 1)), "nc1");
}

TEST_F(MoveEnd, AStopIsToldToBothNodes) {
  server();
  const auto order = move();
  say(Event::migrating);
  ASSERT_TRUE(cloud->stop_vm(admin, insid_));
  EXPECT_EQ(ops(), "task/delete image/stop");
  EXPECT_EQ(before_last().nid, "nc2");
  EXPECT_EQ(before_last().epoch, order.epoch) << "of what it was to get";
  EXPECT_EQ(before_last().database_grant, "");
  EXPECT_EQ(last().nid, "nc1");
  EXPECT_GT(last().epoch, order.epoch);
  // Its disk may be the other node's by now: the next start outdoes that on the same node too.
  const auto stop = last();
  say(Event::stopped);
  ASSERT_TRUE(cloud->run_vm(admin, insid_));
  ASSERT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().nid, "nc1");
  EXPECT_GT(last().epoch, stop.epoch);
}

TEST_F(MoveEnd, SoIsAnyOtherEnd) {
  server();
  auto order = move();
  ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
    sql.run("UPDATE instances SET node_pin = '' WHERE insid = ?", {insid_});
    auto& engine = cloud->impl().engine;
    if (auto ok = engine.lose_node(sql, "nc1"); !ok) return ok;
    return engine.relocate(sql, *store::open_task(sql, tid_), false).map([](bool) {});
  }));
  EXPECT_EQ(ops(), "task/delete task/delete image/prepare");
  EXPECT_EQ(before_last().nid, "nc2");
  EXPECT_EQ(before_last().epoch, order.epoch);
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_GT(last().epoch, order.epoch) << "so that the farewell does not count for it";
  ASSERT_TRUE(cloud->cancel_task(admin, tid_));
  EXPECT_EQ(ops(), "task/delete") << "no move is open any more";
}

TEST_F(MoveEnd, ARefusedVmIsWhereItsNodeSays) {
  server();
  auto order = move();
  say(Event::migrating);
  say_final(order, Event::refused, "paused");
  EXPECT_EQ(cloud->vm(admin, insid_)->state, "paused") << "the other node may have it: it stands still";
  EXPECT_EQ(task().errormsg, "the cable was cut");
  EXPECT_FALSE(task().op_open);
  ops();
  ASSERT_TRUE(cloud->operate_vm(admin, insid_, VmOperation::resume));
  EXPECT_EQ(ops(), "instance/resume");
  say_final(last(), Event::running);
  order = move();
  say(Event::migrating);
  say_final(order, Event::refused, "stopped");
  EXPECT_EQ(at(tid_), "editing/stopped!+") << "it is not there any more";
  EXPECT_EQ(task().errormsg, "the cable was cut");
}

TEST_F(MoveEnd, AMoveThatAnOlderDatabaseForgotIsFollowed) {
  server();
  const auto before = cloud->vm(admin, insid_)->access;
  auto migrate = entry("instance/migrate", 1);
  migrate.rdp_port = 5902;
  migrate.web_port = 20'007;
  migrate.moves_to = "nc2";
  EXPECT_EQ(round("nc2", {vm_of(migrate)}, {}), "") << "no farewell before the other node was heard";
  EXPECT_EQ(round("nc1", {}, {migrate}), "instance/migrate");
  const auto reminder = last();
  EXPECT_EQ(reminder.nid, "nc1");
  EXPECT_EQ(reminder.cmdid, migrate.cmdid);
  EXPECT_EQ(round("nc2", {vm_of(migrate)}, {}), "instance/migrate") << "asked once more, and that is all";
  say_final(reminder, Event::running);
  EXPECT_EQ(ops(), "task/delete image/run");
  EXPECT_EQ(before_last().nid, "nc1");
  const auto run = last();
  EXPECT_EQ(run.nid, "nc2");
  EXPECT_EQ(run.epoch, migrate.epoch);
  EXPECT_EQ(run.runtime_option->rdp_port, 5902);
  say(Event::running);
  EXPECT_EQ(at(tid_), "editing/running+");
  EXPECT_EQ(task().node, "nc2");
  EXPECT_FALSE(task().op_open);
  EXPECT_EQ(cloud->vm(admin, insid_)->access->display_port, 5902);
  EXPECT_EQ(cloud->vm(admin, insid_)->access->display_password, before->display_password)
      << "nothing was in between";
  const msg::InventoryTask now{tid_, run.cmdid, run.op, run.epoch, run.attempt, 5, 1};
  EXPECT_EQ(round("nc2", {vm_of(migrate)}, {now}), "");
  ASSERT_TRUE(cloud->stop_vm(admin, insid_));
  EXPECT_EQ(ops(), "image/stop");
  EXPECT_EQ(last().nid, "nc2");
}

TEST_F(MoveEnd, AMoveToNobodyKnowsWhereEnds) {
  server();
  const auto migrate = entry("instance/migrate", 1);  // by a node that does not tell where to
  EXPECT_EQ(round("nc1", {}, {migrate}), "instance/migrate");
  say_final(last(), Event::running);
  EXPECT_EQ(at(tid_), "editing/stopped!+");
  EXPECT_THAT(task().errormsg, HasSubstr("not known here"));
  ASSERT_TRUE(cloud->run_vm(admin, insid_));
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_GT(last().epoch, migrate.epoch);
}

TEST_F(MoveEnd, ANodeDoesNotGiveAwayWhatIsAnothers) {
  server();
  ASSERT_TRUE(store->write([](store::Sql& sql) -> Result<> {
    store::hold_port(sql, "nc2", "display", "VD0000beef", 5902);
    return {};
  }));
  auto migrate = entry("instance/migrate", 1);
  migrate.rdp_port = 5902;
  migrate.web_port = 22;
  migrate.moves_to = "nc2";
  EXPECT_EQ(round("nc1", {}, {migrate}), "instance/migrate");
  say_final(last(), Event::running);
  EXPECT_EQ(ops(), "task/delete image/run");
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_EQ(last().runtime_option->rdp_port, 5900);
  EXPECT_EQ(last().runtime_option->web_port, 20'000);
  EXPECT_EQ(*store->read(
                [](store::Sql& sql) -> Result<int> { return store::port_of(sql, "VD0000beef", "display"); }),
            5902);
}

TEST_F(MoveEnd, NorToANodeThatTakesNothing) {
  server();
  ASSERT_TRUE(cloud->set_node_state(admin, "nc2", NodeState::no_new));
  auto migrate = entry("instance/migrate", 1);
  migrate.moves_to = "nc2";
  EXPECT_EQ(round("nc1", {}, {migrate}), "instance/migrate");
  say_final(last(), Event::running);
  EXPECT_EQ(at(tid_), "editing/stopped!+");
}

TEST_F(MoveEnd, OneThatIsGivenUpIsToldToBothNodes) {
  server();
  const auto order = move();
  ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
    auto& engine = cloud->impl().engine;
    if (auto ok = engine.lose_node(sql, "nc1"); !ok) return ok;
    return engine.relocate(sql, *store::open_task(sql, tid_), true).map([](bool) {});
  }));
  EXPECT_EQ(ops(), "task/delete task/delete");
  EXPECT_EQ(before_last().nid, "nc1");
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_EQ(last().epoch, order.epoch);
  EXPECT_EQ(at(tid_), "editing/stopped!+");
  EXPECT_FALSE(task().op_open);
}

TEST_F(MoveEnd, AVmThatMovedSinceAnOlderDatabaseIsFoundWhereItRuns) {
  server();
  const auto first = last();
  auto run = entry("image/run", 2);
  run.rdp_port = 5903;
  EXPECT_EQ(round("nc2", {vm_of(run)}, {run}), "") << "first its node is heard";
  EXPECT_EQ(round("nc1", {}, {}), "image/run");
  EXPECT_EQ(last().cmdid, first.cmdid) << "nc1 knows that it is over there";
  EXPECT_EQ(round("nc2", {vm_of(run)}, {run}), "image/run");
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_EQ(last().cmdid, run.cmdid) << "the node repeats what it knows";
  say(Event::running);
  EXPECT_EQ(at(tid_), "editing/running+");
  EXPECT_EQ(task().node, "nc2");
  EXPECT_EQ(task().epoch, run.epoch);
  EXPECT_EQ(cloud->vm(admin, insid_)->access->display_port, 5903);
  EXPECT_EQ(round("nc1", {}, {}), "");
}

TEST_F(MoveEnd, ANodesWordAloneMovesNothing) {
  server();
  const auto mine = last();
  const msg::InventoryTask ours{tid_, mine.cmdid, mine.op, mine.epoch, mine.attempt, 5, 1};
  auto lie = entry("image/run", 7);
  EXPECT_EQ(round("nc2", {vm_of(lie)}, {lie}), "");
  EXPECT_EQ(round("nc1", {vm_of(ours)}, {ours}), "");
  EXPECT_EQ(round("nc2", {vm_of(lie)}, {lie}), "task/delete");
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_EQ(task().node, "nc1");
  EXPECT_EQ(at(tid_), "editing/running+");
}

}  // namespace
}  // namespace educloud::clc
