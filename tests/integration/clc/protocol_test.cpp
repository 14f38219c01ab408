#include "integration/clc/cloud_fixture.hpp"

#include <random>

#include "common/task/table.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class Protocol : public CloudTest {
 protected:
  std::string start_vm() {
    const auto insid = define(import("debian"));
    const auto task = cloud->run_vm(admin, insid);
    EXPECT_TRUE(task) << task.error().message;
    EXPECT_EQ(ops(), "image/prepare");
    return task->task.tid;
  }
  void run_prepared() {
    say(Event::prepared);
    EXPECT_EQ(ops(), "image/run");
    say(Event::running);
  }
};

TEST_F(Protocol, DuplicatesReorderedAndForgedStatusesChangeNothing) {
  const auto tid = start_vm();
  const auto downloading = answer(last(), Event::downloading);
  const auto cloning = answer(last(), Event::cloning);
  const auto prepared = answer(last(), Event::prepared);
  tell(downloading);
  tell(prepared);
  EXPECT_EQ(ops(), "image/run");
  tell(prepared);
  tell(cloning);
  tell(downloading);
  EXPECT_EQ(ops(), "") << "one effect only";
  EXPECT_EQ(at(tid), "preparing/done");
  auto forged = answer(last(), Event::running);
  forged.nid = "nc2";
  tell(forged);
  forged = answer(last(), Event::running);
  auto outsider = broker.connect("cc-cc9");
  publish(*outsider, "taskstatus.cc-cc9", msg::serialize(forged));
  publish(*walrus, "taskstatus.walrus", msg::serialize(forged));
  settle();
  EXPECT_EQ(at(tid), "preparing/done");
  tell(answer(last(), Event::running));
  EXPECT_EQ(at(tid), "editing/running+");
}

TEST_F(Protocol, MalformedMessagesAreDeadLetteredAndNeighboursLive) {
  const auto tid = start_vm();
  const auto before = broker.dead_letters();
  publish(*cc, "taskstatus.cc-cc1", "{");
  publish(*cc, "taskstatus.cc-cc1", R"({"type":"taskstatus"})");
  publish(*cc, "taskstatus.cc-cc1", std::string(70'000, ' '));
  auto bad_id = answer(last(), Event::downloading);
  bad_id.tid = "../../x:y:z";
  publish(*cc, "taskstatus.cc-cc1", msg::serialize(bad_id));
  publish(*cc, "nodestatus.cc-cc1", "[]");
  say(Event::downloading);
  EXPECT_EQ(broker.dead_letters(), before + 5);
  EXPECT_EQ(at(tid), "preparing/downloading");
}

TEST_F(Protocol, AnUndeliverableBootKeepsItsPortsUntilTheNodeHasStoppedIt) {
  const auto ports = [this] {
    return store
        ->read(
            [](store::Sql& sql) -> Result<std::int64_t> { return sql.number("SELECT COUNT(*) FROM ports"); })
        .value();
  };
  const auto tid = start_vm();
  say(Event::prepared);
  EXPECT_EQ(ops(), "image/run");
  auto undeliverable = answer(last(), Event::failed);
  undeliverable.seq = 0;
  undeliverable.errormsg = "node nc1 has no queue";
  tell(undeliverable);
  EXPECT_EQ(at(tid), "editing/stopped!");
  EXPECT_EQ(ops(), "image/stop") << "another copy of the boot may have come through";
  EXPECT_EQ(ports(), 2);
  say(Event::stopped);
  EXPECT_EQ(ports(), 0);
}

TEST_F(Protocol, AClockSetBackWhileClcWasDownPutsNothingOff) {
  const auto tid = start_vm();
  halt();
  clock.jump_wall(-std::chrono::hours{1});
  boot();
  beat();
  EXPECT_EQ(ops(), "");
  advance(31);
  EXPECT_EQ(ops(), "image/prepare") << "sent again for want of news";
  for (int minutes = 0; minutes < 6; ++minutes) advance(60);
  EXPECT_EQ(at(tid), "preparing/init!");
}

TEST_F(Protocol, TheSameCommandIsSentAgainUntilThereIsNews) {
  const auto tid = start_vm();
  const auto cmdid = last().cmdid;
  advance(29);
  EXPECT_EQ(ops(), "");
  advance(1);
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().cmdid, cmdid);
  say(Event::downloading);
  advance(25);
  EXPECT_EQ(ops(), "");
  advance(5);
  EXPECT_EQ(ops(), "image/prepare");
  say(Event::prepared);
  ops();
  say(Event::running);
  for (int i = 0; i < 10; ++i) advance(40);
  EXPECT_EQ(at(tid), "editing/running+");
}

TEST_F(Protocol, WithoutNewsItIsSentLessAndLessOften) {
  start_vm();
  std::vector<int> sent;
  for (int second = 1; second <= 280; ++second) {
    advance(1);
    if (!ops().empty()) sent.push_back(second);
  }
  EXPECT_THAT(sent, testing::ElementsAre(30, 90, 210));
}

TEST_F(Protocol, ASilentStateTimesOutAndProgressPutsThatOff) {
  const auto tid = start_vm();
  say(Event::downloading);
  advance(400);
  say(Event::downloading);
  advance(400);
  EXPECT_EQ(at(tid), "preparing/downloading");
  advance(300);
  EXPECT_EQ(at(tid), "preparing/init!");
  EXPECT_THAT(cloud->task(admin, tid)->task.errormsg,
              HasSubstr("no answer or progress from node nc1 on image/prepare"));
  ops();
  advance(100);
  EXPECT_EQ(ops(), "") << "given up: not sent again behind the user's back";
  ASSERT_TRUE(cloud->start_task(admin, tid));
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().attempt, 2);
}

