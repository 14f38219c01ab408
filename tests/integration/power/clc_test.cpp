// clc whole, over the real database: whatever it told anybody is there after the power has gone.
#include "clc/store/accounts.hpp"
#include "clc/store/database_file.hpp"
#include "integration/clc/cloud_fixture.hpp"
#include "integration/power/cuts.hpp"

namespace educloud::clc {
namespace {

namespace fs = std::filesystem;
using educloud::testing::CommitWatch;
using educloud::testing::DiskRecorder;
using educloud::testing::Recording;

/// Something that somebody was told: rows that must be there if the power goes at `position` or later.
struct Promise {
  std::size_t position = 0;
  std::string what, query, key;
  std::int64_t epoch = 0, attempt = 0;

  bool is_kept(store::Sql& sql) const {
    if (epoch == 0) return sql.number(query, {key}) > 0;
    return sql.number(query, {key, epoch, attempt}) > 0;
  }
};

/// Notes when clc settles what the broker delivered to it.
class AckWatch : public bus::Bus {
 public:
  using OnAck = std::function<void(const bus::Delivery&)>;
  AckWatch(std::unique_ptr<bus::Bus> inner, OnAck on_ack)
      : inner_(std::move(inner)), on_ack_(std::move(on_ack)) {}
  Result<> publish(bus::Outgoing message, bus::OnOutcome on_outcome) override {
    return inner_->publish(std::move(message), std::move(on_outcome));
  }
  void subscribe(bus::Subscription subscription) override {
    subscription.on_delivery = [this, handle = subscription.on_delivery](bus::Delivery delivery) {
      auto seen = delivery;
      delivery.settle = [this, seen = std::move(seen)](bus::Verdict verdict) {
        if (verdict == bus::Verdict::ack) on_ack_(seen);
        seen.settle(verdict);
      };
      handle(std::move(delivery));
    };
    inner_->subscribe(std::move(subscription));
  }
  void start(std::function<void()> on_ready) override { inner_->start(std::move(on_ready)); }
  void stop() override { inner_->stop(); }
  bool is_ready() const override { return inner_->is_ready(); }

 private:
  std::unique_ptr<bus::Bus> inner_;
  OnAck on_ack_;
};

/// A cloud at random work whose host loses its power some times, while its nodes and its broker go on.
class Life : public CloudTest {
 public:
  explicit Life(std::uint64_t seed) : seed_(seed), random_(seed) {}
  void TestBody() override {}

  /// Promises found kept after cuts.
  int proven() const { return proven_; }

  void run(int cuts) {
    SetUp();
    make_image();
    for (int round = 0; round < 3 && !HasFailure(); ++round) {
      const auto recording = one_recording();
      if (HasFailure()) break;
      educloud::testing::cut_often(
          recording, seed_ * 8 + static_cast<std::uint64_t>(round), cuts,
          [this](const fs::path& disk, std::size_t position) { check(disk, position); });
      lose_power(recording);
    }
    if (!HasFailure()) end_all();
    TearDown();
  }

 private:
  std::size_t pick(std::size_t count) { return random_() % count; }

  std::unique_ptr<bus::Bus> connect_clc() override {
    return std::make_unique<AckWatch>(broker.connect("clc"), [this](const bus::Delivery& delivery) {
      if (!msg::is_type(delivery.body, "taskstatus")) return;
      const auto status = msg::parse<msg::TaskStatus>(delivery.body);
      if (status)
        promise("acked " + status->msgid, "SELECT COUNT(*) FROM inbox WHERE msgid = ?", status->msgid);
    });
  }

  void promise(const std::string& what, const std::string& query, const std::string& key,
               std::int64_t epoch = 0, std::int64_t attempt = 0) {
    const std::scoped_lock lock(promises_mutex_);
    if (recorder_ == nullptr) return;
    const auto position = recorder_->position();
    promises_.push_back({position, what, query, key, epoch, attempt});
  }

  void make_image() {
    // Below the limit on the text of a row, so that some pages overflow.
    imgid_ = import("debian-" + std::string(200, 'x').substr(0, pick(40)));
  }

