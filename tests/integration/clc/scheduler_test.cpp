#include "clc/store/placements.hpp"
#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class Scheduler : public CloudTest {
 protected:
  const Principal ann{"ann", false};
  std::string prompt(const std::string& insid) { return cloud->vm(admin, insid)->task->task.prompt; }
};

TEST_F(Scheduler, ADrainedNodeStopsItsDesktopsWhichStartElsewhere) {
  const auto insid = define(import("debian"));
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  bring_up();
  ASSERT_EQ(last().nid, "nc1");
  const auto node = cloud->set_node_state(admin, "nc1", NodeState::drained);
  ASSERT_TRUE(node) << node.error().message;
  EXPECT_EQ(node->state, NodeState::drained);
  EXPECT_THAT(prompt(insid), HasSubstr("node nc1 is drained: this VM is stopped at"));
  advance(61);
  EXPECT_EQ(ops(), "image/stop");
  EXPECT_THAT(prompt(insid), HasSubstr("node nc1 is being drained"));
  advance(2);
  EXPECT_EQ(ops(), "") << "once is enough";
  say(Event::stopped);
  EXPECT_EQ(cloud->vm(admin, insid)->state, "stopped");
  EXPECT_THAT(prompt(insid), HasSubstr("start it again and it runs elsewhere"));
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  EXPECT_EQ(ops(), "task/delete image/prepare");
  EXPECT_EQ(last().nid, "nc2");
  say(Event::prepared);
  EXPECT_EQ(ops(), "image/run");
  ASSERT_TRUE(cloud->set_node_state(admin, "nc1", NodeState::enabled));
  EXPECT_EQ(cloud->node(admin, "nc1")->state, NodeState::enabled);
}

TEST_F(Scheduler, DrainingMovesThoseThatAreNotThereYet) {
  const auto imgid = import("debian");
  const auto boots = define(imgid);
  ASSERT_TRUE(cloud->run_vm(admin, boots));
  ASSERT_EQ(ops(), "image/prepare");
  say(Event::prepared);
  ASSERT_EQ(ops(), "image/run");
  const auto run = last();
  ASSERT_EQ(run.nid, "nc1");
  nc2_beats = false;
  advance(20);
  ops();
  const auto free = define(imgid, "TVD");
  EXPECT_EQ(ops(), "image/prepare");
  NewVm request;
  request.imgid = imgid;
  request.kind = "TVD";
  request.node = "nc1";
  const auto pinned = cloud->define_vm(admin, request)->instance.insid;
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().nid, "nc1");
  nc2_beats = true;
  beat();
  ASSERT_TRUE(cloud->set_node_state(admin, "nc1", NodeState::drained));
  EXPECT_EQ(ops(), "task/delete image/prepare") << "the first boots in a moment";
  EXPECT_EQ(last().nid, "nc2");
  EXPECT_EQ(last().epoch, 2);
  EXPECT_EQ(cloud->vm(admin, free)->task->task.node, "nc2");
  EXPECT_EQ(cloud->why(admin, free)->decision.chosen, "nc2");
  EXPECT_EQ(cloud->vm(admin, pinned)->state, "failed");
  EXPECT_THAT(cloud->vm(admin, pinned)->task->task.errormsg,
              AllOf(HasSubstr("nc1 is being drained"), HasSubstr("pinned to node nc1 -> lift the pin")));
  tell(answer(run, Event::booting));
  advance(1);
  EXPECT_EQ(ops(), "image/stop");
  EXPECT_EQ(last().tid, run.tid);
}

TEST_F(Scheduler, NoNewLeavesAloneWhatRuns) {
  const auto imgid = import("debian");
  const auto insid = define(imgid);
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  bring_up();
  ASSERT_TRUE(cloud->set_node_state(admin, "nc1", NodeState::no_new));
  advance(2);
  EXPECT_EQ(ops(), "");
  EXPECT_EQ(cloud->vm(admin, insid)->state, "running");
  define(imgid, "TVD");
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().nid, "nc2");
}

TEST_F(Scheduler, OnlyAdministratorsChangeNodesAndOnlyThoseThereAre) {
  EXPECT_EQ(cloud->set_node_state(ann, "nc1", NodeState::drained).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(cloud->set_node_state(admin, "nc9", NodeState::drained).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->set_node_state(admin, "../x", NodeState::drained).error().code,
            ErrorCode::invalid_argument);
  EXPECT_EQ(cloud->node(admin, "nc1")->state, NodeState::enabled);
}

TEST_F(Scheduler, TheLedgerTellsWhyItRunsThere) {
  const auto insid = define(import("debian"));
  const auto task = cloud->run_vm(admin, insid);
  ASSERT_TRUE(task);
  for (const auto& id : {task->task.tid, insid}) {
    const auto why = cloud->why(admin, id);
    ASSERT_TRUE(why) << why.error().message;
    EXPECT_EQ(why->decision.chosen, "nc1");
    EXPECT_EQ(why->plan.node, "nc1");
    ASSERT_EQ(why->plan.verdicts.size(), 2u);
    EXPECT_EQ(why->plan.verdicts[1].rank, 2);
    EXPECT_EQ(why->task->task.tid, task->task.tid);
    const auto json = to_json(*why);
    EXPECT_EQ(json["nodes"][0]["host"], "nc1");
    EXPECT_EQ(json["request"]["memory_mib"], 4096);
    EXPECT_EQ(json["policy"], "image_first");
  }
  EXPECT_EQ(cloud->why(ann, insid).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->why(admin, "VD00000000").error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->why(admin, "x' OR 1=1").error().code, ErrorCode::invalid_argument);
}

TEST_F(Scheduler, TheLedgerTellsWhyNoNodeCouldTakeItThoughNothingElseRemains) {
  NewVm request;
  request.imgid = import("debian");
  request.memory_mib = 40'000;
  const auto vm = cloud->define_vm(admin, request);
  const auto insid = vm->instance.insid;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(cloud->run_vm(admin, insid).error().code, ErrorCode::exhausted);
    drain();
    const auto why = cloud->why(admin, insid);
    ASSERT_TRUE(why) << why.error().message;
    EXPECT_EQ(why->decision.chosen, "");
    EXPECT_FALSE(why->task);
    EXPECT_EQ(why->plan.nearest_fix(), "nc1: ask for at most 29720 MiB");
    EXPECT_THAT(why->plan.verdicts[0].lacks, ElementsAre(Resource::memory));
    clock.advance(std::chrono::seconds{1});
    beat();
  }
  EXPECT_EQ(store
                ->read([](store::Sql& sql) -> Result<std::int64_t> {
                  return sql.number("SELECT COUNT(*) FROM placements");
                })
                .value(),
            1);
}

