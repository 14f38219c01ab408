#include "integration/clc/server_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

/// Definitions that change while nothing, or something, runs by them.
class Definitions : public ServerTest {
 protected:
  const Principal ann{"ann", false};

  std::string desktop(const std::string& kind = "VD") {
    NewVm request;
    request.imgid = imgid_.empty() ? imgid_ = import("debian") : imgid_;
    request.kind = kind;
    const auto vm = cloud->define_vm(ann, request);
    EXPECT_TRUE(vm) << vm.error().message;
    return vm->instance.insid;
  }
  Result<VmView> change(const std::string& insid, const std::function<void(VmChange&)>& set) {
    VmChange wanted;
    set(wanted);
    return cloud->change_vm(ann, insid, wanted);
  }
  /// `moves`: from the node where it ran last, which is told to forget it.
  void restart(const std::string& insid, bool moves = false) {
    ASSERT_TRUE(cloud->stop_vm(admin, insid));
    ops();
    say(Event::stopped);
    ASSERT_TRUE(cloud->run_vm(admin, insid));
    ASSERT_EQ(ops(), moves ? "task/delete image/prepare" : "image/prepare");
    say(Event::prepared);
    ASSERT_EQ(ops(), "image/run");
    say(Event::running);
  }
  /// It runs in this size on `node`, as its heartbeat tells.
  void runs_there(const std::string& node, const std::string& insid, std::int64_t memory_mib, int cpus) {
    msg::VmData data;
    data.insid = insid;
    data.mem = memory_mib;
    data.vcpu = cpus;
    data.state = "running";
    running_vms[node] = {data};
    beat();
  }
  std::string imgid_;
};

TEST_F(Definitions, ASizeHoldsFromTheNextStartOn) {
  const auto insid = desktop();
  ASSERT_TRUE(cloud->run_vm(ann, insid));
  bring_up();
  const auto started = last();
  const auto grown = change(insid, [](auto& c) { c.memory_mib = 6000, c.cpus = 3; });
  ASSERT_TRUE(grown) << grown.error().message;
  EXPECT_EQ(grown->instance.memory_mib, 6000);
  EXPECT_EQ(grown->state, "running");
  EXPECT_EQ(ops(), "") << "what runs is left alone";
  restart(insid);
  EXPECT_EQ(last().runtime_option->memory_mib, 6000);
  EXPECT_EQ(last().runtime_option->cpus, 3);
  // A type brings its own size along, and what is given beside it wins.
  const auto large = cloud->vmtype(admin, "vdlarge");
  ASSERT_TRUE(large);
  const auto typed = change(insid, [](auto& c) { c.vmtype = "vdlarge", c.cpus = 2; });
  EXPECT_EQ(typed->instance.memory_mib, large->memory_mib);
  EXPECT_EQ(typed->instance.cpus, 2);
  EXPECT_EQ(change(insid, [](auto& c) { c.memory_mib = 700; })->instance.cpus, 2);
  EXPECT_EQ(change(insid, [](auto& c) { c.memory_mib = 0; })->instance.memory_mib, large->memory_mib);
  restart(insid);
  EXPECT_EQ(last().runtime_option->memory_mib, large->memory_mib);
}