  /// clc starts and works; what it did to its disk and what it told meanwhile.
  Recording one_recording() {
    halt();
    before_ = educloud::testing::dump_database(folder_ / "clc.sqlite");
    recorder_ = std::make_unique<DiskRecorder>(folder_);
    CommitWatch watch(*recorder_, folder_ / "clc.sqlite", 4 + static_cast<int>(pick(60)));
    promises_.clear();
    boot();
    beat();
    told_ = commands.size();
    for (int i = 0; i < 40; ++i) {
      act();
      note_commands();
    }
    settle();
    note_commands();
    drain();
    auto recording = recorder_->stop();
    {
      const std::scoped_lock lock(promises_mutex_);
      recorder_.reset();
    }
    commits_ = watch.take();
    educloud::testing::expect_all_recorded(recording, folder_);
    keep_lasting_promises();
    return recording;
  }

  /// What ended since by itself (a desktop was deleted) was no promise for good.
  void keep_lasting_promises() {
    const auto kept = store->read([this](store::Sql& sql) -> Result<> {
      std::erase_if(promises_, [&](const Promise& one) { return !one.is_kept(sql); });
      return {};
    });
    ASSERT_TRUE(kept) << kept.error().message;
  }

  /// What was sent out was decided for good before.
  void note_commands() {
    for (; told_ < commands.size(); ++told_) {
      const auto& one = commands[told_];
      promise("sent " + one.op + " for " + one.tid,
              "SELECT COUNT(*) FROM tasks WHERE tid = ?1 AND (epoch > ?2 OR (epoch = ?2 AND attempt >= ?3))",
              one.tid, one.epoch, one.attempt);
    }
  }

  void act() {
    const auto insid = insids_.empty() ? "" : insids_[pick(insids_.size())];
    switch (pick(12)) {
      case 0: return define_one();
      case 1: return add_an_account();
      case 2:
      case 3:
        if (const auto task = cloud->run_vm(admin, insid))
          promise("run " + insid, "SELECT COUNT(*) FROM tasks WHERE insid = ?", insid);
        return;
      case 4: (void)cloud->stop_vm(admin, insid); return;
      case 5:
        if (pick(3) == 0) (void)cloud->delete_vm(admin, insid);
        return;
      case 6: return advance(static_cast<std::int64_t>(1 + pick(40)));
      case 7: return repeat_a_status();
      case 8: settle(); return;
      default: return answer_one();
    }
  }

  void define_one() {
    NewVm request;
    request.imgid = imgid_;
    request.name = std::string(pick(60) + 1, 'n');
    request.kind = pick(3) == 0 ? "TVD" : "VD";
    request.memory_mib = 512;
    const auto vm = cloud->define_vm(admin, request);
    if (!vm) return;  // the nodes are full
    promise("defined " + vm->instance.insid, "SELECT COUNT(*) FROM instances WHERE insid = ?",
            vm->instance.insid);
    insids_.push_back(vm->instance.insid);
  }
  void add_an_account() {
    const auto name = "pupil" + std::to_string(++accounts_);
    // Not create_account, whose hash takes its time.
    const auto done = store->write([&](store::Sql& sql) -> Result<> {
      store::add_account(sql, {name, false, std::string(100, 'h'), clock.wall_ms()});
      return {};
    });
    ASSERT_TRUE(done);
    promise("account " + name, "SELECT COUNT(*) FROM accounts WHERE name = ?", name);
  }