TEST_F(Scheduler, TheLedgerIsBounded) {
  ASSERT_TRUE(store->write([&](store::Sql& sql) -> Result<> {
    Decision one;
    for (int i = 0; i < store::kPlacementRows + 50; ++i) {
      one.tid = "IMG00000000:IMG00000000:VD" + std::to_string(10'000'000 + i);
      one.at = 1000 + i;
      store::put_placement(sql, one);
    }
    one.at = 1;
    store::put_placement(sql, one);  // older than what is there
    store::trim_placements(sql);
    EXPECT_EQ(sql.number("SELECT COUNT(*) FROM placements"), store::kPlacementRows);
    EXPECT_EQ(sql.number("SELECT MIN(at) FROM placements"), 1050);
    return {};
  }));
}

TEST_F(Scheduler, ADryRunSaysWhatStartingThemWouldDo) {
  PlanRequest request;
  request.imgid = import("debian");
  request.count = 35;
  const auto plan = cloud->plan(admin, request);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->seating.placed, 14);
  EXPECT_EQ(plan->seating.missing, 21);
  ASSERT_TRUE(plan->bottleneck);
  EXPECT_EQ(plan->bottleneck->resource, Resource::memory);
  EXPECT_EQ(plan->bottleneck->short_by, 21 * 4096);
  const auto json = to_json(*plan);
  EXPECT_EQ(json["fits"], 14);
  EXPECT_EQ(json["per_node"][0]["vms"], 7);
  EXPECT_GE(json["estimate_s"]["total"].get<int>(), 30);
  TaskFilter open;
  open.open_only = true;
  EXPECT_EQ(cloud->tasks(admin, {}, open)->items.size(), 0u) << "nothing is begun";

  for (int i = 0; i < 14; ++i) {
    NewVm vm;
    vm.imgid = request.imgid;
    vm.kind = "TVD";
    EXPECT_TRUE(cloud->define_vm(admin, vm)) << i;
  }
  NewVm vm;
  vm.imgid = request.imgid;
  vm.kind = "TVD";
  EXPECT_EQ(cloud->define_vm(admin, vm).error().code, ErrorCode::exhausted);
  EXPECT_EQ(cloud->plan(admin, request)->seating.placed, 0);
}

TEST_F(Scheduler, ADryRunForLaterDoesNotCountHowBusyNodesAreNow) {
  PlanRequest request;
  request.imgid = import("debian");
  msg::NodeStatus busy;
  busy.nid = "nc#52:54:00:00:00:01#status";
  busy.host = "nc1";
  busy.ccid = "cc1";
  busy.hardware_data = {8, 95, 32768, 1000, 500'000, 1000};
  publish(*cc, "nodestatus.cc-cc1", msg::serialize(busy));
  settle();
  request.node = "nc1";
  EXPECT_EQ(cloud->plan(admin, request)->bottleneck->resource, Resource::load);
  request.at = clock.wall_ms() + 3'600'000;
  const auto later = cloud->plan(admin, request);
  EXPECT_EQ(later->seating.placed, 1);
  EXPECT_THAT(later->notes[0], HasSubstr("was not counted"));
  request.at = clock.wall_ms() - 3'600'000;
  EXPECT_EQ(cloud->plan(admin, request).error().key, "at");
  request.at = 0;
  request.count = 0;
  EXPECT_EQ(cloud->plan(admin, request).error().key, "count");
  request.count = 1;
  request.node = "nc9";
  EXPECT_EQ(cloud->plan(admin, request).error().key, "node");
  EXPECT_EQ(cloud->plan(ann, request).error().code, ErrorCode::permission_denied);
}

TEST_F(Scheduler, ADryRunReckonsWithWhatNodesTold) {
  PlanRequest request;
  request.imgid = import("debian");
  request.count = 2;
  EXPECT_FALSE(cloud->plan(admin, request)->estimate.fetch_measured);
  const auto insid = define(request.imgid);
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  ASSERT_EQ(ops(), "image/prepare");
  auto status = answer(last(), Event::downloading);
  status.bytes_per_s = 1'000'000;
  tell(status);
  say(Event::prepared);
  ASSERT_EQ(ops(), "image/run");
  clock.advance(std::chrono::seconds{7});
  say(Event::running);
  beat();
  const auto estimate = cloud->plan(admin, request)->estimate;
  EXPECT_TRUE(estimate.fetch_measured);
  EXPECT_EQ(estimate.fetch_s, 6) << "5 MiB at 1 MB/s";
  EXPECT_TRUE(estimate.boot_measured);
  EXPECT_EQ(estimate.boot_s, 7);
}

}  // namespace
}  // namespace educloud::clc