TEST_F(Protocol, ADeleteIsRepeatedUntilItIsAnswered) {
  const auto tid = start_vm();
  ASSERT_TRUE(cloud->cancel_task(admin, tid));
  EXPECT_EQ(ops(), "task/delete");
  say(Event::failed, "busy");
  advance(61);
  EXPECT_EQ(ops(), "task/delete");
  say(Event::deleted);
  EXPECT_EQ(at(tid), "submitting/gone");
}

TEST_F(Protocol, AHeldUpCommandIsOlderThanTheOneAfterIt) {
  const auto tid = start_vm();
  const auto prepare = last();
  ASSERT_TRUE(cloud->cancel_task(admin, tid));
  EXPECT_EQ(ops(), "task/delete");
  EXPECT_GT(last().attempt, prepare.attempt);
  const auto epoch = last().epoch;
  say(Event::deleted);
  ASSERT_TRUE(cloud->run_vm(admin, tid.substr(24)));
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_GT(last().epoch, epoch) << "the same task id again";
}

TEST_F(Protocol, OneCopyOfACommandWaitsForTheBroker) {
  start_vm();
  const auto waiting = [&] {
    return *store->read([](store::Sql& sql) -> Result<std::int64_t> { return store::outbox_size(sql); });
  };
  clock.advance(std::chrono::seconds{31});
  ASSERT_TRUE(ticker->tick());
  EXPECT_EQ(waiting(), 1);
  clock.advance(std::chrono::seconds{31});
  ASSERT_TRUE(ticker->tick());
  EXPECT_EQ(waiting(), 1);
}

