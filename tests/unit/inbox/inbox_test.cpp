#include "common/inbox/inbox.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "common/base/ids.hpp"
#include "common/bus/memory_bus.hpp"
#include "support/fault.hpp"

namespace educloud::inbox {
namespace {

using task::Event;
using task::Phase;
using task::State;

constexpr const char* kTid = "IMG00000001:IMG00000001:VD00000001";

class InboxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/educloud-inbox-XXXXXX";
    directory_ = mkdtemp(pattern);
    broker_.bind("cc_status", "taskstatus.nc-nc1", "cc_status_queue");
    bus_ = broker_.connect("nc-nc1");
    reader_ = broker_.connect("cc-cc1");
    reader_->subscribe({"cc_status_queue", 64, [this](bus::Delivery delivery) {
                          got_.push_back(*msg::parse<msg::TaskStatus>(delivery.body));
                          delivery.settle(bus::Verdict::ack);
                        }});
    bus_->start([] {});
    reader_->start([] {});
    open();
  }
  void TearDown() override {
    inbox_.reset();
    std::filesystem::remove_all(directory_);
  }

  void open() {
    inbox_.reset();
    auto opened = Inbox::open(options_(), *bus_, clock_);
    ASSERT_TRUE(opened) << opened.error().message;
    inbox_ = std::move(*opened);
  }
  Options options_() {
    Options options;
    options.file = directory_ / "inbox.sqlite";
    options.exchange = "cc_status";
    options.routing_key = "taskstatus.nc-nc1";
    options.nid = "nc1";
    options.kept_commands = 3;
    return options;
  }
  msg::Command command(const std::string& op, std::int64_t attempt = 1, const std::string& tid = kTid) {
    msg::Command made;
    made.op = op;
    made.tid = tid;
    made.cmdid = new_command_id().str();
    made.epoch = 1;
    made.attempt = attempt;
    made.ts = clock_.wall_ms();
    made.deadline = made.ts + 60'000;
    return made;
  }
  Report progress(const msg::Command& of, int percent) {
    Report report{of.tid, of.cmdid, Event::downloading, {Phase::preparing, State::downloading}};
    report.progress = percent;
    return report;
  }
  Report final_of(const msg::Command& of, Event event, task::TaskState at) {
    Report report{of.tid, of.cmdid, event, at};
    report.final = true;
    return report;
  }
  std::vector<msg::TaskStatus> told() {
    broker_.deliver_all();
    return std::exchange(got_, {});
  }

  std::filesystem::path directory_;
  ManualClock clock_;
  bus::MemoryBroker broker_;
  std::unique_ptr<bus::Bus> bus_, reader_;
  std::unique_ptr<Inbox> inbox_;
  std::vector<msg::TaskStatus> got_;
};

TEST_F(InboxTest, ANewCommandIsFreshAndUnfinished) {
  const auto prepare = command("image/prepare");
  EXPECT_EQ(*inbox_->accept(prepare), Accepted::fresh);
  ASSERT_EQ(inbox_->unfinished().size(), 1u);
  EXPECT_EQ(inbox_->unfinished()[0].command.cmdid, prepare.cmdid);
  EXPECT_TRUE(told().empty());
}

TEST_F(InboxTest, ADuplicateRepeatsThePresentStatus) {
  const auto prepare = command("image/prepare");
  ASSERT_EQ(*inbox_->accept(prepare), Accepted::fresh);
  EXPECT_EQ(*inbox_->accept(prepare), Accepted::duplicate);
  EXPECT_TRUE(told().empty());
  ASSERT_TRUE(inbox_->report(progress(prepare, 10)));
  const auto first = told();
  EXPECT_EQ(*inbox_->accept(prepare), Accepted::duplicate);
  const auto second = told();
  ASSERT_EQ(first.size(), 1u);
  ASSERT_EQ(second.size(), 1u);
  EXPECT_EQ(first[0].seq, second[0].seq);
  EXPECT_EQ(first[0].msgid, second[0].msgid);
}