TEST_F(Definitions, WhatRunsIsCountedAsItWasStarted) {
  const auto insid = desktop();
  ASSERT_TRUE(change(insid, [](auto& c) { c.memory_mib = 20'000; }));
  ASSERT_TRUE(cloud->run_vm(ann, insid));
  bring_up();
  const std::string node = last().nid, other = node == "nc1" ? "nc2" : "nc1";
  runs_there(node, insid, 20'000, 1);
  ASSERT_TRUE(change(insid, [](auto& c) { c.memory_mib = 512; }));
  EXPECT_EQ(cloud->node(admin, node)->committed_mib, 20'000);
  // 32768 less 20000 and the reserve leaves no room for this one.
  const auto second = desktop();
  ASSERT_TRUE(change(second, [&](auto& c) { c.memory_mib = 12'000, c.node = node; }));
  EXPECT_EQ(cloud->run_vm(ann, second).error().code, ErrorCode::exhausted);
  ASSERT_TRUE(change(second, [&](auto& c) { c.node = other; }));
  ASSERT_TRUE(cloud->run_vm(ann, second));
  bring_up();
  EXPECT_EQ(last().nid, other);
  EXPECT_EQ(cloud->move_vm(admin, insid, other).error().code, ErrorCode::conflict) << "by virtiofs";
  ASSERT_TRUE(change(insid, [&](auto& c) { c.folder_protocol = "smb"; }));
  EXPECT_EQ(cloud->move_vm(admin, insid, other).error().code, ErrorCode::exhausted)
      << "it would come along with all it has";
}

TEST_F(Definitions, AVersionAndAPinHoldFromTheNextStartOn) {
  const auto insid = desktop();
  const auto tid = edit(imgid_);
  ASSERT_TRUE(cloud->submit_task(admin, tid));
  ops();
  say_submitted('b');
  ops();
  say(Event::deleted);
  ASSERT_TRUE(change(insid, [](auto& c) { c.version = 1, c.node = "nc2", c.cluster = "cc1"; }));
  ASSERT_TRUE(cloud->run_vm(ann, insid));
  bring_up();
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_EQ(last().source->version, 1);
  ASSERT_TRUE(change(insid, [](auto& c) { c.version = 0, c.node = "nc1"; }));
  EXPECT_EQ(ops(), "");
  restart(insid, true);
  EXPECT_EQ(last().nid, "nc1");
  EXPECT_EQ(last().source->version, 2);
  EXPECT_EQ(change(insid, [](auto& c) { c.version = 9; }).error().key, "version");
  EXPECT_EQ(change(insid, [](auto& c) { c.version = -1; }).error().key, "version");
}

TEST_F(Definitions, PinsAreChecked) {
  const auto insid = desktop();
  ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
    store::put_cluster(sql, "cc2");
    store::add_node(sql, "nc9", "cc2");
    return {};
  }));
  EXPECT_EQ(change(insid, [](auto& c) { c.node = "nc7"; }).error().code, ErrorCode::not_found);
  EXPECT_EQ(change(insid, [](auto& c) { c.cluster = "cc7"; }).error().code, ErrorCode::not_found);
  ASSERT_TRUE(change(insid, [](auto& c) { c.node = "nc1"; }));
  EXPECT_THAT(change(insid, [](auto& c) { c.cluster = "cc2"; }).error().message,
              HasSubstr("node nc1 is in cluster cc1"));
  ASSERT_TRUE(change(insid, [](auto& c) { c.cluster = "cc2", c.node = ""; }));
  EXPECT_EQ(change(insid, [](auto& c) { c.node = "nc1"; }).error().code, ErrorCode::conflict);
  EXPECT_EQ(cloud->vm(ann, insid)->instance.node_pin, "");
}

TEST_F(Definitions, AServerWhoseNodeIsDeadStartsElsewhere) {
  const auto imgid = import_server("wiki");
  const auto insid = define(imgid, "VS");
  VmChange pinned;
  pinned.node = "nc1";
  ASSERT_TRUE(cloud->change_vm(admin, insid, pinned));
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  bring_up();
  const auto first = last();
  ASSERT_EQ(first.nid, "nc1");
  nc1_beats = false;
  advance(60);
  const auto relocate = [&](bool final_try) {
    return store->write([&](store::Sql& sql) -> Result<bool> {
      auto& engine = cloud->impl().engine;
      if (auto ok = engine.lose_node(sql, "nc1"); !ok) return fail(ok.error());
      return engine.relocate(sql, *store::open_task(sql, first.tid), final_try);
    });
  };
  EXPECT_FALSE(*relocate(false)) << "pinned to the dead node";
  EXPECT_THAT(cloud->vm(admin, insid)->task->task.errormsg, HasSubstr("pinned to node nc1"));
  VmChange anywhere;
  anywhere.node = "";
  ASSERT_TRUE(cloud->change_vm(admin, insid, anywhere));
  EXPECT_TRUE(*relocate(false)) << "the next try of the same";
  settle();
  const auto prepare = std::find_if(commands.rbegin(), commands.rend(),
                                    [](const auto& one) { return one.op == "image/prepare"; });
  EXPECT_EQ(prepare->nid, "nc2");
  EXPECT_GT(prepare->epoch, first.epoch);
}

TEST_F(Definitions, OneThatWasGivenUpIsRunElsewhereByHand) {
  const auto insid = define(import_server("wiki"), "VS");
  VmChange pin;
  pin.node = "nc1";
  ASSERT_TRUE(cloud->change_vm(admin, insid, pin));
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  bring_up();
  const auto tid = last().tid;
  nc1_beats = false;
  advance(60);
  ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<bool> {
    auto& engine = cloud->impl().engine;
    if (auto ok = engine.lose_node(sql, "nc1"); !ok) return fail(ok.error());
    return engine.relocate(sql, *store::open_task(sql, tid), true);
  }));
  ops();
  EXPECT_EQ(cloud->run_vm(admin, insid).error().code, ErrorCode::exhausted);
  pin.node = "nc2";
  ASSERT_TRUE(cloud->change_vm(admin, insid, pin));
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  ASSERT_EQ(ops(), "task/delete image/prepare") << "what the dead node may have of it goes when it is back";
  EXPECT_EQ(last().nid, "nc2");
}

TEST_F(Definitions, TheClusterOfItsDiskWins) {
  const auto insid = run_server(import_server("wiki"));
  ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
    store::put_cluster(sql, "cc2");
    store::add_node(sql, "nc9", "cc2");
    return {};
  }));
  VmChange away;
  away.cluster = "cc2";
  const auto refused = cloud->change_vm(admin, insid, away);
  EXPECT_EQ(refused.error().key, "cluster");
  EXPECT_THAT(refused.error().message, HasSubstr("runs in cluster cc1 only: its database disk"));
  away = {};
  away.node = "nc9";
  EXPECT_EQ(cloud->change_vm(admin, insid, away).error().key, "node");
  away.node = "nc2";
  away.cluster = "cc1";
  EXPECT_TRUE(cloud->change_vm(admin, insid, away));
}

