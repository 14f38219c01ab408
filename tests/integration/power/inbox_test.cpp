// The inbox of nc and walrus: a command that was acked is known, and no number of a status is used twice.
#include "common/inbox/inbox.hpp"

#include "common/base/ids.hpp"
#include "common/bus/memory_bus.hpp"
#include "integration/power/cuts.hpp"

namespace educloud::inbox {
namespace {

namespace fs = std::filesystem;
using educloud::testing::CommitWatch;
using educloud::testing::DiskRecorder;
using educloud::testing::Recording;
using task::Event;
using task::Phase;
using task::State;

/// A node's inbox at random work.
class Life {
 public:
  explicit Life(std::uint64_t seed) : seed_(seed), random_(seed) {
    broker_.bind("cc_status", "taskstatus.nc-nc1", "cc_status_queue");
    bus_ = broker_.connect("nc-nc1");
    reader_ = broker_.connect("cc-cc1");
    reader_->subscribe({"cc_status_queue", 64, [this](bus::Delivery delivery) {
                          told_.push_back(*msg::parse<msg::TaskStatus>(delivery.body));
                          delivery.settle(bus::Verdict::ack);
                        }});
    bus_->start([] {});
    reader_->start([] {});
    fs::create_directory(folder());
  }

  void run(int cuts) {
    for (int round = 0; round < 3 && !::testing::Test::HasFailure(); ++round) {
      const auto recording = one_recording();
      educloud::testing::cut_often(
          recording, seed_ * 8 + static_cast<std::uint64_t>(round), cuts,
          [this](const fs::path& disk, std::size_t position) { check(disk, position); });
      inbox_.reset();
      educloud::testing::PowerCut cut(recording, educloud::testing::NameOrder::journalled);
      cut.advance(recording.ops.size());
      fs::remove_all(folder());
      cut.leave(random_(), folder());
    }
  }

 private:
  struct Told {
    std::size_t position;
    msg::TaskStatus status;
  };
  struct Acked {
    std::size_t position;
    msg::Command command;
  };

  fs::path folder() const { return directory_ / "disk"; }
  std::size_t pick(std::size_t count) { return random_() % count; }
  static Options options(const fs::path& folder) {
    Options options;
    options.file = folder / "inbox.sqlite";
    options.exchange = "cc_status";
    options.routing_key = "taskstatus.nc-nc1";
    options.nid = "nc1";
    return options;
  }

  Recording one_recording() {
    inbox_.reset();
    for (auto& one : acked_) one.position = 0;
    for (auto& one : all_told_) one.position = 0;
    before_ = educloud::testing::dump_database(folder() / "inbox.sqlite");
    DiskRecorder recorder(folder());
    CommitWatch watch(recorder, folder() / "inbox.sqlite", 3 + static_cast<int>(pick(40)));
    auto opened = Inbox::open(options(folder()), *bus_, clock_);
    EXPECT_TRUE(opened) << opened.error().message;
    if (!opened) return recorder.stop();
    inbox_ = std::move(*opened);
    for (int i = 0; i < 80; ++i) act(recorder);
    auto recording = recorder.stop();
    commits_ = watch.take();
    educloud::testing::expect_all_recorded(recording, folder());
    return recording;
  }

