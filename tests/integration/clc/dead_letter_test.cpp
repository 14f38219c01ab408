#include "clc/app/dead_letters.hpp"
#include "clc/app/safety.hpp"
#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class DeadLetterTest : public CloudTest {
 protected:
  void SetUp() override {
    broker.bind("dead_letter", "#", "dead_letter_queue");
    CloudTest::SetUp();
    letters_ = std::make_unique<DeadLetters>(*store, clock);
    bus_ = broker.connect("clc");
    letters_->subscribe(*bus_);
    bus_->start([] {});
  }
  void TearDown() override {
    bus_->stop();
    CloudTest::TearDown();
  }
  /// As the broker would hand over what died elsewhere. Returns its id.
  std::int64_t die(const std::string& queue, const std::string& reason, const std::string& body,
                   const std::string& sender) {
    bus::Delivery delivery;
    delivery.queue = "dead_letter_queue";
    delivery.routing_key = "key";
    delivery.user_id = sender;
    delivery.body = body;
    delivery.first_death_queue = queue;
    delivery.first_death_reason = reason;
    int acked = 0;
    delivery.settle = [&](bus::Verdict verdict) { acked += verdict == bus::Verdict::ack ? 1 : 0; };
    letters_->take(std::move(delivery));
    drain();
    drain();  // it is told of after the commit that the first one shares with it
    EXPECT_EQ(acked, 1);
    const auto all = list();
    return all.empty() ? 0 : all.front().id;
  }
  std::vector<DeadLetter> list() {
    settle();
    auto page = cloud->safety().dead_letters(admin, {});
    EXPECT_TRUE(page) << page.error().message;
    return page ? page->items : std::vector<DeadLetter>{};
  }
  std::string start_vm() {
    const auto task = cloud->run_vm(admin, define(import("debian")));
    EXPECT_TRUE(task) << task.error().message;
    EXPECT_EQ(ops(), "image/prepare");
    return task->task.tid;
  }

  std::unique_ptr<DeadLetters> letters_;
  std::unique_ptr<bus::Bus> bus_;
};

TEST_F(DeadLetterTest, PoisonIsRefusedAtOnceAndShownWithItsCause) {
  const auto tid = start_vm();
  publish(*cc, "taskstatus.cc-cc1", "{");
  publish(*walrus, "taskstatus.walrus", R"({"type":"taskstatus","phase":7})");
  publish(*cc, "nodestatus.cc-cc1", "[]");
  say(Event::downloading);
  EXPECT_EQ(at(tid), "preparing/downloading") << "neighbours live";
  const auto all = list();
  ASSERT_EQ(all.size(), 3u);
  for (const auto& one : all) EXPECT_EQ(one.reason, "rejected") << "once, not until the broker had enough";
  EXPECT_EQ(all[2].queue, "clc_status_queue");
  EXPECT_EQ(all[2].sender, "cc-cc1");
  EXPECT_EQ(all[2].exchange, "clc_status");
  EXPECT_THAT(all[1].cause, HasSubstr("phase"));
  EXPECT_EQ(all[1].sender, "walrus");
  EXPECT_EQ(all[0].queue, "clc_heartbeat_queue");
  EXPECT_EQ(cloud->safety().dead_letter(admin, all[2].id)->body, "{");
  const auto refused = cloud->safety().retry_dead_letter(admin, all[2].id);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  EXPECT_THAT(refused.error().message, HasSubstr("cannot be read now either"));
  EXPECT_EQ(cloud->status(admin)->dead_letters, 3);
  EXPECT_EQ(cloud->safety().drop_dead_letter(admin, all[0].id)->dropped, 1);
  EXPECT_EQ(cloud->safety().drop_dead_letter(admin, all[0].id).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->safety().drop_dead_letters(admin)->dropped, 2);
  EXPECT_TRUE(list().empty());
}

TEST_F(DeadLetterTest, LeasesOfAClusterThatIsAwayCrowdNothingOut) {
  EXPECT_EQ(die("cc_cmd_queue.cc1", "expired", msg::serialize(msg::Lease{}), "clc"), 0);
}