TEST_F(InboxTest, AStatusCarriesWhatItsReaderNeeds) {
  const auto prepare = command("image/prepare", 7);
  ASSERT_TRUE(inbox_->accept(prepare));
  auto failed = final_of(prepare, Event::failed, {Phase::preparing, State::init});
  failed.error = Error{ErrorCode::exhausted, "no room"};
  ASSERT_TRUE(inbox_->report(failed));
  const auto statuses = told();
  ASSERT_EQ(statuses.size(), 1u);
  const auto& one = statuses[0];
  EXPECT_EQ(one.phase, "preparing");
  EXPECT_EQ(one.state, "init");
  EXPECT_EQ(one.event, "failed");
  EXPECT_EQ(one.failed, 1);
  EXPECT_EQ(one.done, 0);
  EXPECT_EQ(one.final, 1);
  EXPECT_EQ(one.errormsg, "no room");
  EXPECT_EQ(one.nid, "nc1");
  EXPECT_EQ(one.epoch, 1);
  EXPECT_EQ(one.attempt, 7);
  EXPECT_EQ(one.cmdid, prepare.cmdid);
  EXPECT_TRUE(inbox_->unfinished().empty());
}

TEST_F(InboxTest, OlderAttemptsAndForgottenCommandsAreStale) {
  const auto first = command("image/prepare", 1);
  const auto second = command("image/run", 2);
  ASSERT_EQ(*inbox_->accept(first), Accepted::fresh);
  ASSERT_EQ(*inbox_->accept(second), Accepted::fresh);
  EXPECT_EQ(*inbox_->accept(first), Accepted::stale);
  EXPECT_EQ(*inbox_->accept(command("image/prepare", 1)), Accepted::stale);
  EXPECT_EQ(inbox_->find(kTid)->command.cmdid, second.cmdid);
}

TEST_F(InboxTest, AfterADeleteTheTaskMayBeginAgainFromAnyEpoch) {
  const auto gone = command("task/delete", 9);
  ASSERT_TRUE(inbox_->accept(gone));
  ASSERT_TRUE(inbox_->report(final_of(gone, Event::deleted, {Phase::editing, State::deleting})));
  clock_.advance(std::chrono::milliseconds{1});
  EXPECT_EQ(*inbox_->accept(command("image/prepare", 1)), Accepted::fresh);
  EXPECT_EQ(*inbox_->accept(gone), Accepted::stale);
}

TEST_F(InboxTest, ACommandHeldUpOnItsWayDoesNotBeginADeletedTaskAgain) {
  const auto held_up = command("image/run", 2);
  clock_.advance(std::chrono::milliseconds{1});
  const auto gone = command("task/delete", 3);
  ASSERT_TRUE(inbox_->accept(gone));
  ASSERT_TRUE(inbox_->report(final_of(gone, Event::deleted, {Phase::editing, State::deleting})));
  EXPECT_EQ(*inbox_->accept(held_up), Accepted::stale);
}

TEST_F(InboxTest, ALateCommandIsKeptButNotToBeBegun) {
  auto late = command("image/prepare");
  late.deadline = clock_.wall_ms() - 5000;
  EXPECT_EQ(*inbox_->accept(late), Accepted::expired);
  EXPECT_NE(expired_error(late, clock_.wall_ms()).message.find("5 s after"), std::string::npos);
}

TEST_F(InboxTest, AReporterOfASupersededCommandIsToldToStop) {
  const auto first = command("image/prepare");
  ASSERT_TRUE(inbox_->accept(first));
  ASSERT_TRUE(inbox_->accept(command("task/delete", 2)));
  auto refused = inbox_->report(progress(first, 50));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  EXPECT_EQ(inbox_->report(progress(command("image/run", 1, "no such task"), 1)).error().code,
            ErrorCode::not_found);
}