  /// The node's answer to a command that it has not answered, or not to the end.
  void answer_one() {
    settle();
    std::vector<std::size_t> open;
    for (std::size_t i = 0; i < commands.size(); ++i)
      if (!answered_.contains(commands[i].cmdid)) open.push_back(i);
    if (open.empty()) return;
    const auto command = commands[open[pick(open.size())]];
    const auto tells = events_of(command.op);
    if (pick(10) == 0) {
      tell_and_keep(command, Event::failed);
    } else if (pick(2) == 0) {
      tell_and_keep(command, tells.front());
    } else {
      tell_and_keep(command, tells.back());
    }
  }
  static std::vector<Event> events_of(const std::string& op) {
    if (op == "image/prepare") return {Event::downloading, Event::prepared};
    if (op == "image/run") return {Event::booting, Event::running};
    if (op == "image/stop") return {Event::stopped};
    if (op == "task/delete") return {Event::deleted};
    return {Event::failed};
  }
  void tell_and_keep(const msg::Command& command, Event event) {
    auto status = answer(command, event);
    const auto last_one = events_of(command.op).back();
    if (event == last_one || event == Event::failed) {
      status.final = 1;
      answered_.insert(command.cmdid);
    }
    if (event == Event::failed) status.errormsg = "a cable came loose";
    told_statuses_.push_back(status);
    tell(status);
  }
  void repeat_a_status() {
    if (!told_statuses_.empty()) tell(told_statuses_[pick(told_statuses_.size())]);
  }

  void check(const fs::path& disk, std::size_t position) {
    const auto database = disk / "clc.sqlite";
    educloud::testing::expect_one_of(database,
                                     educloud::testing::possible_contents(commits_, before_, position));
    store::StoreOptions options;
    options.writer_thread = false;
    const auto opened = store::Store::open(database, options);
    ASSERT_TRUE(opened) << opened.error().message;
    const auto read = (*opened)->read([&](store::Sql& sql) -> Result<> {
      for (const auto& one : promises_) {
        if (one.position > position) continue;
        ++proven_;
        EXPECT_TRUE(one.is_kept(sql)) << one.what;
      }
      return {};
    });
    ASSERT_TRUE(read) << read.error().message;
  }

  /// Now, for good: clc's memory is gone and its disk is what the cut left.
  void lose_power(const Recording& recording) {
    halt();
    const auto order =
        pick(2) == 0 ? educloud::testing::NameOrder::journalled : educloud::testing::NameOrder::any;
    educloud::testing::PowerCut cut(recording, order);
    cut.advance(recording.ops.size());
    fs::remove_all(folder_);
    cut.leave(random_(), folder_);
    boot();
    beat();
  }

  /// Every task still comes to an end.
  void end_all() {
    for (int round = 0; round < 60; ++round) {
      for (const auto& insid : insids_) (void)cloud->delete_vm(admin, insid);
      advance(31);
      for (std::size_t i = 0; i < commands.size(); ++i) {
        const auto command = commands[i];
        if (!answered_.contains(command.cmdid)) tell_and_keep(command, events_of(command.op).back());
      }
    }
    const auto left = store->read([](store::Sql& sql) -> Result<std::int64_t> {
      return sql.number(
          "SELECT (SELECT COUNT(*) FROM tasks WHERE state <> 'gone') + (SELECT COUNT(*) FROM ports) + "
          "(SELECT COUNT(*) FROM instances) + (SELECT COUNT(*) FROM outbox)");
    });
    EXPECT_EQ(left.value_or(-1), 0) << "life " << seed_;
  }

  const std::uint64_t seed_;
  std::mt19937_64 random_;
  std::string imgid_, before_;
  std::vector<std::string> insids_;
  std::vector<msg::TaskStatus> told_statuses_;
  std::set<std::string> answered_;
  std::unique_ptr<DiskRecorder> recorder_;
  std::vector<CommitWatch::Commit> commits_;
  std::mutex promises_mutex_;
  std::vector<Promise> promises_;
  std::size_t told_ = 0;
  int accounts_ = 0, proven_ = 0;
};

TEST(Power, WhatClcHasToldIsThereAfterACut) {
  int proven = 0;
  for (const auto seed : educloud::testing::lives(8)) {
    SCOPED_TRACE("EDUCLOUD_POWER_SEED=" + std::to_string(seed));
    Life life(seed);
    life.run(60);
    if (HasFailure()) return;
    proven += life.proven();
  }
  EXPECT_GT(proven, 1000);
}

}  // namespace
}  // namespace educloud::clc
