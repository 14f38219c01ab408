#include "clc/store/dead_letters.hpp"

#include <gmock/gmock.h>

#include "clc/store/store.hpp"
#include "support/temp_dir.hpp"

namespace educloud::clc::store {
namespace {

DeadLetter letter(std::string body) {
  DeadLetter out;
  out.at = 7;
  out.queue = "clc_status_queue";
  out.reason = "rejected";
  out.cause = "no JSON";
  out.exchange = "clc_status";
  out.routing_key = "taskstatus.cc-cc1";
  out.sender = "cc-cc1";
  out.body = std::move(body);
  return out;
}

class DeadLettersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto opened = Store::open(dir_ / "clc.sqlite");
    ASSERT_TRUE(opened) << opened.error().message;
    store_ = std::move(*opened);
  }
  educloud::testing::TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_F(DeadLettersTest, KeepTheirBytesWhateverTheyAre) {
  const std::string body("{\0\xff\xfe\n'; DROP TABLE dead_letters; --", 36);
  const auto done = store_->write([&](Sql& sql) -> Result<> {
    const auto id = add_dead_letter(sql, letter(body));
    const auto found = find_dead_letter(sql, id);
    EXPECT_EQ(found->body, body);
    EXPECT_EQ(found->bytes, 36);
    EXPECT_EQ(found->sender, "cc-cc1");
    EXPECT_EQ(found->exchange, "clc_status");
    EXPECT_EQ(found->cause, "no JSON");
    set_dead_letter_retried(sql, id, 99);
    EXPECT_EQ(list_dead_letters(sql, 0, 10).at(0).retried_at, 99);
    EXPECT_EQ(list_dead_letters(sql, 0, 10).at(0).body, "");
    EXPECT_TRUE(remove_dead_letter(sql, id));
    EXPECT_FALSE(remove_dead_letter(sql, id));
    EXPECT_FALSE(find_dead_letter(sql, id));
    EXPECT_EQ(find_dead_letter(sql, add_dead_letter(sql, letter("")))->body, "");
    return {};
  });
  ASSERT_TRUE(done) << done.error().message;
}

TEST_F(DeadLettersTest, TheNewestStayAndOfOldOnesTheBeginning) {
  const auto done = store_->write([&](Sql& sql) -> Result<> {
    std::int64_t first = 0, last = 0;
    for (std::int64_t i = 0; i < kDeadLetters + 5; ++i) {
      last = add_dead_letter(sql, letter(std::string(i % 1000 == 0 ? 60'000 : 10, 'x')));
      if (first == 0) first = last;
    }
    EXPECT_EQ(count_dead_letters(sql), kDeadLetters);
    EXPECT_FALSE(find_dead_letter(sql, first + 4));
    EXPECT_TRUE(find_dead_letter(sql, first + 5));
    EXPECT_EQ(find_dead_letter(sql, first + 1000)->bytes, kBodyBeginning);
    EXPECT_EQ(find_dead_letter(sql, first + 10'000)->bytes, 60'000) << "a new one";
    const auto page = list_dead_letters(sql, last - 1, 3);
    EXPECT_EQ(page.size(), 3u);
    EXPECT_EQ(page.at(0).id, last - 2);
    EXPECT_EQ(remove_dead_letters(sql), kDeadLetters);
    return {};
  });
  ASSERT_TRUE(done) << done.error().message;
}

}  // namespace
}  // namespace educloud::clc::store
