#include <regex>

#include "common/obs/metrics.hpp"
#include "integration/clc/cloud_fixture.hpp"
#include "support/fault.hpp"

// Statuses that must not count, each counted by what it is; and clocks that are set by an hour.

namespace educloud::clc {
namespace {

using namespace std::chrono_literals;

/// How many statuses have been of that kind so far.
int counted(const std::string& result) {
  const std::string text = obs::metrics().text();
  const std::regex line("educloud_clc_statuses_total\\{result=\"" + result + "\"\\} ([0-9]+)");
  std::smatch found;
  return std::regex_search(text, found, line) ? std::stoi(found[1]) : 0;
}

class Sanity : public CloudTest {
 protected:
  std::string start_vm() {
    const auto task = cloud->run_vm(admin, define(import("debian")));
    EXPECT_TRUE(task) << task.error().message;
    EXPECT_EQ(ops(), "image/prepare");
    return task->task.tid;
  }
  /// Tells `status` as `sender`, and that it was counted as `result` once and changed nothing.
  void expect_dropped(const msg::TaskStatus& status, const std::string& result, const std::string& tid,
                      bus::Bus* sender = nullptr) {
    const auto before = counted(result);
    educloud::test::injected("reorder");
    const auto state = at(tid);
    publish(sender != nullptr ? *sender : *cc, "taskstatus.test", msg::serialize(status));
    EXPECT_EQ(ops(), "") << result;
    EXPECT_EQ(counted(result), before + 1) << result;
    EXPECT_EQ(at(tid), state) << result;
  }
};

TEST_F(Sanity, ReplayedReorderedForgedAndAncientStatusesAreCountedAndDropped) {
  const auto tid = start_vm();
  const auto early = answer(last(), Event::downloading);
  auto later = answer(last(), Event::cloning);
  tell(later);
  expect_dropped(later, "duplicate", tid);
  later.msgid = "another";
  expect_dropped(later, "duplicate", tid);
  expect_dropped(early, "stale", tid);

  const auto prepared = answer(last(), Event::prepared);
  auto forged = prepared;
  forged.nid = "nc2";
  expect_dropped(forged, "wrong_sender", tid);
  auto outsider = broker.connect("cc-cc9");
  expect_dropped(prepared, "wrong_sender", tid, outsider.get());
  expect_dropped(prepared, "wrong_sender", tid, walrus.get());
  forged = prepared;
  forged.event = "cancel";
  expect_dropped(forged, "malformed", tid);
  forged.event = "submitted";
  expect_dropped(forged, "not_allowed", tid);
  forged = prepared;
  forged.tid = "IMG00000001:IMG00000001:VD99999999";
  expect_dropped(forged, "unknown_task", tid);

  tell(prepared);
  EXPECT_EQ(ops(), "image/run");
  expect_dropped(prepared, "other_command", tid);
}

TEST_F(Sanity, StatusesOfAnEarlierRunAreAncient) {
  const auto tid = start_vm();
  const auto first = last();
  ASSERT_TRUE(cloud->cancel_task(admin, tid));
  EXPECT_EQ(ops(), "task/delete");
  say(Event::deleted);
  ASSERT_TRUE(cloud->run_vm(admin, tid.substr(24)));
  EXPECT_EQ(ops(), "image/prepare");
  expect_dropped(answer(first, Event::prepared), "other_command", tid);
  auto dressed_up = answer(first, Event::prepared);
  dressed_up.cmdid = last().cmdid;
  dressed_up.seq += 1'000'000;
  expect_dropped(dressed_up, "stale", tid);  // of an older epoch, however high its number
  // Consumed a day ago and forgotten since: its command is not the present one any more.
  clock.advance(25h);
  expect_dropped(answer(first, Event::deleted), "other_command", tid);
}

// A defect, or a hand in the database: every further delivery would meet it again.
TEST_F(Sanity, AStatusThatCannotBeAppliedIsDeadLetteredAtOnce) {
  NewImage request;
  request.name = "debian";
  const auto made = cloud->create_image(admin, request);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(ops(), "image/import");
  ASSERT_TRUE(store->write([](store::Sql& sql) -> Result<> {
    sql.run("DELETE FROM images");
    return {};
  }));
  const auto before = broker.dead_letters();
  say_submitted();
  EXPECT_EQ(broker.dead_letters(), before + 1);
  EXPECT_EQ(broker.unsettled() + broker.depth("clc_status_queue"), 0u);
}

class ClockJump : public Sanity, public testing::WithParamInterface<int> {};

TEST_P(ClockJump, OfAnHourTouchesNoTaskNorHeartbeat) {
  const auto jump = std::chrono::hours{GetParam()};
  const auto running = start_vm();
  say(Event::prepared);
  EXPECT_EQ(ops(), "image/run");
  say(Event::running);
  running_vms["nc1"] = {{running.substr(24), "", "", 4096, 1, "running", 0, 0, "", ""}};
  const auto fetching = cloud->run_vm(admin, define(cloud->images(admin, {})->items.at(0).image.imgid));
  ASSERT_TRUE(fetching);
  const auto tid = fetching->task.tid;
  EXPECT_EQ(ops(), "image/prepare");
  const auto prepare = last();
  say(Event::downloading);
  advance(10);
  const auto deadline = cloud->task(admin, tid)->task.deadline_at;

  clock.jump_wall(jump);
  educloud::test::injected("clock-jump");
  ASSERT_TRUE(ticker->tick());
  EXPECT_EQ(ops(), "") << "neither timed out nor asked again";
  EXPECT_EQ(at(tid), "preparing/downloading");
  EXPECT_EQ(at(running), "editing/running+");
  EXPECT_EQ(cloud->task(admin, tid)->task.deadline_at - deadline, std::chrono::milliseconds(jump).count());
  EXPECT_EQ(heartbeats->node("nc1", "cc1")->age_ms, 0) << "by a clock that does not jump";
  EXPECT_TRUE(cloud->node(admin, "nc1")->alive);
  EXPECT_EQ(cloud->node(admin, "nc1")->lost_at, 0);
  for (int i = 0; i < 3; ++i) advance(5);
  EXPECT_EQ(at(tid), "preparing/downloading");

  tell(answer(prepare, Event::prepared));
  EXPECT_EQ(ops(), "image/run");
  EXPECT_GT(last().deadline, clock.wall_ms());
  say(Event::running);
  EXPECT_EQ(at(tid), "editing/running+");
}

INSTANTIATE_TEST_SUITE_P(BothWays, ClockJump, testing::Values(1, -1));

}  // namespace
}  // namespace educloud::clc