TEST_F(Protocol, OnlyAnAdministratorForcesAnEndAndOnlyIfTheNodeIsSilent) {
  const auto tid = start_vm();
  const auto insid = tid.substr(24);
  run_prepared();
  nc1_beats = nc2_beats = false;
  ASSERT_TRUE(cloud->delete_vm(admin, insid));
  EXPECT_EQ(ops(), "task/delete");
  advance(590);
  EXPECT_EQ(cloud->cancel_task(admin, tid, true).error().code, ErrorCode::conflict);
  advance(20);
  EXPECT_EQ(at(tid), "editing/deleting!+");
  EXPECT_EQ(cloud->cancel_task({"ann", false}, tid, true).error().code, ErrorCode::not_found);
  ops();
  ASSERT_TRUE(cloud->cancel_task(admin, tid, true));
  EXPECT_EQ(at(tid), "submitting/gone+");
  EXPECT_EQ(cloud->vm(admin, insid).error().code, ErrorCode::not_found);
  EXPECT_EQ(ops(), "task/delete") << "waits for the node at the broker";
  EXPECT_GT(last().deadline, clock.wall_ms() + 6 * 24 * 3'600'000LL);
  say(Event::deleted);
  EXPECT_EQ(at(tid), "submitting/gone+");
}

TEST_F(Protocol, ARunningVmOfALostNodeIsForcedToo) {
  const auto tid = start_vm();
  run_prepared();
  nc1_beats = nc2_beats = false;
  advance(601);
  ops();
  ASSERT_TRUE(cloud->delete_vm(admin, tid.substr(24), true));
  EXPECT_EQ(at(tid), "submitting/gone+");
}

TEST_F(Protocol, CancelWorksInEachState) {
  const auto imgid = import("debian");
  const std::vector<std::vector<Event>> roads{{},
                                              {Event::downloading},
                                              {Event::cloning},
                                              {Event::prepared},
                                              {Event::prepared, Event::booting},
                                              {Event::prepared, Event::running},
                                              {Event::prepared, Event::running, Event::stopped},
                                              {Event::failed}};
  for (const auto& road : roads) {
    const auto task = cloud->modify_image(admin, imgid, {});
    ASSERT_TRUE(task) << task.error().message;
    ops();
    for (const auto event : road) {
      say(event);
      ops();
    }
    const auto state = at(task->task.tid);
    ASSERT_TRUE(cloud->cancel_task(admin, task->task.tid)) << state;
    EXPECT_EQ(ops(), "task/delete") << state;
    EXPECT_EQ(at(task->task.tid), "editing/deleting") << state;
    say(Event::deleted);
    EXPECT_EQ(at(task->task.tid), "submitting/gone") << state;
  }
  const auto left = store->read([](store::Sql& sql) -> Result<std::int64_t> {
    return sql.number("SELECT (SELECT COUNT(*) FROM ports) + (SELECT COUNT(*) FROM instances)");
  });
  EXPECT_EQ(*left, 0) << "no port and no instance leaks";
}

TEST_F(Protocol, ARestartOfClcLosesNothing) {
  const auto tid = start_vm();
  say(Event::prepared);
  halt();  // the run command may stand in the outbox, unsent
  boot();
  beat();
  const auto view = cloud->task(admin, tid);
  ASSERT_TRUE(view);
  if (commands.back().op != "image/run") advance(31);
  EXPECT_EQ(commands.back().op, "image/run");
  say(Event::running);
  EXPECT_EQ(at(tid), "editing/running+");
}

TEST_F(Protocol, CommandsWaitForTheBrokerAndGoInOrder) {
  const auto imgid = import("debian");
  broker.set_up(false);
  for (int i = 0; i < 3; ++i) define(imgid, "TVD");
  relay->pump();
  drain();
  EXPECT_EQ(cloud->status(admin)->outbox, 3);
  broker.set_up(true);
  relay->reconnected();
  EXPECT_EQ(ops(), "image/prepare image/prepare image/prepare");
  EXPECT_EQ(cloud->status(admin)->outbox, 0);
}