TEST_F(InboxTest, ProgressIsHeldBackToOnePerSecondAndTheLastIsSent) {
  const auto prepare = command("image/prepare");
  ASSERT_TRUE(inbox_->accept(prepare));
  for (int percent = 0; percent < 50; ++percent) ASSERT_TRUE(inbox_->report(progress(prepare, percent)));
  EXPECT_EQ(told().size(), 1u);
  inbox_->tick();
  EXPECT_TRUE(told().empty());
  clock_.advance(std::chrono::milliseconds{1000});
  inbox_->tick();
  auto later = told();
  ASSERT_EQ(later.size(), 1u);
  EXPECT_EQ(later[0].progress, 49);
  // A change of state and a final one are never held back, and what they overtake is dropped.
  ASSERT_TRUE(inbox_->report(progress(prepare, 90)));
  ASSERT_TRUE(inbox_->report(final_of(prepare, Event::prepared, {Phase::preparing, State::done})));
  clock_.advance(std::chrono::milliseconds{5000});
  inbox_->tick();
  later = told();
  ASSERT_EQ(later.size(), 1u);
  EXPECT_EQ(later[0].event, "prepared");
  EXPECT_EQ(later[0].done, 1);
}

TEST_F(InboxTest, AStatusTellsTheRateOfItsBytes) {
  const auto prepare = command("image/prepare");
  ASSERT_TRUE(inbox_->accept(prepare));
  const auto at = [&](std::int64_t bytes, Event event = Event::downloading) {
    auto report = progress(prepare, 1);
    report.event = event;
    report.bytes_done = bytes;
    EXPECT_TRUE(inbox_->report(report));
    const auto last = told();
    clock_.advance(std::chrono::milliseconds{1000});
    return last.empty() ? -1 : last.back().bytes_per_s;
  };
  EXPECT_EQ(at(0), 0);
  for (std::int64_t second = 1; second < 20; ++second) EXPECT_EQ(at(second * 1000), 1000);
  for (int second = 0; second < 5; ++second) at(19'000);
  EXPECT_EQ(at(19'000), 0) << "it stands still";
  EXPECT_EQ(at(5000, Event::cloning), 0) << "other work, from its beginning";
  EXPECT_EQ(at(7000, Event::cloning), 2000);
  auto last = final_of(prepare, Event::prepared, {Phase::preparing, State::done});
  last.bytes_done = 9000;
  ASSERT_TRUE(inbox_->report(last));
  EXPECT_EQ(told().back().bytes_per_s, 0);
}

TEST_F(InboxTest, WhatTheBrokerDidNotConfirmIsSentAgain) {
  const auto stop = command("image/stop");
  ASSERT_TRUE(inbox_->accept(stop));
  broker_.set_up(false);
  ASSERT_TRUE(inbox_->report(final_of(stop, Event::stopped, {Phase::editing, State::stopped})));
  EXPECT_TRUE(told().empty());
  broker_.set_up(true);
  inbox_->resend();
  EXPECT_EQ(told().size(), 1u);
  inbox_->resend();
  EXPECT_TRUE(told().empty());  // confirmed now
}

TEST_F(InboxTest, ARestartForgetsNothing) {
  const auto done = command("image/stop", 1, "IMG00000001:IMG00000001:VD00000002");
  const auto open_one = command("image/prepare");
  ASSERT_TRUE(inbox_->accept(done));
  ASSERT_TRUE(inbox_->accept(open_one));
  broker_.set_up(false);
  ASSERT_TRUE(inbox_->report(final_of(done, Event::stopped, {Phase::editing, State::stopped})));
  ASSERT_TRUE(inbox_->report(progress(open_one, 30)));
  const auto seq_before = inbox_->find(kTid)->status->seq;
  open();
  broker_.set_up(true);
  ASSERT_EQ(inbox_->unfinished().size(), 1u);
  EXPECT_EQ(inbox_->unfinished()[0].command.cmdid, open_one.cmdid);
  inbox_->resend();
  EXPECT_EQ(told().size(), 2u);
  EXPECT_EQ(*inbox_->accept(done), Accepted::duplicate);
  EXPECT_EQ(told().size(), 1u);
  ASSERT_TRUE(inbox_->report(progress(open_one, 31)));
  clock_.advance(std::chrono::milliseconds{1000});
  inbox_->tick();
  EXPECT_GT(inbox_->find(kTid)->status->seq, seq_before);
}

TEST_F(InboxTest, APowerCutThatTakesTheLastStatusDoesNotBringItsNumberBack) {
  const auto copy = [&](const std::filesystem::path& from, const std::filesystem::path& to) {
    for (const char* name : {"inbox.sqlite", "inbox.sqlite-wal"}) {
      std::filesystem::copy_file(from / name, to / name, std::filesystem::copy_options::overwrite_existing);
    }
  };
  const auto synced = directory_ / "synced";
  std::filesystem::create_directory(synced);
  const auto run = command("image/run");
  ASSERT_TRUE(inbox_->accept(run));
  copy(directory_, synced);
  std::int64_t newest = 0;
  // Twice: what the first restart told is lost as well.
  for (int cut = 0; cut < 2; ++cut) {
    ASSERT_TRUE(inbox_->report(final_of(run, Event::running, {Phase::editing, State::running})));
    const auto statuses = told();
    ASSERT_EQ(statuses.size(), 1u);
    EXPECT_GT(statuses[0].seq, newest);
    newest = statuses[0].seq;
    inbox_.reset();
    educloud::test::injected("power-loss");
    std::filesystem::remove(directory_ / "inbox.sqlite-shm");
    copy(synced, directory_);
    open();
    copy(directory_, synced);
    ASSERT_EQ(inbox_->unfinished().size(), 1u);
    EXPECT_EQ(inbox_->unfinished()[0].command.cmdid, run.cmdid);
  }
}

TEST_F(InboxTest, AVmThatEndsLaterIsToldUnderTheLastCommand) {
  const auto run = command("image/run");
  ASSERT_TRUE(inbox_->accept(run));
  ASSERT_TRUE(inbox_->report(final_of(run, Event::running, {Phase::editing, State::running})));
  ASSERT_TRUE(inbox_->report(final_of(run, Event::stopped, {Phase::editing, State::stopped})));
  const auto statuses = told();
  ASSERT_EQ(statuses.size(), 2u);
  EXPECT_LT(statuses[0].seq, statuses[1].seq);
}

TEST_F(InboxTest, FinishedCommandsAreForgottenInTheEnd) {
  std::vector<msg::Command> all;
  for (int i = 0; i < 6; ++i) {
    clock_.advance(std::chrono::milliseconds{10});
    all.push_back(command("task/delete", i, "IMG00000001:IMG00000001:VD0000010" + std::to_string(i)));
    ASSERT_TRUE(inbox_->accept(all.back()));
    ASSERT_TRUE(inbox_->report(final_of(all.back(), Event::deleted, {Phase::editing, State::deleting})));
  }
  inbox_->tick();
  EXPECT_EQ(inbox_->tasks().size(), 6u);
  clock_.advance(std::chrono::hours{8 * 24});
  inbox_->tick();
  EXPECT_TRUE(inbox_->tasks().empty());
  clock_.advance(std::chrono::hours{1});
  inbox_->tick();
  EXPECT_EQ(*inbox_->accept(all[0]), Accepted::expired);  // nobody remembers it; its deadline stops it
}

TEST_F(InboxTest, LongAndBrokenTextsStillMakeAMessage) {
  const auto run = command("image/run");
  ASSERT_TRUE(inbox_->accept(run));
  auto failed = final_of(run, Event::failed, {Phase::editing, State::stopped});
  failed.error = Error{ErrorCode::internal, std::string(10'000, 'x') + "\xff\xfe"};
  failed.prompt = "\xff broken";
  ASSERT_TRUE(inbox_->report(failed));
  const auto statuses = told();
  ASSERT_EQ(statuses.size(), 1u);
  EXPECT_LE(statuses[0].errormsg.size(), 4000u);
}

TEST_F(InboxTest, TheFileIsPrivateAndABrokenOneIsNamed) {
  struct stat info {};
  ASSERT_EQ(::stat((directory_ / "inbox.sqlite").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 077, 0u);
  auto options = options_();
  options.file = directory_ / "junk.sqlite";
  FILE* junk = fopen(options.file.c_str(), "w");
  for (int i = 0; i < 1000; ++i) fputs("this is no database ", junk);
  fclose(junk);
  auto opened = Inbox::open(options, *bus_, clock_);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::corrupt);
  EXPECT_NE(opened.error().message.find("junk.sqlite"), std::string::npos);
}

}  // namespace
}  // namespace educloud::inbox
