#include "integration/clc/cloud_fixture.hpp"

// A VM that runs goes on on another node.

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class Move : public CloudTest {
 protected:
  const Principal ann{"ann", false};

  void tune(CloudOptions& options) override {
    options.display_port_last = options.display_port_first + 3;
    options.drain_warning_ms = 0;
  }

  /// A desktop that can move and runs on nc1, unless `protocol` says otherwise.
  std::string desktop(const std::string& protocol = "smb", std::int64_t memory_mib = 0) {
    if (imgid_.empty()) imgid_ = import("debian");
    NewVm request;
    request.imgid = imgid_;
    request.folder_protocol = protocol;
    request.node = "nc1";
    request.memory_mib = memory_mib;
    const auto vm = cloud->define_vm(admin, request);
    EXPECT_TRUE(vm) << vm.error().message;
    const auto insid = vm->instance.insid;
    tid_ = imgid_ + ":" + imgid_ + ":" + insid;
    EXPECT_TRUE(cloud->run_vm(admin, insid));
    bring_up();
    return insid;
  }
  void say_final(Event event, const std::string& errormsg = "") {
    auto status = answer(last(), event);
    status.final = 1;
    status.errormsg = errormsg;
    tell(status);
  }
  TaskView task() { return *cloud->task(admin, tid_); }
  std::vector<int> ports(const std::string& node) {
    auto read = store->read([&](store::Sql& sql) -> Result<std::vector<int>> {
      std::vector<int> all;
      for (const auto& row : sql.all("SELECT port FROM ports WHERE node = ? ORDER BY port", {node}))
        all.push_back(static_cast<int>(row.number(0)));
      return all;
    });
    return *read;
  }

  std::string imgid_, tid_;
};

TEST_F(Move, ItsTaskPortsAndPasswordGoAlongInOneStep) {
  const auto insid = desktop();
  const auto before = cloud->vm(admin, insid)->access;
  const auto started = last();
  ASSERT_TRUE(cloud->move_vm(admin, insid, "nc2"));
  ASSERT_EQ(ops(), "instance/migrate");
  const msg::Command order = last();
  EXPECT_EQ(order.nid, "nc1");
  EXPECT_GT(order.epoch, started.epoch) << "what comes after it must beat what it leaves behind";
  ASSERT_TRUE(order.move && order.runtime_option && order.source);
  EXPECT_EQ(order.move->nid, "nc2");
  EXPECT_EQ(order.move->address, "10.0.0.12");
  EXPECT_EQ(order.move->port, 8003);
  EXPECT_THAT(order.move->grant, HasSubstr("node=nc2&"));
  EXPECT_EQ(order.runtime_option->display_password, before->display_password);
  EXPECT_EQ(ports("nc1").size(), 2u);
  EXPECT_EQ(ports("nc2").size(), 2u) << "booked before it is there";
  auto half = answer(order, Event::migrating);
  half.progress = 50;
  half.prompt = "copying its memory to nc2, 3 s left";
  tell(half);
  EXPECT_EQ(cloud->vm(admin, insid)->state, "migrating");
  EXPECT_EQ(task().task.progress, 50);
  EXPECT_FALSE(cloud->operate_vm(admin, insid, VmOperation::pause));

  const auto commands_before = commands.size();
  say_final(Event::running);
  EXPECT_EQ(ops(), "task/delete image/run");
  const auto& farewell = commands[commands_before];
  const auto& run = commands[commands_before + 1];
  EXPECT_EQ(farewell.nid, "nc1");
  EXPECT_EQ(farewell.database_grant, "");
  EXPECT_EQ(run.nid, "nc2");
  EXPECT_EQ(run.epoch, order.epoch);
  EXPECT_EQ(run.runtime_option->rdp_port, order.move->rdp_port);
  EXPECT_EQ(run.runtime_option->web_port, order.move->web_port);
  EXPECT_EQ(run.runtime_option->display_password, before->display_password);
  EXPECT_EQ(ports("nc1").size(), 0u);
  EXPECT_EQ(ports("nc2").size(), 2u);
  EXPECT_EQ(task().task.node, "nc2");
  EXPECT_EQ(at(tid_), "editing/running+");
  say(Event::running);
  EXPECT_FALSE(task().task.op_open);
  EXPECT_EQ(cloud->vm(admin, insid)->access->address, "10.0.0.12");
  // What the node before still says is of no interest.
  auto late = answer(order, Event::failed);
  late.attempt = order.attempt + 5;
  tell(late);
  EXPECT_EQ(at(tid_), "editing/running+");
}

TEST_F(Move, ARefusalGivesThePortsBackAndItRunsOn) {
  const auto insid = desktop();
  ASSERT_TRUE(cloud->move_vm(admin, insid, "nc2"));
  ops();
  say(Event::migrating);
  say_final(Event::refused, "the cable was cut");
  EXPECT_EQ(at(tid_), "editing/running+");
  EXPECT_EQ(task().task.node, "nc1");
  EXPECT_EQ(task().task.errormsg, "the cable was cut");
  EXPECT_EQ(ports("nc2").size(), 0u);
  EXPECT_EQ(ports("nc1").size(), 2u);
  EXPECT_TRUE(cloud->move_vm(admin, insid, "nc2")) << "and it may be tried again";
}