TEST_F(Protocol, AClockThatJumpsTimesNothingOut) {
  const auto tid = start_vm();
  say(Event::downloading);
  advance(1);
  struct Jumped : ManualClock {
    explicit Jumped(const ManualClock& from) : ManualClock(from) {}
    std::int64_t wall_ms() const override { return ManualClock::wall_ms() + 3'600'000; }
  };
  // The ticker keeps a reference to the clock, so the jump is made under it.
  class Switch : public Clock {
   public:
    explicit Switch(const Clock& clock) : clock_(clock) {}
    std::int64_t wall_ms() const override { return clock_.wall_ms() + jump; }
    std::int64_t boot_ms() const override { return clock_.boot_ms(); }
    std::int64_t jump = 0;

   private:
    const Clock& clock_;
  } wall(clock);
  Engine engine(*heartbeats, events, wall, cloud->options());
  Ticker other(*store, engine, *heartbeats, wall);
  ASSERT_TRUE(other.tick());
  wall.jump = 3'600'000;
  clock.advance(std::chrono::seconds{1});
  ASSERT_TRUE(other.tick());
  EXPECT_EQ(at(tid), "preparing/downloading");
}

TEST_F(Protocol, WatchersGetEachChangeOfWhatTheyMaySee) {
  const auto insid = define(import("debian"));
  const auto stream = events.subscribe(admin, "", "");
  const auto others = events.subscribe({"ann", false}, "", "");
  ASSERT_TRUE(stream && others);
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  EXPECT_TRUE((*stream)->is_open());
  events.close();
  EXPECT_FALSE((*stream)->is_open());
}

// Whatever node and walrus say, in whatever order, twice or never: no task leaves the table, no port and no
// reservation leaks, and everything can be ended.
TEST_F(Protocol, RandomConversationsLeaveNothingBehind) {
  const auto imgid = import("debian");
  for (unsigned seed = 1; seed <= 12; ++seed) {
    std::mt19937 random(seed);
    const auto pick = [&](std::size_t count) { return static_cast<std::size_t>(random() % count); };
    const auto task = seed % 2 == 0 ? cloud->modify_image(admin, imgid, {}) : [&] {
      const auto insid = define(imgid);
      return cloud->run_vm(admin, insid);
    }();
    ASSERT_TRUE(task) << task.error().message;
    const auto tid = task->task.tid;
    ops();
    std::vector<msg::TaskStatus> said;
    constexpr std::array kEvents{Event::downloading, Event::cloning,   Event::prepared,
                                 Event::booting,     Event::running,   Event::stopped,
                                 Event::failed,      Event::uploading, Event::deleted};
    for (int step = 0; step < 40; ++step) {
      switch (pick(6)) {
        case 0: (void)cloud->start_task(admin, tid); break;
        case 1: (void)cloud->stop_task(admin, tid); break;
        case 2:
          if (!said.empty()) tell(said[pick(said.size())]);
          break;
        case 3: advance(static_cast<std::int64_t>(pick(200))); break;
        default: {
          std::vector<const msg::Command*> ours;
          for (const auto& one : commands)
            if (one.tid == tid) ours.push_back(&one);
          said.push_back(answer(*ours[pick(3) == 0 ? pick(ours.size()) : ours.size() - 1],
                                kEvents[pick(kEvents.size())]));
          if (pick(4) != 0) tell(said.back());
        }
      }
      ops();
    }
    // Now everybody behaves.
    for (int step = 0; step < 20 && !at(tid).starts_with("submitting/gone"); ++step) {
      (void)cloud->cancel_task(admin, tid);
      advance(61);
      ops();
      for (std::size_t i = commands.size(); i-- > 0;) {
        if (commands[i].tid != tid) continue;
        tell(answer(commands[i], Event::deleted));
        break;
      }
    }
    EXPECT_THAT(at(tid), testing::StartsWith("submitting/gone")) << "seed " << seed;
    const auto left = store->read([](store::Sql& sql) -> Result<std::int64_t> {
      return sql.number("SELECT COUNT(*) FROM ports") +
             static_cast<std::int64_t>(store::reservations(sql).size());
    });
    EXPECT_EQ(*left, 0) << "seed " << seed;
  }
}

}  // namespace
}  // namespace educloud::clc