TEST_F(Definitions, NotEverythingChangesAtEveryTime) {
  const auto insid = desktop();
  const auto grow = [](auto& c) { c.memory_mib = 6000; };
  ASSERT_TRUE(cloud->run_vm(ann, insid));
  ASSERT_EQ(ops(), "image/prepare");
  EXPECT_THAT(change(insid, grow).error().message, HasSubstr("starts just now"));
  EXPECT_TRUE(change(insid, [](auto& c) { c.name = "desk", c.node = "nc2"; }));
  say(Event::prepared);
  ASSERT_EQ(ops(), "image/run");
  EXPECT_EQ(change(insid, grow).error().code, ErrorCode::conflict);
  say(Event::running);
  EXPECT_TRUE(change(insid, grow));
  const auto temporary = desktop("TVD");
  bring_up();
  EXPECT_THAT(change(temporary, grow).error().message, HasSubstr("no next start"));
  EXPECT_TRUE(change(temporary, [](auto& c) { c.name = "desk"; }));
  // What edits an image keeps its node and version, and may grow.
  edit(imgid_);
  VmChange wanted;
  wanted.memory_mib = 6000;
  const auto editor = cloud->task(admin, last().tid)->task.insid;
  EXPECT_TRUE(cloud->change_vm(admin, editor, wanted));
  wanted.node = "nc1";
  EXPECT_THAT(cloud->change_vm(admin, editor, wanted).error().message, HasSubstr("edits an image"));
}

TEST_F(Definitions, WhatRunsTakesNoMoreThanItWasStartedWith) {
  const auto insid = desktop();
  ASSERT_TRUE(cloud->run_vm(ann, insid));
  bring_up();
  ASSERT_EQ(last().nid, "nc1");
  msg::VmData vm;
  vm.insid = insid;
  vm.state = "running";
  vm.mem = 2048;
  vm.vcpu = 1;
  running_vms["nc1"] = {vm};
  advance(1);
  ASSERT_TRUE(change(insid, [](auto& c) { c.memory_mib = 4'000'000, c.cpus = 256; }));
  nc2_beats = false;
  advance(60);
  ASSERT_TRUE(cloud->run_vm(ann, desktop())) << "its node is not full of what it may become";
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().nid, "nc1");
  say(Event::failed, "the disk is full");
  const auto failed = cloud->task(admin, last().tid)->task.insid;
  EXPECT_THAT(change(failed, [](auto& c) { c.memory_mib = 4'000'000; }).error().message,
              HasSubstr("did not start"));
}

TEST_F(Definitions, AnotherTypeGivesNobodyMoreThanItAllows) {
  const auto insid = desktop();
  LimitsChange own;
  own.cpu_percent = 300;
  ASSERT_TRUE(cloud->limit_vm(ann, insid, own));
  ASSERT_TRUE(cloud->put_vmtype(admin, {"lab", 512, 1, {100, 0, 0, 0, 0}}));
  const auto refused = change(insid, [](auto& c) { c.vmtype = "lab"; });
  EXPECT_EQ(refused.error().code, ErrorCode::permission_denied);
  EXPECT_THAT(refused.error().message, HasSubstr("cpu_percent"));
  VmChange wanted;
  wanted.vmtype = "lab";
  EXPECT_TRUE(cloud->change_vm(admin, insid, wanted));
}

}  // namespace
}  // namespace educloud::clc