TEST_F(DeadLetterTest, ACommandIsSentAgainWhileItsTaskWaitsForIt) {
  const auto tid = start_vm();
  const auto prepare = last();
  const auto id = die("nc_cmd_queue.nc1", "expired", msg::serialize(prepare), "cc-cc1");
  clock.advance(std::chrono::hours{1});
  const auto retried = cloud->safety().retry_dead_letter(admin, id);
  ASSERT_TRUE(retried) << retried.error().message;
  EXPECT_EQ(retried->outcome, "sent_again");
  EXPECT_EQ(ops(), "image/prepare");
  EXPECT_EQ(last().cmdid, prepare.cmdid) << "the same: done once, however often it comes";
  EXPECT_GT(last().deadline, clock.wall_ms()) << "it may be begun again";
  EXPECT_EQ(list().front().retried_at, clock.wall_ms());

  say(Event::prepared);
  EXPECT_EQ(ops(), "image/run");
  const auto late = cloud->safety().retry_dead_letter(admin, id);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::conflict);
  EXPECT_THAT(late.error().message, HasSubstr("image/run"));
  auto forged = prepare;
  forged.cmdid = new_command_id().str();
  EXPECT_FALSE(cloud->safety().retry_dead_letter(
      admin, die("cc_cmd_queue.cc1", "rejected", msg::serialize(forged), "nc-nc1")));
  ASSERT_TRUE(cloud->cancel_task(admin, tid));
  ops();
  say(Event::deleted);
  EXPECT_THAT(cloud->safety().retry_dead_letter(admin, id).error().message, HasSubstr("has ended"));
  EXPECT_EQ(ops(), "") << "nothing was sent for any of these";
}

TEST_F(DeadLetterTest, AForgedLetterNeverSendsItsOwnBody) {
  start_vm();
  auto forged = last();
  forged.op = "task/delete";
  forged.nid = "nc2";
  ASSERT_TRUE(cloud->safety().retry_dead_letter(
      admin, die("cc_cmd_queue.cc1", "rejected", msg::serialize(forged), "nc-nc1")));
  EXPECT_EQ(ops(), "image/prepare") << "what the task waits for, from clc's own book";
  EXPECT_EQ(last().nid, "nc1");
}

TEST_F(DeadLetterTest, AStatusIsJudgedAgain) {
  const auto tid = start_vm();
  const auto prepared = msg::serialize(answer(last(), Event::prepared));
  const auto stolen = die("clc_status_queue", "delivery_limit", prepared, "cc-cc9");
  EXPECT_EQ(cloud->safety().retry_dead_letter(admin, stolen)->outcome, "wrong_sender");
  EXPECT_EQ(at(tid), "preparing/init");
  const auto elsewhere = die("cc_status_queue", "rejected", prepared, "nc-nc1");
  EXPECT_EQ(cloud->safety().retry_dead_letter(admin, elsewhere).error().code, ErrorCode::conflict);
  const auto mine = die("clc_status_queue", "delivery_limit", prepared, "cc-cc1");
  EXPECT_EQ(cloud->safety().retry_dead_letter(admin, mine)->outcome, "accept");
  EXPECT_EQ(ops(), "image/run");
  EXPECT_EQ(cloud->safety().retry_dead_letter(admin, mine)->outcome, "other_command") << "once is enough";
  EXPECT_EQ(ops(), "");
}

TEST_F(DeadLetterTest, AreForAdministratorsOnly) {
  const auto id = die("clc_status_queue", "rejected", "{", "cc-cc1");
  const Principal ann{"ann", false};
  auto& safety = cloud->safety();
  EXPECT_EQ(safety.dead_letters(ann, {}).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(safety.dead_letter(ann, id).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(safety.retry_dead_letter(ann, id).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(safety.drop_dead_letter(ann, id).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(safety.drop_dead_letters(ann).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(safety.back_up(ann).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(safety.backups(ann).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(list().size(), 1u);
}

}  // namespace
}  // namespace educloud::clc