  void act(const DiskRecorder& recorder) {
    clock_.advance(std::chrono::milliseconds(pick(3000)));
    const auto number = 1 + pick(6);
    const auto tid = "IMG00000001:IMG00000001:VD0000000" + std::to_string(number);
    auto& current = current_[tid];
    if (current.cmdid.empty() || pick(5) == 0) {
      accept(recorder, tid, current);
    } else if (pick(6) == 0) {
      inbox_->tick();
    } else {
      report(current);
    }
    broker_.deliver_all();
    for (auto& status : std::exchange(told_, {})) {
      auto& newest = newest_seq_[status.tid];
      EXPECT_GE(status.seq, newest) << status.tid;
      newest = status.seq;
      all_told_.push_back({recorder.position(), std::move(status)});
    }
  }
  void accept(const DiskRecorder& recorder, const std::string& tid, msg::Command& current) {
    msg::Command command;
    command.op = pick(2) == 0 ? "image/prepare" : "image/run";
    command.tid = tid;
    command.cmdid = new_command_id().str();
    command.epoch = 1;
    command.attempt = ++attempts_;
    command.ts = clock_.wall_ms();
    command.deadline = command.ts + 60'000;
    const auto done = inbox_->accept(command);
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(*done, Accepted::fresh);
    current = command;
    acked_.push_back({recorder.position(), command});
  }
  void report(const msg::Command& of) {
    Report report{of.tid, of.cmdid, Event::downloading, {Phase::preparing, State::downloading}};
    report.progress = static_cast<int>(pick(100));
    report.prompt = std::string(pick(700), 'p');
    if (pick(4) == 0) {
      report.event = Event::prepared;
      report.at = {Phase::preparing, State::done};
      report.final = true;
    }
    const auto done = inbox_->report(report);
    EXPECT_TRUE(done) << done.error().message;
  }

  void check(const fs::path& disk, std::size_t position) {
    educloud::testing::expect_one_of(disk / "inbox.sqlite",
                                     educloud::testing::possible_contents(commits_, before_, position));
    bus::MemoryBroker broker;
    broker.bind("cc_status", "taskstatus.nc-nc1", "cc_status_queue");
    const auto bus = broker.connect("nc-nc1");
    bus->start([] {});
    auto opened = Inbox::open(options(disk), *bus, clock_);
    ASSERT_TRUE(opened) << opened.error().message;
    auto& inbox = **opened;
    std::map<std::string, msg::Command> newest;
    for (const auto& one : acked_) {
      if (one.position > position) break;
      newest[one.command.tid] = one.command;
    }
    for (const auto& [tid, command] : newest) {
      const auto entry = inbox.find(tid);
      ASSERT_TRUE(entry) << tid << " was acked";
      EXPECT_GE(entry->command.attempt, command.attempt) << "acked";
      if (entry->command.cmdid != command.cmdid) continue;
      EXPECT_EQ(*inbox.accept(command), Accepted::duplicate);
      // Done again if the cut took its end; told in any case, as news.
      Report report{tid, command.cmdid, Event::prepared, {Phase::preparing, State::done}};
      report.final = true;
      ASSERT_TRUE(inbox.report(report));
      const auto told = inbox.find(tid)->status->seq;
      for (const auto& one : all_told_) {
        if (one.position <= position && one.status.tid == tid) {
          EXPECT_LT(one.status.seq, told) << tid;
        }
      }
    }
    for (const auto& one : acked_) {
      if (one.position <= position) {
        EXPECT_NE(*inbox.accept(one.command), Accepted::fresh) << "it was acked";
      }
    }
  }

  const std::uint64_t seed_;
  std::mt19937_64 random_;
  const educloud::testing::TempDir directory_;
  ManualClock clock_;
  bus::MemoryBroker broker_;
  std::unique_ptr<bus::Bus> bus_, reader_;
  std::unique_ptr<Inbox> inbox_;
  std::string before_;
  std::vector<CommitWatch::Commit> commits_;
  std::map<std::string, msg::Command> current_;
  std::map<std::string, std::int64_t> newest_seq_;
  std::vector<msg::TaskStatus> told_;
  std::vector<Told> all_told_;
  std::vector<Acked> acked_;
  std::int64_t attempts_ = 0;
};

TEST(Power, WhatANodeHasAckedIsThereAfterACut) {
  for (const auto seed : educloud::testing::lives(8)) {
    SCOPED_TRACE("EDUCLOUD_POWER_SEED=" + std::to_string(seed));
    Life life(seed);
    life.run(60);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace educloud::inbox