TEST_F(Move, OnlyWhereItCanAndByWhomItMay) {
  const auto insid = desktop();
  EXPECT_EQ(cloud->move_vm(admin, insid, "nc1").error().code, ErrorCode::conflict);
  EXPECT_EQ(cloud->move_vm(admin, insid, "nc9").error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->move_vm(ann, insid, "nc2").error().code, ErrorCode::not_found);
  EXPECT_THAT(cloud->move_vm(admin, insid, "").error().message, HasSubstr("pinned to node nc1"));
  ASSERT_TRUE(cloud->set_node_state(admin, "nc2", NodeState::no_new));
  EXPECT_EQ(cloud->move_vm(admin, insid, "nc2").error().code, ErrorCode::exhausted);
  EXPECT_EQ(ports("nc2").size(), 0u);
  ASSERT_TRUE(cloud->set_node_state(admin, "nc2", NodeState::enabled));
  const auto other = desktop("virtiofs");
  EXPECT_THAT(cloud->move_vm(admin, other, "nc2").error().message, HasSubstr("--folders smb"));
  ASSERT_TRUE(cloud->operate_vm(admin, insid, VmOperation::pause));
  ops();
  say_final(Event::paused);
  EXPECT_THAT(cloud->move_vm(admin, insid, "nc2").error().message, HasSubstr("resume it"));
  EXPECT_EQ(cloud->move_vm(admin, "VD00000000", "nc2").error().code, ErrorCode::not_found);
}

TEST_F(Move, WhatIsOnItsWayCountsOnBothNodes) {
  const auto one = desktop("smb", 16'000);
  ASSERT_TRUE(cloud->move_vm(admin, one, "nc2"));
  ops();
  // 32 GiB less what is used and reserved: a second one of that size does not fit beside it on either.
  NewVm request;
  request.imgid = imgid_;
  request.memory_mib = 16'000;
  const auto vm = cloud->define_vm(admin, request);
  ASSERT_TRUE(vm);
  EXPECT_EQ(cloud->run_vm(admin, vm->instance.insid).error().code, ErrorCode::exhausted);
}

TEST_F(Move, TheNodeItGoesToIsNotToldToForgetIt) {
  const auto insid = desktop();
  ASSERT_TRUE(cloud->move_vm(admin, insid, "nc2"));
  ops();
  advance(20);
  msg::Inventory round;
  round.nid = "nc#52:54:00:00:00:01#status";
  round.host = "nc2";
  round.ccid = "cc1";
  round.lease_epoch = 1;
  round.round = "r1";
  round.vms = {{insid, tid_, last().cmdid, "paused", last().epoch, 0}};
  publish(*cc, "nodestatus.cc-cc1", msg::serialize(round));
  advance(1);
  EXPECT_EQ(ops(), "");
  // Once it is clear that it did not come, what is left there goes.
  const auto order = last();
  say_final(Event::refused, "no");
  EXPECT_EQ(ops(), "task/delete");
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_EQ(last().epoch, order.epoch);
  advance(20);
  round.round = "r2";
  publish(*cc, "nodestatus.cc-cc1", msg::serialize(round));
  advance(1);
  EXPECT_EQ(ops(), "task/delete") << "again, if that was lost";
  EXPECT_EQ(last().nid, "nc2");
}

TEST_F(Move, AKilledClcHearsOfItAllTheSame) {
  const auto insid = desktop();
  ASSERT_TRUE(cloud->move_vm(admin, insid, "nc2"));
  ops();
  const auto order = last();
  halt();
  boot();
  beat();
  auto done = answer(order, Event::running);
  done.final = 1;
  tell(done);
  EXPECT_EQ(task().task.node, "nc2");
  EXPECT_EQ(ports("nc2").size(), 2u);
}

TEST_F(Move, ADrainedNodeSendsAwayWhatCanMoveAndStopsTheRest) {
  const auto stays = desktop("virtiofs");
  const auto stays_tid = tid_;
  const auto insid = desktop();
  ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
    sql.run("UPDATE instances SET node_pin = '' WHERE insid IN (?, ?)", {insid, stays});
    return {};
  }));
  // That a move failed some day is no reason not to try now.
  ASSERT_TRUE(cloud->move_vm(admin, insid, "nc2"));
  ops();
  say_final(Event::refused, "the cable was cut");
  const auto before = commands.size();
  ASSERT_TRUE(cloud->set_node_state(admin, "nc1", NodeState::drained));
  settle();
  std::map<std::string, std::string> sent;
  for (auto i = before; i < commands.size(); ++i) sent[commands[i].tid] = commands[i].op;
  EXPECT_EQ(sent[stays_tid], "image/stop");
  EXPECT_EQ(sent[tid_], "instance/migrate");
  for (int i = 0; i < 3; ++i) advance(1);
  EXPECT_EQ(commands.size(), before + 2) << "no second order while it moves";
  // The other node does not take it: then it is stopped, with the reason.
  auto refused = answer(commands[before + (commands[before].tid == tid_ ? 0 : 1)], Event::refused);
  refused.final = 1;
  refused.errormsg = "no room";
  tell(refused);
  advance(1);
  ops();
  EXPECT_EQ(last().op, "image/stop");
  EXPECT_EQ(last().tid, tid_);
  say(Event::stopped);
  EXPECT_THAT(task().task.prompt, HasSubstr("being drained"));
}

}  // namespace
}  // namespace educloud::clc
